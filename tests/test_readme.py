"""The Python blocks of the README and of its page about Python run, in their order, on a checkpoint that the README's
first command makes (made smaller)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hfseq.__main__ import COMMANDS
from hfseq.commands import pretrain
from hfseq.recipe import packaged_recipes

ROOT = Path(__file__).parents[1]

# What makes the blocks run in seconds; each must still be on a page, or this test says so.
SMALLER = {
    'data.load_corpus("kjv")': 'data.load_corpus(None, train_file="verses.txt")',
    "vocab_size=2048": "vocab_size=300",
    "epochs=3": "epochs=1",
    "hidden_size=256": "hidden_size=16",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a small text and a checkpoint trained by the quickstart's command and recipe."""
    folder = tmp_path_factory.mktemp("readme")
    chapters = [
        "\n".join(
            f"And in the year {year} the king of the {n}th city did that which was good."
            for year in range(12)
        )
        for n in range(60)
    ]
    (folder / "verses.txt").write_text("\n\n".join(chapters), encoding="utf-8")
    sizes = "--tokenizer.vocab_size 300 --hidden_size 16 --embedding_size 8 --streams 4 --segment_length 16"
    words = f"lstm-kjv --corpus null --train_file verses.txt {sizes} --num_train_epochs 1 --cache_dir cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pretrain.main([*words.split(), "--output_dir", "outputs/lstm-kjv"])
    return folder


def test_readme_code_runs(workspace):
    pages = [ROOT / name for name in ("README.md", "docs/guides/python.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 4
    code = "\n".join(blocks)
    for published, small in SMALLER.items():
        assert published in code, f"no page says {published}: adapt SMALLER"
        code = code.replace(published, small)
    (workspace / "readme.py").write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "readme.py"], cwd=workspace, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "And God said" in run.stdout
    assert (workspace / "exported" / "modeling_recurrent.py").is_file()


def test_readme_names_what_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:hfseq|scripts|model_cards)/[\w./-]*)`", text):
        assert "NAME" in path or (ROOT / path).exists(), path
    for script in set(re.findall(r"scripts/\w+\.py", text)) - {"scripts/NAME.py"}:
        assert (ROOT / script).is_file(), script
    commands = re.findall(r"`hfseq (\w+) ?([\w-]*)", text)
    assert {name for name, _ in commands} >= {"pretrain", "recipes"}
    for name, word in commands:
        assert name in COMMANDS, name
        assert name != "pretrain" or word in packaged_recipes(), word
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / page).is_file(), page
    for target in re.findall(r"^make (\w+)", text, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
