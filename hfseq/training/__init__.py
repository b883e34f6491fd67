"""What the stock `Trainer` lacks, as small as possible: optimisers, averaging, carried state, whole checkpoints,
callbacks, exact scores."""

from .averaging import AveragedEvaluation
from .callbacks import (
    ReadableProgress,
    ScaleRateWithLength,
    StopOnNonFiniteLoss,
    TrueEpoch,
    replace_progress,
)
from .checkpoints import CheckpointCallback, newest_complete_checkpoint
from .evaluation import LanguageModelScore, score_language_model
from .optimizers import optimizer_factory, parameter_groups
from .report import describe_machine, plot_loss_curve, write_json

__all__ = [
    "AveragedEvaluation",
    "CheckpointCallback",
    "LanguageModelScore",
    "ReadableProgress",
    "ScaleRateWithLength",
    "StopOnNonFiniteLoss",
    "TrueEpoch",
    "describe_machine",
    "newest_complete_checkpoint",
    "optimizer_factory",
    "parameter_groups",
    "plot_loss_curve",
    "replace_progress",
    "score_language_model",
    "write_json",
]
