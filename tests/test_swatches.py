"""What a name of a colour stands for, and the picture."""

import pytest

from hfseq.data.colours import lab_of
from hfseq.swatches import KnownColours, Swatch, plot_swatches

RED, BLUE, DARK = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.3, 0.0, 0.0)


def test_a_name_stands_for_itself_or_for_the_known_ones_that_end_like_it():
    known = KnownColours([("Fire Red", RED), ("old red", DARK), ("Blue", BLUE), ("blue", BLUE)])
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


def test_the_picture_holds_every_colour(tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed (extra report)")
    swatches = [Swatch(rgb, "true", ["likely", "sampled"]) for rgb in (RED, BLUE, DARK, (0.0, 1.0, 0.0))]
    path = plot_swatches(swatches, tmp_path / "swatches.png", "title", columns=2)
    pixels = image.imread(path)[..., :3].reshape(-1, 3)
    for swatch in swatches:
        assert (abs(pixels - swatch.rgb) < 0.01).all(1).mean() > 0.02
