"""hfseq compare --report: the whole command at its smallest scale, and what it refuses."""

import json
import re
from html.parser import HTMLParser

import pytest

from hfseq.report import EXPERIMENTS

CHEAP = ("gradient", "word_order", "translation", "alignments", "heads", "side_by_side")


class Page(HTMLParser):
    """Everything that a page would fetch, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.pictures, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "img":
            self.pictures.append(found)
        self.addresses += [found[name] for name in ("src", "href") if found.get(name)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sacrebleu")
    from hfseq.commands import compare

    folder = tmp_path_factory.mktemp("reports") / "report"
    compare.main(["--report", str(folder), "--scale", "tiny", "--seeds", "1", "--only", *CHEAP])
    return folder


def test_the_page_needs_nothing_else(report):
    page = Page((report / "index.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags and "link" not in page.tags
    for address in page.addresses:
        assert address.startswith(("data:image/svg+xml,", "#")) or (report / address).is_file(), address[:80]


def test_every_figure_has_words_a_command_and_its_numbers(report):
    text = (report / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.pictures) >= 8
    assert all(re.search(r"\d", picture["alt"]) for picture in page.pictures)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, flags=re.DOTALL)
    assert len(captions) == len(page.pictures)
    for caption in captions:
        assert "hfseq compare --report report --scale tiny --seeds 1 --only " in caption
        (file,) = re.findall(r'href="(\w+\.csv)"', caption)
        assert (report / file).read_text().startswith("series,x,mean,low,high,values\n")


def test_it_says_what_it_is_and_what_is_missing(report):
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "no number here means anything" in text
    assert "not begun" in text  # of the experiments that were not asked for
    assert "With one run of some, there is no telling what is chance." in text
    for experiment in EXPERIMENTS.values():
        assert f'id="{experiment.name}"' in text
    numbers = json.loads((report / "numbers.json").read_text())
    assert set(numbers["experiments"]) == set(EXPERIMENTS)
    assert numbers["experiments"]["word_order"]["sentences"]


def test_what_was_measured_is_not_measured_again(report, run, monkeypatch):
    monkeypatch.setattr("hfseq.report.experiments.word_order.in_order", lambda *_: pytest.fail("again"))
    before = (report / "data" / "word_order" / "0-with.json").read_bytes()
    printed = run("compare", "--report", report, "--scale", "tiny", "--seeds", "1", "--only", "word_order")
    assert printed.strip() == str(report / "index.html")
    assert (report / "data" / "word_order" / "0-with.json").read_bytes() == before


def test_mistakes(refused, tmp_path, report):
    directory = tmp_path / "report"
    assert "--scale 'huge'" in refused("compare", "--report", directory, "--scale", "huge")
    message = refused("compare", "--report", directory, "--only", "remembring")
    assert "no such experiment" in message and "remembering" in message
    assert "--seeds must be at least 1" in refused("compare", "--report", directory, "--seeds", "0")
    assert "leave output out" in refused("compare", "--report", directory, "--output", tmp_path / "x.json")
    assert "--seeds is of a report" in refused("compare", tmp_path, "--seeds", "2")
    assert "has no training_summary.json" in refused("compare", "--report", directory, "--models", tmp_path)
    assert "holds a report of --scale tiny" in refused("compare", "--report", report, "--scale", "cpu")
    (tmp_path / "file").write_text("")
    assert "is a file" in refused("compare", "--report", tmp_path / "file" / "report")
    assert not directory.exists()
