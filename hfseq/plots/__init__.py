"""Pictures, one file each: of a run, of a fine-tuned model's answers, of attention, of colours.

They need matplotlib (`pip install hfseq[report]`), which is imported when the first is drawn. One rule where it is
missing: every function here raises (`require_matplotlib`). Whoever was asked for a picture calls that before the work
begins; a run for which a picture is a by-product asks `has_matplotlib()` and goes without.

    loss_curve         a run's training and validation loss
    confusion_matrix, class_scores, regression      how a fine-tuned model answers
    minimal_pairs      accuracy on minimal pairs by phenomenon, beside other systems
    attention          every layer and head for one sentence, or several models side by side
    swatches           colours with their names
"""

from __future__ import annotations

from .attention import plot_attention, plot_side_by_side
from .class_scores import plot_class_scores
from .confusion_matrix import plot_confusion_matrix
from .figure import has_matplotlib, require_matplotlib
from .loss_curve import plot_loss_curve
from .minimal_pairs import plot_minimal_pairs
from .regression import plot_regression
from .swatches import Swatch, plot_swatches

__all__ = [
    "Swatch",
    "has_matplotlib",
    "plot_attention",
    "plot_class_scores",
    "plot_confusion_matrix",
    "plot_loss_curve",
    "plot_minimal_pairs",
    "plot_regression",
    "plot_side_by_side",
    "plot_swatches",
    "require_matplotlib",
]
