"""How good a model is, in units that compare, and the baselines it is compared with.

    language_model   perplexity per token and per word, bits per byte
    classification   accuracy, F1, Matthews', Pearson's and Spearman's correlation, confusion matrix
    entities         precision, recall and F1 of entities in tagged sentences
    answers          exact match and F1 of SQuAD
    translation      BLEU and chrF with their signatures, by sacreBLEU; paired bootstrap
    baselines        what a model has to beat: Kneser-Ney on the same tokens, linear models on the same sides
    modules          all of these for `evaluate.load`: hfseq.metrics.load("f1"), hfseq.metrics.path("f1")

Names load when first used.

    from hfseq.data import load_token_arrays
    from hfseq.metrics import best_kneser_ney

    print(best_kneser_ney(load_token_arrays(directory)))
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES: dict[str, tuple[str, ...]] = {
    "answers": ("answer_scores", "normalize_answer"),
    "classification": (
        "accuracy",
        "class_scores",
        "confusion_matrix",
        "f1",
        "f1_of_classes",
        "matthews_correlation",
        "pearson",
        "spearman",
    ),
    "entities": ("entity_scores",),
    "baselines": (),
    "baselines.linear": ("LinearBaseline", "fit_tags", "fit_texts"),
    "baselines.ngram": (
        "BackoffModel",
        "Estimator",
        "best_kneser_ney",
        "find_estimator",
        "kneser_ney_bits",
        "kneser_ney_model",
    ),
    "modules": ("NAMES", "load", "path"),
    "language_model": ("bits_per_byte", "perplexity_per_token", "perplexity_per_word"),
    "bleu": (
        "all_translation_scores",
        "corpus_bleu",
        "has_moses",
        "moses_tokenized",
        "paired_bootstrap",
        "require_sacrebleu",
        "tokenized_bleu",
        "translation_scores",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*(name for name in _MODULES if "." not in name), *_MODULE_OF])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
