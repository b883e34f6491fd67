"""How much is trained and measured: `cpu` takes about an hour on two cores, `gpu` about as long on one GPU, and `tiny`
shows in seconds that everything runs; its numbers mean nothing, and its page says so."""

from __future__ import annotations

from dataclasses import dataclass

from ..hints import nearest_hint


@dataclass(frozen=True)
class Scale:
    """The sizes of all experiments."""

    name: str
    duration: str
    """About how long, for the reader."""
    device: str
    seeds: int
    lengths: tuple[int, ...]
    """Of texts, for time and memory."""
    step_tokens: int
    """Tokens of a timed step: rows x length."""
    step_width: int
    """Inner parameters of the timed models."""
    inner_parameters: int
    """Of the models that remember."""
    delays: tuple[int, ...]
    pairs: tuple[int, ...]
    recall_updates: int
    """At most: a model that has learnt the task stops."""
    recall_rows: int
    gradient_length: int
    order_sentences: int
    order_updates: int
    translation_seconds: float
    """Training of each translation model, for each seed."""
    translation_width: int
    translated: int
    """Sentences that are translated for BLEU."""
    samples: int
    """Of the bootstrap that says whether a pruned head's loss may be chance."""
    pretraining_seconds: float
    pretraining_documents: int
    """Of plain text."""
    label_counts: tuple[int, ...]
    finetuning_updates: tuple[int, ...]
    """For each of these numbers of labels."""
    text_documents: int
    """Documents of plain text that language models read."""
    width: int
    """Of the classifiers."""
    language_seconds: float
    """Training of each language model, for each seed."""
    language_parameters: int
    blimp_pairs: int
    """Of each of BLiMP's 67 paradigms; 0: none."""
    toy_data: bool = False
    """Sentences made here in place of Multi30k, SST-2 and the rest."""


_CPU = Scale(
    name="cpu",
    duration="about one hour on two cores",
    device="cpu",
    seeds=3,
    lengths=(16, 32, 64, 128, 256, 512, 1024, 2048),
    step_tokens=2048,
    step_width=200_000,
    inner_parameters=16_000,
    delays=(1, 2, 4, 8, 16, 32, 64),
    pairs=(1, 2, 4, 8, 16),
    recall_updates=4000,
    recall_rows=16,
    gradient_length=256,
    order_sentences=3000,
    order_updates=200,
    translation_seconds=40,
    translation_width=128,
    translated=100,
    samples=300,
    pretraining_seconds=400,
    pretraining_documents=12_000,
    label_counts=(100, 1_000, 10_000),
    finetuning_updates=(50, 100, 250),
    text_documents=3000,
    width=64,
    language_seconds=20,
    language_parameters=300_000,
    blimp_pairs=5,
)
_GPU = Scale(
    name="gpu",
    duration="about one hour on one GPU",
    device="cuda",
    seeds=3,
    lengths=_CPU.lengths,
    step_tokens=65_536,
    step_width=25_000_000,
    inner_parameters=200_000,
    delays=(*_CPU.delays, 128, 256, 512),
    pairs=(*_CPU.pairs, 32, 64),
    recall_updates=6000,
    recall_rows=64,
    gradient_length=1024,
    order_sentences=20_000,
    order_updates=1000,
    translation_seconds=120,
    translation_width=256,
    translated=1000,
    samples=1000,
    pretraining_seconds=300,
    pretraining_documents=50_000,
    label_counts=_CPU.label_counts,
    finetuning_updates=(100, 300, 1500),
    text_documents=50_000,
    width=256,
    language_seconds=120,
    language_parameters=10_000_000,
    blimp_pairs=100,
)
_TINY = Scale(
    name="tiny",
    duration="seconds; its numbers mean nothing",
    device="cpu",
    seeds=2,
    lengths=(4, 8, 16),
    step_tokens=32,
    step_width=2_000,
    inner_parameters=1_000,
    delays=(1, 4),
    pairs=(1, 2),
    recall_updates=2,
    recall_rows=4,
    gradient_length=8,
    order_sentences=40,
    order_updates=2,
    translation_seconds=0.1,
    translation_width=16,
    translated=4,
    samples=10,
    pretraining_seconds=0.05,
    pretraining_documents=40,
    label_counts=(10, 20),
    finetuning_updates=(2, 2),
    text_documents=40,
    width=16,
    language_seconds=0.05,
    language_parameters=4_000,
    blimp_pairs=0,
    toy_data=True,
)
SCALES = {scale.name: scale for scale in (_CPU, _GPU, _TINY)}


def scale_named(name: str) -> Scale:
    """Raises ValueError for a scale that there is not."""
    if name not in SCALES:
        raise ValueError(f"Unknown --scale {name!r}.{nearest_hint(name, SCALES)} Choose {', '.join(SCALES)}.")
    return SCALES[name]


__all__ = ["SCALES", "Scale", "scale_named"]
