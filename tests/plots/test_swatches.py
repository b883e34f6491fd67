"""The picture of colours holds every one of them."""

import pytest

from hfseq.plots import Swatch, plot_swatches

RED, BLUE, DARK = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.3, 0.0, 0.0)


def test_the_picture_holds_every_colour(tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed (extra report)")
    swatches = [Swatch(rgb, "true", ["likely", "sampled"]) for rgb in (RED, BLUE, DARK, (0.0, 1.0, 0.0))]
    path = plot_swatches(swatches, tmp_path / "swatches.png", "title", columns=2)
    pixels = image.imread(path)[..., :3].reshape(-1, 3)
    for swatch in swatches:
        assert (abs(pixels - swatch.rgb) < 0.01).all(1).mean() > 0.02
