"""From a recipe's `data:` section to what a run learns from: corpus, tokenizer, token arrays.

`prepare_data` decides by the model's type and the fields that are set. Corpora, tokenizers and arrays are built once
and cached (hfseq.data): the process that comes first writes them, all read them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .. import data
from ..recipe import DataSection, Recipe


@dataclass
class TrainingData:
    """What a run learns from, and which kind of run that is."""

    task: str
    """Which kind of run they are for: a key of hfseq.cards.TASKS."""
    tokenizer: Any
    arrays: dict[str, Any]
    """Token arrays of train, validation and, where there is one, test."""

    def config_fields(self) -> dict[str, Any]:
        """What the model's config takes from the tokenizer."""
        fields = data.tokenizer_config_fields(self.tokenizer)
        if self.task == "text2text-generation":
            fields["decoder_start_token_id"] = self.tokenizer.bos_token_id
            fields.pop("mask_token_id", None)  # no field of a sequence-to-sequence model
        return fields

    def check(self, config) -> None:
        """Raises ValueError where the tokenizer or a token array does not fit the model."""
        data.check_vocabulary(self.tokenizer, config)
        for array in self.arrays.values():
            data.check_ids(array.tokens, config.vocab_size)


@dataclass
class FeatureData(TrainingData):
    """Texts that begin with a vector."""

    table: data.FeatureTable

    def config_fields(self) -> dict[str, Any]:
        return {**super().config_fields(), "feature_size": self.table.width}

    def check(self, config) -> None:
        super().check(config)
        if config.feature_size not in (0, self.table.width):
            raise ValueError(
                f"model.feature_size {config.feature_size} is not the width of the vectors, {self.table.width} "
                f"({', '.join(self.table.columns)}). Leave the field out, or set it to 0 for a model without them."
            )


@dataclass
class PairData(TrainingData):
    """Pairs of texts: `arrays` are pair arrays."""

    target_tokenizer: Any
    """The same as `tokenizer` where both sides share one."""
    texts: dict[str, tuple[list[str], list[str]]]
    """Sources and references of what is held out, for BLEU."""
    languages: tuple[str, str]
    """Of sources and targets."""

    @property
    def is_shared(self) -> bool:
        """Whether source and target have one vocabulary."""
        return self.target_tokenizer is self.tokenizer

    def config_fields(self) -> dict[str, Any]:
        fields = data.tokenizer_config_fields(self.tokenizer)
        fields.pop("mask_token_id", None)
        fields["decoder_start_token_id"] = self.target_tokenizer.bos_token_id
        if not self.is_shared:
            fields["decoder_vocab_size"] = data.padded_vocab_size(self.target_tokenizer)
            fields["share_encoder_decoder_embeddings"] = False
        return fields

    def check(self, config) -> None:
        data.check_vocabulary(self.tokenizer, config)
        for split, array in self.arrays.items():
            data.check_ids(array.source.tokens, config.vocab_size)
            data.check_ids(array.target.tokens, config.decoder_vocab_size)
            if (positions := positions_of(config)) is not None:
                array.check_positions(positions, split)


def positions_of(config) -> int | None:
    """The longest sequence that a model takes; None: any, for it has no positions."""
    return getattr(config, "max_position_embeddings", None)


def prepare_data(recipe: Recipe) -> TrainingData:
    """Tokenizer and token arrays for the recipe's kind of model.

    Raises:
        ValueError, OSError, ImportError: what is wrong with the corpus, the tokenizer or a text, and where.
    """
    section = recipe.data
    if CONFIG_MAPPING[recipe.model_type].is_encoder_decoder:
        if section.noise is None:
            return prepare_pairs(recipe)
        task, options = "text2text-generation", {"translation": True}
        if section.noise == "infilling":
            options["mask"] = True
        else:
            options["sentinels"] = section.sentinels
    elif recipe.model_type == "hfseq_encoder":
        task, options = "fill-mask", {"masked": True}
    elif section.feature_columns is not None:
        return prepare_features(recipe)
    else:
        task, options = "text-generation", {}
    corpus = data.load_corpus(section.corpus, **section.arguments_of(data.load_corpus))
    tokenizer = tokenizer_of(corpus, section, **options)
    return TrainingData(task, tokenizer, data.build_token_arrays(corpus, tokenizer, section.cache_dir))


def prepare_features(recipe: Recipe) -> FeatureData:
    """Tokenizer, token arrays and vectors of a recipe with feature_columns."""
    section = recipe.data
    if not isinstance(section.corpus, str | None):
        raise ValueError(f"data.corpus with feature_columns is one name, not {section.corpus!r}.")
    table = data.load_features(section.corpus, **section.arguments_of(data.load_features))
    corpus = table.corpus()
    tokenizer = tokenizer_of(corpus, section)
    arrays = data.build_token_arrays(corpus, tokenizer, section.cache_dir)
    return FeatureData("vector-to-text", tokenizer, arrays, table)


def prepare_pairs(recipe: Recipe) -> PairData:
    """Tokenizers, pair arrays and the held-out texts of a translation recipe."""
    section = recipe.data
    corpus = data.load_pairs(section.corpus, **section.arguments_of(data.load_pairs))
    if section.tokenizer in data.ALGORITHMS:
        tokenizers = data.cached_pair_tokenizers(
            corpus,
            section.tokenizer,
            section.tokenizer_vocab_size,
            vocabulary=section.vocabulary,
            lowercase=section.lowercase,
            cache_dir=section.cache_dir,
        )
    else:
        tokenizers = _saved_tokenizer(section.tokenizer, data.load_pair_tokenizers)
    limits = (section.max_source_length, section.max_target_length, section.max_length_ratio)
    filters = data.PairFilter(*limits) if any(limit is not None for limit in limits) else None
    arrays = data.build_pair_arrays(corpus, *tokenizers, cache_dir=section.cache_dir, filters=filters)
    if filters and int(os.environ.get("RANK", 0)) == 0:
        print(arrays["train"].report)
    return PairData(
        task="translation",
        tokenizer=tokenizers[0],
        target_tokenizer=tokenizers[1],
        arrays=arrays,
        texts={side: texts for side, texts in corpus.texts.items() if side != "train"},
        languages=(section.source_language, section.target_language),
    )


def tokenizer_of(corpus: data.Corpus, section: DataSection, **options: Any):
    """The recipe's tokenizer: trained on the corpus, where `data.tokenizer` is an algorithm, else loaded."""
    if section.tokenizer not in data.ALGORITHMS:
        return _saved_tokenizer(section.tokenizer)
    return data.cached_tokenizer(
        corpus,
        section.tokenizer,
        section.tokenizer_vocab_size,
        lowercase=section.lowercase,
        cache_dir=section.cache_dir,
        **options,
    )


def _saved_tokenizer(name: str, load: Callable = AutoTokenizer.from_pretrained):
    try:
        return load(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data.tokenizer {name!r} is none of the algorithms {', '.join(data.ALGORITHMS)}, and no tokenizer "
            f"could be loaded from there: {error}"
        ) from error
