"""Translation: pairs of texts and any encoder-decoder (`AutoModelForSeq2SeqLM`), in batches by a budget of tokens; BLEU
and chrF beside the loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel, TrainerCallback

from .. import data
from ..cards import CardText
from ..data.made_up import Lengths, MadeUpSide, MadeUpTexts
from ..metrics.bleu import require_sacrebleu
from ..training.processes import is_main
from ..training.translating import TranslationEvaluation, TranslationScore, score_translation, translate
from .base import (
    Objective,
    Plan,
    check_row_length,
    model_class_of,
    never_generated,
    position_limit,
    positive_int,
)
from .sections import PairTokenizer, saved_tokenizer

MADE_UP = Lengths(22, 0.5, 100)  # tokens of a sentence, to plan with

CARD = CardText(
    pipeline="translation",
    tag="machine-translation",
    metrics={
        "tokenized_bleu": ("tokenised BLEU", ".2f"),
        "bleu": ("sacreBLEU", ".2f"),
        "bleu_lowercase": ("sacreBLEU, lower-cased", ".2f"),
        "chrf": ("chrF", ".2f"),
        "perplexity": ("perplexity per token", ".2f"),
    },
    note="Only BLEU with the same signature compares. Perplexity is that of the reference's tokens, and depends on the "
    "tokenizer.",
    sizes=("sentences", "tokens"),
    metric="bleu",
    usage="""from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True)
inputs = tokenizer([{prompt}], return_tensors="pt", padding=True)
ids = model.generate(**inputs)  # beams and longest output as in generation_config.json
print(tokenizer.batch_decode(ids, skip_special_tokens=True))""",
)


@dataclass
class PairData:
    """Which pairs are read, and how they are split."""

    corpus: str | None = None
    """"multi30k", or a Hub data set id ("org/name", "org/name:configuration")."""
    train_file: str | list[str] | None = None
    """Local pairs instead: a .tsv, .csv or .jsonl, or two parallel files, [train.en, train.de], each also .gz."""
    validation_file: str | list[str] | None = None
    """Validation pairs; without it `validation_share` of the pairs is set aside."""
    test_file: str | list[str] | None = None
    """Test pairs; without it `test_share` of the pairs is set aside."""
    source_language: str = "en"
    """The language translated from, as the corpus calls it."""
    target_language: str = "de"
    """The language translated into."""
    source_column: str | None = None
    """The column (or JSON key) translated from; without it, the one called like the language."""
    target_column: str | None = None
    """The column translated into, likewise."""
    max_source_length: int | None = None
    """Training pairs with more source tokens (the end token counts) are dropped, and how many is said."""
    max_target_length: int | None = None
    """Likewise for targets."""
    max_length_ratio: float | None = None
    """Training pairs are dropped where one text has more than so many times the other's tokens."""
    validation_share: float = 0.05
    """Share of pairs set aside for validation, chosen by a hash of the source."""
    test_share: float = 0.05
    """Share of pairs set aside for testing, chosen likewise."""
    split_seed: int = 0
    """Another number is another split."""
    deduplicate: bool | str = False
    """Drop pairs that repeat an earlier one: "whitespace" (or true) up to white space, "exact" letter by letter."""
    streaming: bool = False
    """Read a Hub data set without downloading it first."""
    held_out_limit: int | None = 20_000_000
    """At most so many bytes on each side that is set aside of a huge corpus; null: no limit."""
    cache_dir: str | None = None
    """Where pair arrays are kept; default: $HFSEQ_CACHE, else ~/.cache/hfseq."""


@dataclass
class TranslationFields:
    """How pairs become batches, and how translations are searched for."""

    type: str = "translation"
    packing: str = "batches"
    """batches (pairs of similar length) or packed (several pairs per row of row_length)."""
    row_length: int | None = None
    """Packed: positions of a row, for sources and for targets."""
    tokens_per_update: int = 8192
    """At most so many positions, pairs x the longest source or target, per optimiser step over all processes."""
    cells_per_update: int | None = None
    """At most so many cells, pairs x the longest source x the longest target, per optimiser step, beside
    tokens_per_update: the memory of hfseq_pervasive grows with them. Evaluation keeps to them too. null: no limit."""
    translated_sentences: int = 500
    """Validation sentences translated, greedily, at each evaluation for BLEU and chrF; 0: none."""
    num_beams: int = 5
    """Beams of the final scores, and of the saved generation config."""

    def __post_init__(self) -> None:
        positive_int(self.num_beams, "objective.num_beams")
        if self.translated_sentences < 0:
            raise ValueError(
                f"objective.translated_sentences must be 0 or more, not {self.translated_sentences}."
            )
        if self.packing == "packed" and self.row_length is None:
            raise ValueError("objective.packing packed needs a row_length, such as 128.")
        if self.packing != "packed" and self.row_length is not None:
            raise ValueError(
                f"row_length {self.row_length} is that of packed rows, but packing is {self.packing}: leave it out, or "
                "set packing to packed."
            )
        for name in ("row_length", "cells_per_update"):
            if getattr(self, name) is not None:
                positive_int(getattr(self, name), f"objective.{name}")


class Translation(Objective):
    """Learns to translate."""

    name = "translation"
    data_section = PairData
    tokenizer_section = PairTokenizer
    card: ClassVar[CardText] = CARD
    higher_is_better = True
    sample_prompt = "Two men are walking."

    target_tokenizer: Any = None
    """The same as `tokenizer` where both sides share one."""
    texts: dict[str, tuple[list[str], list[str]]]
    """Sources and references of what is held out, for BLEU."""

    @classmethod
    def section(cls, model_class: type[PreTrainedModel] | None) -> type:
        return TranslationFields

    @classmethod
    def auto_class_name(cls, values: Mapping[str, Any]) -> str:
        return "AutoModelForSeq2SeqLM"

    @property
    def main_score(self) -> str:  # type: ignore[override]  # nobody writes it
        """A model of lower-cased text is not punished for the capitals it never saw."""
        return "bleu_lowercase" if _lower_cases(self.target_tokenizer) else "bleu"

    @property
    def languages(self) -> tuple[str, str]:
        """Of sources and targets."""
        return self.recipe.data.source_language, self.recipe.data.target_language

    def made_up(self, texts: MadeUpTexts, count: int, longest: int | None) -> MadeUpSide:
        section = self.recipe.data
        limits = [section.max_source_length, section.max_target_length, longest, MADE_UP.most]
        most = min(limit for limit in limits if limit is not None) - 1  # the end token
        targets, sources = iter(texts.words(count)), iter(texts.words(2 * count))
        lines = ["source\ttarget"]
        for length in texts.lengths(count, MADE_UP, most):
            other = max(1, min(most, round(length / texts.draw.uniform(0.8, 1.25))))
            pair = [next(sources, "w0") for _ in range(other)], [next(targets, "w0") for _ in range(length)]
            lines.append("\t".join(map(" ".join, pair)))
        return MadeUpSide(
            "\n".join(lines), ".tsv", {"source_column": "source", "target_column": "target"},
            f"sentences of {MADE_UP}, translations 0.8 to 1.25 times as long; --tokens counts those of the targets",
        )  # fmt: skip

    def check_before(self, config: Any) -> None:
        require_sacrebleu()
        fields, positions = self.fields, position_limit(config)
        if fields.packing != "packed":
            return
        if positions is None:
            raise ValueError(
                f"{config.model_type} takes no packed rows: what it keeps of one pair would leak into the next. Set "
                "objective.packing to batches."
            )
        check_row_length(fields.row_length, config)
        if "decoder_cu_seq_lens" not in _arguments(model_class_of("AutoModel", type(config))):
            raise ValueError(
                f"{config.model_type} cannot keep the pairs of a packed row apart (its forward takes no borders). Set "
                "objective.packing to batches."
            )

    def prepare(self) -> None:
        section, own = self.recipe.data, self.recipe.tokenizer
        corpus = self.load(data.load_pairs)
        if own.path is not None:
            tokenizers = saved_tokenizer(own.path, data.load_pair_tokenizers)
        else:
            tokenizers = data.cached_pair_tokenizers(
                corpus,
                own.type,
                own.vocab_size,
                vocabulary=own.vocabulary,
                lowercase=own.lowercase,
                cache_dir=section.cache_dir,
            )
        limits = (section.max_source_length, section.max_target_length, section.max_length_ratio)
        filters = data.PairFilter(*limits) if any(limit is not None for limit in limits) else None
        self.arrays = data.build_pair_arrays(
            corpus, *tokenizers, cache_dir=section.cache_dir, filters=filters
        )
        if filters and is_main():
            print(self.arrays["train"].report)
        self.tokenizer, self.target_tokenizer = tokenizers
        self.texts = {side: texts for side, texts in corpus.texts.items() if side != "train"}
        if "validation" not in self.arrays:
            raise ValueError(
                "There are no validation pairs: give data.validation_file, or a data.validation_share."
            )

    def config_fields(self) -> dict[str, Any]:
        fields = super().config_fields()
        fields.pop("mask_token_id", None)
        fields["decoder_start_token_id"] = self.target_tokenizer.bos_token_id
        fields["forced_eos_token_id"] = (
            self.target_tokenizer.eos_token_id
        )  # of Marian and BART, else another id
        if self.target_tokenizer is not self.tokenizer:
            fields["decoder_vocab_size"] = data.padded_vocab_size(self.target_tokenizer)
            fields["share_encoder_decoder_embeddings"] = False
        return fields

    def check(self, config: Any) -> None:
        data.check_vocabulary(self.tokenizer, config)
        positions = position_limit(config)
        for array in self.arrays.values():
            data.check_ids(array.source.tokens, config.vocab_size)
            data.check_ids(array.target.tokens, target_vocabulary(config))
        self.check_lengths(config)
        if positions is not None:
            for tokenizer in (self.tokenizer, self.target_tokenizer):
                tokenizer.model_max_length = positions

    def check_lengths(self, config: Any) -> None:
        positions = position_limit(config)
        for side, array in self.arrays.items():
            if positions is not None:
                array.check_positions(positions, side)

    def plan(self, config: Any, processes: int) -> Plan:
        fields = self.fields
        train = data.PairPlan(
            self.arrays["train"],
            tokens_per_update=fields.tokens_per_update,
            epochs=self.epochs,
            micro_batches=self.accumulation * processes,
            packing=fields.packing,
            row_length=fields.row_length if fields.packing == "packed" else None,
            cells_per_update=fields.cells_per_update,
            seed=self.seed,
        )
        callbacks: list[TrainerCallback] = []
        if fields.translated_sentences:
            sources, references = (side[: fields.translated_sentences] for side in self.texts["validation"])
            callbacks.append(
                TranslationEvaluation(
                    self.tokenizer, sources, references, target_tokenizer=self.target_tokenizer
                )
            )
        return self.whole_batches(config, train, self.evaluation_plan("validation", processes), callbacks)

    def evaluation_plan(self, side: str, processes: int = 1) -> data.PairPlan:
        """How the loss of a side is measured."""
        return data.PairPlan.evaluation(
            self.arrays[side],
            tokens_per_batch=4096,
            cells_per_batch=self.fields.cells_per_update,
            processes=processes,
        )

    def amount(self) -> str:
        train = self.arrays["train"]
        return f"{len(train):,} pairs, {train.target_lengths.sum() / 1e6:.2f}M target tokens"

    def data_facts(self) -> dict[str, Any]:
        train = self.arrays["train"]
        return {
            "language": list(self.languages),
            "train_pairs": len(train),
            "train_source_tokens": int(train.source_lengths.sum()),
            "train_target_tokens": int(train.target_lengths.sum()),
            "filter": str(train.report) if train.report else None,
        }

    def generation(self, config: Any) -> dict[str, Any]:
        positions = position_limit(config)
        return {
            "num_beams": self.fields.num_beams,
            **({} if positions is None else {"max_length": positions}),
            **never_generated(
                self.target_tokenizer,
                target_vocabulary(config),
                self.target_tokenizer.bos_token_id,
                self.target_tokenizer.mask_token_id,  # of a pretraining by denoising, like the sentinels
                *data.sentinel_ids(self.target_tokenizer),
            ),
        }

    def score(self, model: PreTrainedModel, side: str) -> TranslationScore:
        sources, references = self.texts[side]
        return score_translation(
            model,
            self.evaluation_plan(side),
            self.tokenizer,
            sources,
            references,
            language=self.languages[1],
            target_tokenizer=self.target_tokenizer,
            num_beams=self.fields.num_beams,
        )

    def sample(self, model: PreTrainedModel, prompt: str) -> dict[str, Any]:
        options = {"target_tokenizer": self.target_tokenizer, "num_beams": self.fields.num_beams}
        return {"translation": translate(model, self.tokenizer, [prompt], **options)[0]}

    def tokenizers(self) -> list[Any]:
        return [self.tokenizer, self.target_tokenizer]

    def save_tokenizers(self, directory: Path) -> None:
        data.save_pair_tokenizers(directory, self.tokenizer, self.target_tokenizer)


def target_vocabulary(config: Any) -> int:
    """Rows of the decoder's embedding."""
    return getattr(config, "decoder_vocab_size", None) or config.vocab_size


def _arguments(model_class: type[PreTrainedModel] | None) -> set[str]:
    return set() if model_class is None else set(inspect.signature(model_class.forward).parameters)


def _lower_cases(tokenizer: Any) -> bool:
    """Whether what it decodes has no capitals."""
    return tokenizer.decode(tokenizer("A")["input_ids"], skip_special_tokens=True) == "a"
