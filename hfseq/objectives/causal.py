"""Next tokens: any model that reads from left to right (`AutoModelForCausalLM`).

A model that carries its state from batch to batch (hfseq's RNN, GRU and LSTM) reads the corpus as contiguous streams;
any other as rows of one length, cut out of the corpus anywhere (`packing: blocks`) or packed from whole documents
(`documents`). Documents in one row must not see each other: whether this very model keeps them apart is tried before
anything else is built (`packing_check.py`), as GPT-2 of transformers, for one, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel, set_seed

from .. import data
from ..cards import CardText
from ..training.callbacks import ScaleRateWithLength
from ..training.evaluation import LanguageModelScore, score_language_model, score_rows
from .base import Objective, Plan, check_row_length, million_tokens, position_limit, positive_int
from .packing_check import check_packed_rows
from .reading_check import check_reads_forward

# Tokens with which training.prompt is continued, at most.
SAMPLED = 60

CARD = CardText(
    pipeline="text-generation",
    tag="language-modeling",
    metrics={
        "perplexity_per_token": ("perplexity per token", ".2f"),
        "perplexity_per_word": ("per word", ".1f"),
        "bits_per_byte": ("bits per byte", ".4f"),
    },
    note="Perplexity per token depends on the tokenizer. Perplexity per word and bits per byte spread the same total "
    "over the white-space separated words and the UTF-8 bytes of the text, so models with other tokenizers compare.",
    sizes=("tokens", "words", "bytes"),
    metric="perplexity",
    usage="""from transformers import AutoModelForCausalLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
inputs = tokenizer({prompt}, return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=50, do_sample=True, temperature=0.7)
print(tokenizer.decode(ids[0], skip_special_tokens=True))""",
    claim="bits_per_byte",
)


@dataclass
class Streams:
    """Fields for models that carry their state."""

    type: str = "causal"
    streams: int = 32
    """Contiguous text streams read side by side: the global batch, whatever the number of processes."""
    segment_length: int = 64
    """Tokens of each stream per update: how far back-propagation through time reaches."""
    random_lengths: bool = False
    """Vary the segment length as AWD-LSTM does (Merity et al. 2017); the learning rate follows the length."""
    evaluation_streams: int = 8
    """Streams that the validation text is cut into; few, because each begins without context."""


@dataclass
class RowsOfText:
    """Fields for all other models."""

    type: str = "causal"
    packing: str = "blocks"
    """blocks (rows cut out of the text anywhere) or documents (whole ones, several per row, which do not see each
    other)."""
    row_length: int = 128
    """Tokens of a row; evaluation has the same, and no context before a row."""
    tokens_per_update: int = 4096
    """At most so many positions, rows x row_length, per optimiser step over all processes."""


@dataclass
class _AnyFields(Streams, RowsOfText):
    """All of them, to know a field that another model has."""


class Causal(Objective):
    """Learns to predict the next token."""

    name = "causal"
    card: ClassVar[CardText] = CARD
    shifts_labels = True
    sample_prompt = "And it came to pass"

    @classmethod
    def section(cls, model_class: type[PreTrainedModel] | None) -> type:
        if model_class is None:
            return _AnyFields
        return Streams if carries_state(model_class) else RowsOfText

    @classmethod
    def auto_class_name(cls, values: Mapping[str, Any]) -> str:
        return "AutoModelForCausalLM"

    @property
    def by_streams(self) -> bool:
        """Whether the model carries its state."""
        return isinstance(self.fields, Streams)

    @property
    def tokens_per_update(self) -> int:
        fields = self.fields
        return fields.streams * fields.segment_length if self.by_streams else fields.tokens_per_update

    def check_before(self, config: Any) -> None:
        fields = self.fields
        if self.by_streams:
            for name in ("streams", "segment_length", "evaluation_streams"):
                positive_int(getattr(fields, name), f"objective.{name}")
            return
        check_row_length(fields.row_length, config)
        if fields.packing == "documents":
            check_packed_rows(self.auto_class, config)

    def plan(self, config: Any, processes: int) -> Plan:
        return self._streams(processes) if self.by_streams else self._rows(config, processes)

    def _streams(self, processes: int) -> Plan:
        fields, given = self.fields, self.recipe.training_arguments
        accumulation = self.accumulation
        rows = given.get("per_device_train_batch_size")
        if rows is None:
            rows = fields.streams // (accumulation * processes)
        else:
            positive_int(rows, "training.per_device_train_batch_size")
            accumulation = max(1, fields.streams // (rows * processes))
        if rows * accumulation * processes != fields.streams:
            raise ValueError(
                f"objective.streams = {fields.streams} must be rows x accumulation x processes, but {rows} x "
                f"{accumulation} x {processes} = {rows * accumulation * processes}. Change streams, "
                "per_device_train_batch_size, gradient_accumulation_steps or the number of processes."
            )
        validation = data.StreamPlan.evaluation(
            self.arrays["validation"].tokens,
            streams=fields.evaluation_streams,
            segment_length=fields.segment_length,
            processes=processes,
        )
        train = data.StreamPlan(
            self.arrays["train"].tokens,
            streams=fields.streams,
            segment_length=fields.segment_length,
            epochs=self.epochs,
            random_lengths=fields.random_lengths,
            seed=self.seed,
        )
        return Plan(
            train=train,
            validation=validation,
            collator=data.StreamCollator(),
            sizes={
                "per_device_train_batch_size": rows,
                "gradient_accumulation_steps": accumulation,
                "per_device_eval_batch_size": validation.streams // processes,
            },
            tokens_at=train.tokens_at,
            callbacks=[ScaleRateWithLength(train)] if fields.random_lengths else [],
            streams=fields.streams,
        )

    def _rows(self, config: Any, processes: int) -> Plan:
        fields = self.fields
        train = data.RowPlan(
            self.arrays["train"],
            row_length=fields.row_length,
            tokens_per_update=fields.tokens_per_update,
            epochs=self.epochs,
            micro_batches=self.accumulation * processes,
            packing=fields.packing,
            seed=self.seed,
        )
        return self.whole_batches(config, train, self.evaluation_plan("validation", processes))

    def evaluation_plan(self, side: str, processes: int = 1) -> data.RowPlan:
        """Rows out of the whole text, however training packs them: losses of both compare."""
        return data.RowPlan.evaluation(
            self.arrays[side],
            row_length=self.fields.row_length,
            tokens_per_batch=max(4096, self.fields.row_length),
            processes=processes,
        )

    def begin(self, model: PreTrainedModel, plan: Plan) -> str | None:
        if not self.by_streams:  # what carries its state reads a token at a time
            check_reads_forward(model)
        return super().begin(model, plan)

    def amount(self) -> str:
        return million_tokens(self.arrays["train"])

    def score(self, model: PreTrainedModel, side: str) -> LanguageModelScore:
        array = self.arrays[side]
        if self.by_streams:
            return score_language_model(model, array, streams=self.fields.evaluation_streams)
        nll, tokens = score_rows(model, self.evaluation_plan(side), shifts=True)
        return LanguageModelScore(nll=nll, tokens=tokens, words=array.n_words, bytes=array.n_bytes)

    def sample(self, model: PreTrainedModel, prompt: str) -> dict[str, Any]:
        set_seed(0)
        inputs = self.tokenizer(prompt, return_tensors="pt", split_special_tokens=True).to(model.device)
        model.eval()
        positions = position_limit(model.config)
        room = SAMPLED if positions is None else min(SAMPLED, positions - inputs["input_ids"].shape[1])
        ids = model.generate(**inputs, max_new_tokens=room, do_sample=True, temperature=0.7, top_p=0.9)
        return {"continuation": self.tokenizer.decode(ids[0], skip_special_tokens=True)}


def carries_state(model_class: type[PreTrainedModel]) -> bool:
    """Whether such models keep what they read from batch to batch."""
    return hasattr(model_class, "carried_states")
