"""Masked tokens: any encoder with a masked-LM head (`AutoModelForMaskedLM`), and with pairs of texts BERT's or ALBERT's
second task (`AutoModelForPreTraining`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel, pipeline

from .. import data
from ..cards import CardText
from ..training.evaluation import MaskedLanguageModelScore, score_masked_language_model
from .base import Objective, Plan, check_row_length, million_tokens
from .packing_check import check_packed_rows

CARD = CardText(
    pipeline="fill-mask",
    tag="masked-language-modeling",
    metrics={"perplexity": ("perplexity of masked tokens", ".2f"), "accuracy": ("accuracy", ".4f")},
    note="15% of the tokens are to be guessed (80% of them masked, 10% replaced, 10% left), the same ones at every "
    "evaluation, whatever the masking in training. The perplexity depends on the tokenizer.",
    sizes=("targets", "tokens"),
    metric="perplexity",
    usage="""from transformers import pipeline

path = {path}  # this repository's id, or the directory
fill = pipeline("fill-mask", model=path, trust_remote_code=True)
for guess in fill({prompt}):
    print(f"{{guess['score']:.3f}}  {{guess['sequence']}}")""",
)


@dataclass
class MaskedFields:
    """Which tokens are masked, in which rows."""

    type: str = "masked"
    packing: str = "blocks"
    """blocks (text cut anywhere), documents or sentences (whole ones, several per row), or pairs of texts for
    next-sentence (nsp) or sentence-order prediction (sop)."""
    row_length: int | list[list[float]] = 128
    """Tokens per row; or a curriculum, [[0.9, 128], [0.1, 512]]: 128 for 90% of the run, then 512."""
    tokens_per_update: int = 8192
    """At most so many positions, rows x row_length, per optimiser step over all processes: a multiple of row_length."""
    long_documents: str = "split"
    """Documents (or sentences) longer than a packed row: split (go on in further rows) or error."""
    mask_strategy: str = "token"
    """What is masked: single tokens (token), whole words (whole_word) or runs of words (span)."""
    mask_rate: float = 0.15
    """Share of tokens to guess; evaluation always has 0.15."""
    mask_rate_end: float | None = None
    """The share at the end of the run, reached in a straight line."""
    mask_replacement: str = "bert"
    """What stands in a guessed token's place: bert (80% [MASK], 10% random, 10% the token) or mask (always [MASK])."""

    def __post_init__(self) -> None:
        if isinstance(self.row_length, list):
            stages = self.row_length
            numbers = [n for stage in stages for n in (stage if isinstance(stage, list) else [None])]
            are_pairs = all(isinstance(stage, list) and len(stage) == 2 for stage in stages)
            if not stages or not are_pairs or not all(type(n) in (int, float) for n in numbers):
                raise ValueError(
                    f"row_length {stages!r:.100} is neither a number nor a curriculum of pairs (share of the run, "
                    "length) such as [[0.9, 128], [0.1, 512]]."
                )


class Masked(Objective):
    """Learns to fill in masked tokens."""

    name = "masked"
    card: ClassVar[CardText] = CARD

    @classmethod
    def section(cls, model_class: type[PreTrainedModel] | None) -> type:
        return MaskedFields

    @classmethod
    def auto_class_name(cls, values: Mapping[str, Any]) -> str:
        return (
            "AutoModelForPreTraining" if values.get("packing") in ("nsp", "sop") else "AutoModelForMaskedLM"
        )

    def tokenizer_options(self) -> dict[str, Any]:
        return {"masked": True}

    def check_before(self, config: Any) -> None:
        fields = self.fields
        check_row_length(self._longest_row, config)
        if fields.packing in ("nsp", "sop") and getattr(config, "type_vocab_size", 2) < 2:
            raise ValueError(
                f"objective.packing {fields.packing} has rows of two texts, but model.type_vocab_size is "
                f"{config.type_vocab_size}: set it to 2."
            )
        if fields.packing in ("documents", "sentences"):
            check_packed_rows(self.auto_class, config)

    @property
    def _longest_row(self) -> int:
        """Tokens of a row; of a curriculum, at its longest."""
        lengths = self.fields.row_length
        return lengths if isinstance(lengths, int) else int(max(length for _, length in lengths))

    def check_prompt(self, config: Any) -> None:
        prompt, mask = self.recipe.training.prompt, self.tokenizer.mask_token
        super().check_prompt(config)
        if prompt and mask not in prompt:
            raise ValueError(f"training.prompt {prompt!r} has no {mask} to fill in.")
        if prompt and prompt.count(mask) > 1:
            raise ValueError(f"training.prompt {prompt!r} has {prompt.count(mask)} {mask}: one is filled in.")

    def plan(self, config: Any, processes: int) -> Plan:
        fields = self.fields
        train = data.MaskedPlan(
            self.arrays["train"],
            data.MaskingVocabulary.from_tokenizer(self.tokenizer),
            row_length=fields.row_length,
            tokens_per_update=fields.tokens_per_update,
            epochs=self.epochs,
            micro_batches=self.accumulation * processes,
            packing=fields.packing,
            long_documents=fields.long_documents,
            masking=data.Masking(
                rate=fields.mask_rate,
                strategy=fields.mask_strategy,
                replacement=fields.mask_replacement,
                rate_end=fields.mask_rate_end,
            ),
            seed=self.seed,
        )
        return self.whole_batches(config, train, self.evaluation_plan("validation", processes))

    def evaluation_plan(self, side: str, processes: int = 1) -> data.MaskedPlan:
        """How a side is measured: with the same masks every time."""
        fields = self.fields
        return data.MaskedPlan.evaluation(
            self.arrays[side],
            data.MaskingVocabulary.from_tokenizer(self.tokenizer),
            row_length=fields.row_length,
            tokens_per_batch=max(4096, self._longest_row),
            processes=processes,
            packing=fields.packing,
            long_documents=fields.long_documents,
        )

    def amount(self) -> str:
        return million_tokens(self.arrays["train"])

    def generation(self, config: Any) -> dict[str, Any]:
        return {}

    def score(self, model: PreTrainedModel, side: str) -> MaskedLanguageModelScore:
        return score_masked_language_model(model, self.evaluation_plan(side))

    def sample(self, model: PreTrainedModel, prompt: str) -> dict[str, Any]:
        return {"guesses": fill_in(model, self.tokenizer, prompt)}


def fill_in(model: PreTrainedModel, tokenizer: Any, prompt: str) -> list[dict[str, Any]]:
    """The five likeliest tokens in place of the prompt's mask ("[MASK]" or whatever the tokenizer's is)."""
    model.eval()
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        outputs = model(**inputs)
    if "prediction_logits" not in outputs:
        fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, device=model.device)
        return [
            {"token": guess["token_str"].strip(), "probability": round(guess["score"], 3)}
            for guess in fill(prompt)
        ]
    # A class with two tasks is none of the pipeline's.
    logits = outputs.prediction_logits[inputs["input_ids"] == tokenizer.mask_token_id][0]
    best = logits.softmax(-1).topk(5)
    return [
        {"token": tokenizer.decode([i]).strip(), "probability": round(p, 3)}
        for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
