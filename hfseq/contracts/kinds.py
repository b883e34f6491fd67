"""What goes into a model and what comes out, for each kind of head.

A contract never builds a batch itself: it asks for *rows* (one example each, without padding) and lays them out as
it likes: alone, together, padded on either side, packed. A `Kind` knows which arguments have a time axis, which
axis, and what their padding is; everything else follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedConfig

IGNORE_INDEX = -100
Row = dict[str, torch.Tensor]
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of head.

    Args:
        name: as messages print it.
        auto_class: the Auto class that loads it.
        make_row: (config, {axis: length}, generator) -> the forward arguments of one example, without padding.
        axes: time axis of each argument of a row; None for arguments with one value per row.
        outputs: time axis of each output worth comparing.
        masks: name of the mask of each axis.
        ids: name of the token ids of each axis.
        labels: name of the labels, None for models without a loss.
        shifts: position t is scored against label t + 1 of the same row.
        causal_axis: the axis along which nothing may look ahead, None if everything sees everything.
        generates: has `generate`.
        pack: rows -> the forward arguments of one packed row, where the layout is common to all models of the kind.
    """

    name: str
    auto_class: str
    make_row: Callable[[PreTrainedConfig, dict[str, int], torch.Generator], Row]
    axes: dict[str, str | None]
    outputs: dict[str, str | None]
    masks: dict[str, str] = field(default_factory=lambda: {"tokens": "attention_mask"})
    ids: dict[str, str] = field(default_factory=lambda: {"tokens": "input_ids"})
    labels: str | None = "labels"
    shifts: bool = False
    causal_axis: str | None = None
    generates: bool = False
    pack: Callable[[list[Row]], Batch] | None = None

    @property
    def is_encoder_decoder(self) -> bool:
        return "target" in self.masks

    def count_labels(self, batch: Batch) -> int:
        """How many labels the loss of this batch counts."""
        labels = batch[self.labels]
        labels = labels[:, 1:] if self.shifts else labels
        return int((labels != IGNORE_INDEX).sum())


def ordinary_ids(config: PreTrainedConfig) -> torch.Tensor:
    """The ids of the vocabulary that have no special meaning."""
    special = set()
    for name in ("pad", "bos", "eos", "decoder_start", "mask", "unk", "cls", "sep"):
        value = getattr(config, f"{name}_token_id", None)
        special.update(value if isinstance(value, (list, tuple)) else [value])
    return torch.tensor([i for i in range(config.get_text_config().vocab_size) if i not in special])


def random_ids(config: PreTrainedConfig, length: int, generator: torch.Generator) -> torch.Tensor:
    ids = ordinary_ids(config)
    return ids[torch.randint(len(ids), (length,), generator=generator)]


def _base_row(config, lengths, generator) -> Row:
    return {"input_ids": random_ids(config, lengths["tokens"], generator)}


def _causal_row(config, lengths, generator) -> Row:
    ids = random_ids(config, lengths["tokens"], generator)
    return {"input_ids": ids, "labels": ids.clone()}


def _some_labels(config, length: int, generator) -> torch.Tensor:
    """Labels at about half of the positions, one at least."""
    labels = random_ids(config, length, generator)
    hidden = torch.rand(length, generator=generator) < 0.5
    hidden[0] = False
    return labels.masked_fill(hidden, IGNORE_INDEX)


def _masked_row(config, lengths, generator) -> Row:
    length = lengths["tokens"]
    return {
        "input_ids": random_ids(config, length, generator),
        "labels": _some_labels(config, length, generator),
    }


def _sequence_class_row(config, lengths, generator) -> Row:
    label = torch.randint(config.num_labels, (), generator=generator)
    return {"input_ids": random_ids(config, lengths["tokens"], generator), "labels": label}


def _token_class_row(config, lengths, generator) -> Row:
    ids = random_ids(config, lengths["tokens"], generator)
    return {"input_ids": ids, "labels": torch.randint(config.num_labels, ids.shape, generator=generator)}


def _seq2seq_base_row(config, lengths, generator) -> Row:
    source = random_ids(config, lengths["source"], generator)
    target = random_ids(config, lengths["target"], generator)
    target[0] = config.decoder_start_token_id
    return {"input_ids": source, "decoder_input_ids": target}


def _seq2seq_row(config, lengths, generator) -> Row:
    row = _seq2seq_base_row(config, lengths, generator)
    last = random_ids(config, 1, generator)
    return {**row, "labels": torch.cat([row["decoder_input_ids"][1:], last])}


def _pack_causal(rows: list[Row]) -> Batch:
    """One row; positions begin again with each sequence, whose first token no label of another one predicts."""
    labels = [row["labels"].clone() for row in rows]
    for label in labels:
        label[0] = IGNORE_INDEX
    return {
        "input_ids": torch.cat([row["input_ids"] for row in rows]).unsqueeze(0),
        "labels": torch.cat(labels).unsqueeze(0),
        "position_ids": torch.cat([torch.arange(len(row["input_ids"])) for row in rows]).unsqueeze(0),
    }


_TOKENS = {"input_ids": "tokens", "labels": "tokens"}
_PAIR = {"input_ids": "source", "decoder_input_ids": "target", "labels": "target"}
_PAIR_MASKS = {"source": "attention_mask", "target": "decoder_attention_mask"}
_PAIR_IDS = {"source": "input_ids", "target": "decoder_input_ids"}

BASE = Kind(
    "base model",
    "AutoModel",
    _base_row,
    {"input_ids": "tokens"},
    {"last_hidden_state": "tokens"},
    labels=None,
)
CAUSAL_BASE = Kind(
    "causal base model", "AutoModel", _base_row, {"input_ids": "tokens"}, {"last_hidden_state": "tokens"},
    labels=None, causal_axis="tokens",
)  # fmt: skip
CAUSAL_LM = Kind(
    "causal language model", "AutoModelForCausalLM", _causal_row, _TOKENS, {"logits": "tokens"},
    shifts=True, causal_axis="tokens", generates=True, pack=_pack_causal,
)  # fmt: skip
MASKED_LM = Kind("masked language model", "AutoModelForMaskedLM", _masked_row, _TOKENS, {"logits": "tokens"})
SEQUENCE_CLASSIFICATION = Kind(
    "sequence classifier", "AutoModelForSequenceClassification", _sequence_class_row,
    {"input_ids": "tokens", "labels": None}, {"logits": None},
)  # fmt: skip
TOKEN_CLASSIFICATION = Kind(
    "token classifier", "AutoModelForTokenClassification", _token_class_row, _TOKENS, {"logits": "tokens"}
)
SEQ2SEQ_BASE = Kind(
    "sequence-to-sequence base model", "AutoModel", _seq2seq_base_row,
    {"input_ids": "source", "decoder_input_ids": "target"}, {"last_hidden_state": "target"},
    masks=_PAIR_MASKS, ids=_PAIR_IDS, labels=None, causal_axis="target",
)  # fmt: skip
SEQ2SEQ_LM = Kind(
    "sequence-to-sequence model", "AutoModelForSeq2SeqLM", _seq2seq_row, _PAIR, {"logits": "target"},
    masks=_PAIR_MASKS, ids=_PAIR_IDS, causal_axis="target", generates=True,
)  # fmt: skip
