"""Which contract applies to which class: one row per class, one cell per contract, every cell filled.

A cell is `RUN` or the reason why the contract does not apply; a variant of a class may have reasons of its own
(`Case.broken`). `Row` has no defaults, so a contract that is added without looking at every class is a TypeError, and a
test fails while a class that hfseq registers has no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

from . import (
    bad_input,
    caching,
    causality,
    clients,
    compiling,
    distributed,
    exporting,
    loss,
    numerics,
    packing,
    padding,
    resuming,
    saving,
)
from .cases import Case
from .families import CASES

RUN = "runs"


@dataclass(frozen=True)
class Contract:
    """A contract.

    Args:
        number: as DESIGN lists it.
        key: its column in the table.
        title: what it says.
        run: (case) for contracts that run in the process; (cases of a family, where a subprocess finds them) for the
            others. Raises ContractViolation.
        per_family: runs in one subprocess for all heads of a family.
    """

    number: int
    key: str
    title: str
    run: Callable
    per_family: bool = False


CONTRACTS = (
    Contract(1, "saving", "what is saved is what is loaded", saving.contract),
    Contract(2, "caching", "cached == uncached, however one decodes", caching.contract),
    Contract(3, "padding", "padding and neighbours do not matter", padding.contract),
    Contract(4, "packing", "packed == separate, or refused", packing.contract),
    Contract(5, "causality", "nothing sees the future", causality.contract),
    Contract(6, "loss", "the loss is a mean over what it counts", loss.contract),
    Contract(7, "numerics", "checkpointing, bfloat16, resizing", numerics.contract),
    Contract(7, "compiling", "torch.compile == eager", compiling.contract, per_family=True),
    Contract(8, "distributed", "two processes == one (DDP, FSDP2)", distributed.contract, per_family=True),
    Contract(9, "resuming", "resumed == uninterrupted", resuming.contract),
    Contract(10, "exporting", "exported with code, works without hfseq", exporting.contract, per_family=True),
    Contract(11, "bad_input", "bad input is refused by name", bad_input.contract),
    Contract(12, "clients", "other people's tools take it", clients.contract),
)


@dataclass(frozen=True)
class Row:
    """The cells of one class: `RUN`, or why the contract does not apply."""

    saving: str
    caching: str
    padding: str
    packing: str
    causality: str
    loss: str
    numerics: str
    compiling: str
    distributed: str
    resuming: str
    exporting: str
    bad_input: str
    clients: str


RECURRENT_MODEL = Row(
    saving=RUN,
    caching=RUN,
    padding=RUN,
    packing=RUN,  # packed rows must be refused
    causality=RUN,
    loss="a base model has no loss",
    numerics=RUN,
    compiling="compiled inside each of its heads",
    distributed="trains only under a head",
    resuming="trains only under a head",
    exporting=RUN,
    bad_input=RUN,
    clients=RUN,
)
RECURRENT_LM = Row(**{field.name: RUN for field in fields(Row)})

BIDIRECTIONAL = "bidirectional: every position sees the whole text"
NO_CACHE = "computes a text once and does not generate, so it has no cache"
ENCODER_HEAD = Row(
    saving=RUN,
    caching=NO_CACHE,
    padding=RUN,
    packing=RUN,  # one answer per row: packed rows must be refused; one per token: they are kept apart
    causality=BIDIRECTIONAL,
    loss=RUN,
    numerics=RUN,
    compiling=RUN,
    distributed=RUN,
    resuming=RUN,
    exporting=RUN,
    bad_input=RUN,
    clients=RUN,
)
ENCODER_MODEL = replace(
    ENCODER_HEAD,
    loss="a base model has no loss",
    compiling="compiled inside each of its heads",
    distributed="trains only under a head",
    resuming="trains only under a head",
)

RECURRENT_HEAD = replace(
    ENCODER_HEAD, causality="may read in both directions: a position sees the whole text"
)

SEQ2SEQ_LM = Row(**{field.name: RUN for field in fields(Row)})
SEQ2SEQ_MODEL = replace(
    SEQ2SEQ_LM,
    loss="a base model has no loss",
    compiling="compiled inside its head",
    distributed="trains only under a head",
    resuming="trains only under a head",
)

TABLE = {
    "RNNModel": RECURRENT_MODEL,
    "GRUModel": RECURRENT_MODEL,
    "LSTMModel": RECURRENT_MODEL,
    "RNNForCausalLM": RECURRENT_LM,
    "GRUForCausalLM": RECURRENT_LM,
    "LSTMForCausalLM": RECURRENT_LM,
    "RNNForSequenceClassification": RECURRENT_HEAD,
    "GRUForSequenceClassification": RECURRENT_HEAD,
    "LSTMForSequenceClassification": RECURRENT_HEAD,
    "RNNForTokenClassification": RECURRENT_HEAD,
    "GRUForTokenClassification": RECURRENT_HEAD,
    "LSTMForTokenClassification": RECURRENT_HEAD,
    "RNNSeq2SeqModel": SEQ2SEQ_MODEL,
    "GRUSeq2SeqModel": SEQ2SEQ_MODEL,
    "LSTMSeq2SeqModel": SEQ2SEQ_MODEL,
    "RNNForSeq2SeqLM": SEQ2SEQ_LM,
    "GRUForSeq2SeqLM": SEQ2SEQ_LM,
    "LSTMForSeq2SeqLM": SEQ2SEQ_LM,
    "EncoderModel": ENCODER_MODEL,
    "EncoderForMaskedLM": ENCODER_HEAD,
    "EncoderForPreTraining": ENCODER_HEAD,
    "EncoderForSequenceClassification": ENCODER_HEAD,
    "EncoderForTokenClassification": ENCODER_HEAD,
    "EncoderForQuestionAnswering": ENCODER_HEAD,
    "EncoderForMultipleChoice": ENCODER_HEAD,
    "TransformerModel": SEQ2SEQ_MODEL,
    "TransformerForSeq2SeqLM": SEQ2SEQ_LM,
    "PervasiveModel": SEQ2SEQ_MODEL,
    "PervasiveForSeq2SeqLM": SEQ2SEQ_LM,
}


def cell(case: Case, contract: Contract) -> str:
    """`RUN`, or the reason why the contract does not apply to the case."""
    row = TABLE.get(case.model_class.__name__) or row_of_a_stranger(case)
    return case.broken.get(contract.key) or getattr(row, contract.key)


def row_of_a_stranger(case: Case) -> Row:
    """The row of a class that is not hfseq's, by its kind of head."""
    loses = None if case.kind.labels else "a base model has no loss"
    causal = RUN if case.kind.causal_axis else "nothing is known to be causal in it"
    return Row(
        saving=RUN,
        caching=causal,
        padding=RUN,
        packing=RUN if case.packs else "not declared whether it keeps packed rows apart",
        causality=causal,
        loss=loses or RUN,
        numerics=RUN,
        compiling=RUN,
        distributed=loses or RUN,
        resuming=loses or RUN,
        exporting="hfseq.hub exports hfseq's own classes",
        bad_input="how others word their errors is theirs to choose",
        clients=RUN,
    )


def families(cases: Sequence[Case] = CASES) -> Iterator[tuple[str, list[Case]]]:
    """(family, its cases), in order."""
    for family in dict.fromkeys(case.family for case in cases):
        yield family, [case for case in cases if case.family == family]
