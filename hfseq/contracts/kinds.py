"""What goes into a model and what comes out, for each kind of head.

A contract never builds a batch itself: it asks for *rows* (one example each, without padding) and lays them out as
it likes: alone, together, padded on either side, packed. A `Kind` knows which arguments have a time axis, which
axis, and what their padding is; everything else follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from transformers import PreTrainedConfig

from hfseq.models.losses import IGNORE_INDEX

# Ways to say where the sequences of a packed row begin: positions that begin again (without a mask), borders in the
# flattened batch, the number of each token's sequence.
PACKED_FORMS = ("position_ids", "cu_seq_lens_q", "seq_idx")
# The same for pairs, each of the two for sources and targets at once.
PACKED_PAIR_FORMS = ("position_ids", "cu_seq_lens")
Row = dict[str, torch.Tensor]
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of head.

    Args:
        name: as messages print it.
        auto_class: the Auto class that loads it.
        make_row: (config, {axis: length}, generator) -> the forward arguments of one example, without padding.
        axes: time axis of each argument of a row, always its last dimension; None for arguments without one.
        outputs: time axis of each output worth comparing.
        masks: name of the mask of each axis.
        ids: name of the token ids of each axis.
        loss: (outputs, batch, label smoothing) -> the loss in the most obvious way; None for models without one.
        labels: names of the labels; the loss is a mean over those of the first.
        columns: labels that are column numbers, which padding on the left moves.
        shifts: position t is scored against label t + 1 of the same row.
        causal_axis: the axis along which nothing may look ahead, None if everything sees everything.
        generates: has `generate`.
        texts: how many texts an example holds side by side, [batch, texts, time]; None for the usual [batch, time].
        pack: rows -> the forward arguments of one packed row; None where a row has one answer.
    """

    name: str
    auto_class: str
    make_row: Callable[[PreTrainedConfig, dict[str, int], torch.Generator], Row]
    axes: dict[str, str | None]
    outputs: dict[str, str | None]
    masks: dict[str, str] = field(default_factory=lambda: {"tokens": "attention_mask"})
    ids: dict[str, str] = field(default_factory=lambda: {"tokens": "input_ids"})
    loss: Callable[[Batch, Batch, float], torch.Tensor] | None = None
    labels: tuple[str, ...] = ("labels",)
    columns: tuple[str, ...] = ()
    shifts: bool = False
    causal_axis: str | None = None
    generates: bool = False
    texts: int | None = None
    pack: Callable[[list[Row]], Batch] | None = None

    @property
    def is_encoder_decoder(self) -> bool:
        return "target" in self.masks

    def count_labels(self, batch: Batch) -> int:
        """How many labels the loss of this batch counts."""
        labels = batch[self.labels[0]]
        labels = labels[:, 1:] if self.shifts else labels
        return int((labels != IGNORE_INDEX).sum())

    @property
    def smoothed_by_trainer(self) -> bool:
        """Whether Trainer's `label_smoothing_factor` does what the model does itself: with classes of its own alone."""
        return self.labels == ("labels",) and self.texts is None


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


def _featured_row(config, lengths, generator) -> Row:
    vector = torch.randn(config.feature_size, generator=generator, dtype=torch.float64)
    return {**_causal_row(config, lengths, generator), "features": vector}


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


def _some_types(config, length: int, generator) -> torch.Tensor:
    """Segment types of a pair of texts: zeros, then ones (zeros throughout where the model knows no other)."""
    border = torch.randint(length + 1, (), generator=generator)
    types = (torch.arange(length) >= border).long()
    return types.clamp(max=max(getattr(config, "type_vocab_size", 1) - 1, 0))


def _pretraining_row(config, lengths, generator) -> Row:
    row = _masked_row(config, lengths, generator)
    types = _some_types(config, lengths["tokens"], generator)
    order = torch.randint(2, (), generator=generator)
    return {**row, "token_type_ids": types, "next_sentence_label": order}


def _question_row(config, lengths, generator) -> Row:
    length = lengths["tokens"]
    answer = torch.randint(length, (2,), generator=generator).sort().values
    return {
        "input_ids": random_ids(config, length, generator),
        "token_type_ids": _some_types(config, length, generator),
        "start_positions": answer[0],
        "end_positions": answer[1],
    }


CHOICES = 3


def _choice_row(config, lengths, generator) -> Row:
    length = lengths["tokens"]
    types = [_some_types(config, length, generator) for _ in range(CHOICES)]
    return {
        "input_ids": random_ids(config, CHOICES * length, generator).view(CHOICES, length),
        "token_type_ids": torch.stack(types),
        "labels": torch.randint(CHOICES, (), generator=generator),
    }


def _restarting(rows: list[Row]) -> torch.Tensor:
    """Positions [1, time] that begin again with each row."""
    return torch.cat([torch.arange(len(row["input_ids"])) for row in rows]).unsqueeze(0)


def _pack(rows: list[Row]) -> Batch:
    """One row in which positions begin again with each sequence."""
    joined = {name: torch.cat([row[name] for row in rows]).unsqueeze(0) for name in rows[0]}
    return {**joined, "position_ids": _restarting(rows)}


def _pack_causal(rows: list[Row]) -> Batch:
    """The same; the first token of each sequence is one that no label of another one predicts."""
    labels = [row["labels"].clone() for row in rows]
    for label in labels:
        label[0] = IGNORE_INDEX
    return _pack([{**row, "labels": label} for row, label in zip(rows, labels, strict=True)])


def _pack_pairs(rows: list[Row]) -> Batch:
    """One row of sources and one of targets, in which positions begin again with each pair."""
    joined = {name: torch.cat([row[name] for row in rows]).unsqueeze(0) for name in rows[0]}
    targets = [torch.arange(len(row["decoder_input_ids"])) for row in rows]
    return {
        **joined,
        "position_ids": _restarting(rows),
        "decoder_position_ids": torch.cat(targets).unsqueeze(0),
    }


def smoothed(logits: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Mean cross-entropy over the counted labels, against 1 - epsilon of the label and epsilon of all classes."""
    counted = labels != IGNORE_INDEX
    log_probabilities = logits[counted].log_softmax(-1)
    nll = -log_probabilities.gather(-1, labels[counted].unsqueeze(-1)).squeeze(-1)
    return ((1 - epsilon) * nll - epsilon * log_probabilities.mean(-1)).mean()


def _loss(outputs: Batch, batch: Batch, epsilon: float) -> torch.Tensor:
    return smoothed(outputs["logits"], batch["labels"], epsilon)


def _shifted_loss(outputs: Batch, batch: Batch, epsilon: float) -> torch.Tensor:
    return smoothed(outputs["logits"][:, :-1], batch["labels"][:, 1:], epsilon)


def _pretraining_loss(outputs: Batch, batch: Batch, epsilon: float) -> torch.Tensor:
    """The second task's rows weigh as much as they have labels of the first; it is never smoothed."""
    words = smoothed(outputs["prediction_logits"], batch["labels"], epsilon)
    rows = F.cross_entropy(outputs["seq_relationship_logits"], batch["next_sentence_label"], reduction="none")
    weights = (batch["labels"] != IGNORE_INDEX).sum(1)
    return words + (rows * weights).sum() / weights.sum()


def _question_loss(outputs: Batch, batch: Batch, epsilon: float) -> torch.Tensor:
    """No answer begins in padding; positions are not smoothed."""
    losses = []
    for logits, target in (("start_logits", "start_positions"), ("end_logits", "end_positions")):
        real = outputs[logits].masked_fill(batch["attention_mask"] == 0, -torch.inf)
        losses.append(F.cross_entropy(real, batch[target]))
    return sum(losses) / 2


def _choice_loss(outputs: Batch, batch: Batch, epsilon: float) -> torch.Tensor:
    """Choices are not smoothed: they are no classes that one could be mistaken in."""
    return smoothed(outputs["logits"], batch["labels"], 0.0)


_TOKENS = {"input_ids": "tokens", "labels": "tokens"}
_TYPES = {"input_ids": "tokens", "token_type_ids": "tokens"}
_PAIR = {"input_ids": "source", "decoder_input_ids": "target", "labels": "target"}
_PAIR_MASKS = {"source": "attention_mask", "target": "decoder_attention_mask"}
_PAIR_IDS = {"source": "input_ids", "target": "decoder_input_ids"}

BASE = Kind(
    "base model", "AutoModel", _base_row, {"input_ids": "tokens"}, {"last_hidden_state": "tokens"},
    labels=(), pack=_pack,
)  # fmt: skip
CAUSAL_BASE = Kind(
    "causal base model", "AutoModel", _base_row, {"input_ids": "tokens"}, {"last_hidden_state": "tokens"},
    labels=(), causal_axis="tokens", pack=_pack,
)  # fmt: skip
CAUSAL_LM = Kind(
    "causal language model", "AutoModelForCausalLM", _causal_row, _TOKENS, {"logits": "tokens"},
    loss=_shifted_loss, shifts=True, causal_axis="tokens", generates=True, pack=_pack_causal,
)  # fmt: skip
FEATURED_LM = Kind(
    "causal language model that begins with a vector", "AutoModelForCausalLM", _featured_row,
    {**_TOKENS, "features": None}, {"logits": "tokens"},
    loss=_shifted_loss, shifts=True, causal_axis="tokens", generates=True, pack=_pack_causal,
)  # fmt: skip
MASKED_LM = Kind(
    "masked language model", "AutoModelForMaskedLM", _masked_row, _TOKENS, {"logits": "tokens"},
    loss=_loss, pack=_pack,
)  # fmt: skip
PRETRAINING = Kind(
    "masked language model with sentence pairs", "AutoModelForPreTraining", _pretraining_row,
    {**_TYPES, "labels": "tokens", "next_sentence_label": None},
    {"prediction_logits": "tokens", "seq_relationship_logits": None},
    loss=_pretraining_loss, labels=("labels", "next_sentence_label"),
)  # fmt: skip
SEQUENCE_CLASSIFICATION = Kind(
    "sequence classifier", "AutoModelForSequenceClassification", _sequence_class_row,
    {"input_ids": "tokens", "labels": None}, {"logits": None}, loss=_loss,
)  # fmt: skip
TOKEN_CLASSIFICATION = Kind(
    "token classifier", "AutoModelForTokenClassification", _token_class_row, _TOKENS, {"logits": "tokens"},
    loss=_loss, pack=_pack,
)  # fmt: skip
QUESTION_ANSWERING = Kind(
    "question answerer", "AutoModelForQuestionAnswering", _question_row,
    {**_TYPES, "start_positions": None, "end_positions": None},
    {"start_logits": "tokens", "end_logits": "tokens"},
    loss=_question_loss, labels=("start_positions", "end_positions"), columns=("start_positions", "end_positions"),
)  # fmt: skip
MULTIPLE_CHOICE = Kind(
    "multiple-choice model", "AutoModelForMultipleChoice", _choice_row, {**_TYPES, "labels": None},
    {"logits": None}, loss=_choice_loss, texts=CHOICES,
)  # fmt: skip
SEQ2SEQ_BASE = Kind(
    "sequence-to-sequence base model", "AutoModel", _seq2seq_base_row,
    {"input_ids": "source", "decoder_input_ids": "target"}, {"last_hidden_state": "target"},
    masks=_PAIR_MASKS, ids=_PAIR_IDS, labels=(), causal_axis="target", pack=_pack_pairs,
)  # fmt: skip
SEQ2SEQ_LM = Kind(
    "sequence-to-sequence model", "AutoModelForSeq2SeqLM", _seq2seq_row, _PAIR, {"logits": "target"},
    loss=_loss, masks=_PAIR_MASKS, ids=_PAIR_IDS, causal_axis="target", generates=True, pack=_pack_pairs,
)  # fmt: skip
