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
from .checkpoints import CheckpointCallback, newest_complete_checkpoint, refused_pickles_told
from .evaluation import (
    LanguageModelScore,
    MaskedLanguageModelScore,
    score_language_model,
    score_masked_language_model,
    score_rows,
)
from .label_weights import weigh_losses_by_labels
from .optimizers import optimizer_factory, parameter_groups
from .report import describe_machine, peak_memory, write_json
from .sharded_weights import save_model, whole_model
from .strategy import check_strategy, is_shared_out
from .translating import (
    Seq2SeqScore,
    TranslationEvaluation,
    TranslationScore,
    score_translation,
    translate,
)
from .unfreezing import GradualUnfreezing, layer_groups, layerwise_optimizer, slanted_triangular
from .weight_averaging import average_weights, initialize_from, last_checkpoints, load_weights

__all__ = [
    "AveragedEvaluation",
    "CheckpointCallback",
    "GradualUnfreezing",
    "LanguageModelScore",
    "MaskedLanguageModelScore",
    "ReadableProgress",
    "ScaleRateWithLength",
    "Seq2SeqScore",
    "StopOnNonFiniteLoss",
    "TranslationEvaluation",
    "TranslationScore",
    "TrueEpoch",
    "average_weights",
    "check_strategy",
    "describe_machine",
    "peak_memory",
    "initialize_from",
    "is_shared_out",
    "last_checkpoints",
    "layer_groups",
    "layerwise_optimizer",
    "load_weights",
    "newest_complete_checkpoint",
    "optimizer_factory",
    "parameter_groups",
    "refused_pickles_told",
    "replace_progress",
    "save_model",
    "score_language_model",
    "score_masked_language_model",
    "score_translation",
    "score_rows",
    "slanted_triangular",
    "translate",
    "weigh_losses_by_labels",
    "whole_model",
    "write_json",
]
