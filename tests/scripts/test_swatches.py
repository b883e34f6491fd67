"""scripts/examples/swatches.py: what a name of a colour stands for."""

import runpy

import pytest

from hfseq.data.colours import lab_of

RED, BLUE, DARK = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.3, 0.0, 0.0)


def test_a_name_stands_for_itself_or_for_the_known_ones_that_end_like_it(repository):
    known = runpy.run_path(str(repository / "scripts/examples/swatches.py"))["KnownColours"](
        [("Fire Red", RED), ("old red", DARK), ("Blue", BLUE), ("blue", BLUE)]
    )
    assert known.knows("fire  red") and not known.knows("new fire red")
    assert known.lab("FIRE RED") == lab_of(RED)
    assert known.lab("new fire red") == lab_of(RED)  # two words in common, not one
    both = [(a + b) / 2 for a, b in zip(lab_of(RED), lab_of(DARK), strict=True)]
    assert known.lab("new red") == pytest.approx(both)
    assert known.lab("red fire") is None and known.distance("red fire", RED) is None
    assert known.distance("some blue", BLUE) == pytest.approx(0)
    assert known.distance("blue", RED) == pytest.approx(
        176.3, abs=0.1
    )  # published: Delta E 76 of red and blue


def test_the_name_it_once_had_still_runs_it(repository, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["swatches.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(repository / "scripts/swatches.py"), run_name="__main__")
    assert ended.value.code == 0 and "--twin" in capsys.readouterr().out
