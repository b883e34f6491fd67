"""scripts/write_results.py: no number of README.md or docs/results.md is another than its card's."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest


@pytest.fixture(scope="module")
def script(repository):
    spec = importlib.util.spec_from_file_location(
        "write_results", repository / "scripts" / "write_results.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["write_results"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["write_results"]


@pytest.fixture
def page(script, tmp_path, monkeypatch):
    """A page with a table, and the one card that it is of."""
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "CARDS", tmp_path / "cards")
    monkeypatch.setattr(script, "PAGES", ("page.md",))
    (tmp_path / "cards" / "net").mkdir(parents=True)
    systems = (
        script.System("net {}", "net", ("scores", "test", "bits"), ".2f"),
        script.System("counting {} at most", "net", ("baselines", "Kneser", "test", "bits"), ".2f"),
    )
    monkeypatch.setattr(script, "TABLES", {"mine": (script.Row("text", "bits", systems, False),)})
    facts = {
        "scores": {"test": {"bits": 1.3}},
        "baselines": [{"name": "Kneser-Ney", "test": {"bits": 1.254}}],
    }
    (tmp_path / "cards/net/training_summary.json").write_text(json.dumps(facts))
    (tmp_path / "page.md").write_text(
        "Before.\n\n<!-- results: mine -->\nold\n<!-- end of results -->\n\nAfter.\n"
    )
    return tmp_path / "page.md"


def test_the_pages_say_what_the_cards_say(script):
    script.main(["--check"])


def test_a_table_is_written_in_its_place_the_better_first(script, page):
    with pytest.raises(SystemExit, match="page.md is not what the cards say"):
        script.main(["--check"])
    assert "old" in page.read_text()
    script.main([])
    text = page.read_text()
    assert "| text | bits | counting 1.25 at most, net 1.30 |\n<!-- end of results -->\n\nAfter.\n" in text
    assert text.startswith("Before.\n\n<!-- results: mine -->\n| trained") and "old" not in text
    script.main(["--check"])


def test_what_no_card_has_is_refused(script, page):
    card = page.parent / "cards/net/training_summary.json"
    card.write_text(json.dumps({"scores": {"test": {}}, "baselines": []}))
    with pytest.raises(SystemExit, match="has no number at scores / test / bits"):
        script.main([])
    page.write_text("no table")
    with pytest.raises(SystemExit, match="page.md has no place for a table: <!-- results: mine -->"):
        script.main([])
