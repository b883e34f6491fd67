"""From raw text to training rows: corpora -> tokenizers -> token arrays -> batch plans -> collators.

Each stage works alone. Names load when first used: training from token arrays imports neither `datasets` nor
`tokenizers`.

    from hfseq.data import StreamPlan, build_token_arrays, load_corpus, train_tokenizer

    corpus = load_corpus("kjv")
    tokenizer = train_tokenizer(corpus.train, "bpe", vocab_size=4096)
    arrays = build_token_arrays(corpus, tokenizer)
    plan = StreamPlan(arrays["train"].tokens, streams=32, segment_length=64, epochs=10)

For masked-language models, with a tokenizer trained with `masked=True`:

    vocabulary = MaskingVocabulary.from_tokenizer(tokenizer)
    plan = MaskedPlan(arrays["train"], vocabulary, row_length=128, tokens_per_update=8192, epochs=10)

For translation, and with plain text for denoising (a tokenizer with sentinels or a mask):

    corpus = load_pairs(train_file=["train.en", "train.de"])
    tokenizers = cached_pair_tokenizers(corpus, "bpe", 10_000)
    arrays = build_pair_arrays(corpus, *tokenizers, filters=PairFilter(max_length_ratio=1.5))
    plan = PairPlan(arrays["train"], tokens_per_update=4096, epochs=10)

    vocabulary = DenoisingVocabulary.from_tokenizer(tokenizer)
    plan = DenoisingPlan(array, vocabulary, row_length=128, tokens_per_update=4096, denoising=Denoising("spans"))
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "corpora": ("Corpus", "load_corpus"),
    "mixtures": ("MIXTURES",),
    "pre_tokenizers": ("ALGORITHMS",),
    "tokenizers": (
        "VOCABULARIES",
        "cached_pair_tokenizers",
        "cached_tokenizer",
        "check_vocabulary",
        "id_count",
        "load_pair_tokenizers",
        "padded_vocab_size",
        "read_tokenizer",
        "save_pair_tokenizers",
        "sentinel_ids",
        "surplus_ids",
        "tokenizer_config_fields",
        "train_tokenizer",
    ),
    "token_arrays": (
        "TokenArray",
        "check_ids",
        "load_token_array",
        "load_token_arrays",
    ),
    "splits": ("split_of",),
    "cache": ("default_cache_dir",),
    "array_building": ("build_token_arrays",),
    "feature_tables": ("FeatureTable", "load_features"),
    "vocabulary": ("MaskingVocabulary",),
    "pair_corpora": ("PairCorpus", "load_multi30k", "load_pairs"),
    "pair_arrays": ("FilterReport", "PairArray", "PairFilter", "build_pair_arrays"),
    "plans.base": ("BatchPlan",),
    "plans.streams": ("StreamPlan",),
    "plans.causal_rows": ("RowPlan",),
    "plans.rows": ("Rows", "make_rows"),
    "plans.sentences": ("sentence_starts",),
    "plans.masking": ("Masking",),
    "plans.masked": ("MaskedPlan",),
    "plans.pair_rows": ("PairRows", "pack_pairs"),
    "plans.pairs": ("PairPlan",),
    "plans.denoising": ("Denoising", "DenoisingPlan", "DenoisingVocabulary", "NoisyTexts"),
    "plans.buckets": ("BucketPlan",),
    "plans.vectors": ("FeaturePlan",),
    "plans.collators": ("StreamCollator", "WholeBatchCollator"),
    "hashing": (),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

_STAGES = {module.partition(".")[0] for module in _MODULES}

__all__ = sorted(_STAGES | set(_MODULE_OF))


def __getattr__(name: str) -> Any:
    if name in _STAGES:
        return importlib.import_module(f".{name}", __name__)
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
