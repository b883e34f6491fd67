"""Plain text, damaged and to be repaired: what any encoder-decoder (`AutoModelForSeq2SeqLM`) can learn without
translations. Spans are T5's objective (Raffel et al. 2020), infilling is BART's (Lewis et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from .. import data
from ..cards import CardText
from ..training.evaluation import score_rows
from ..training.translating import Seq2SeqScore
from .base import (
    Objective,
    Plan,
    check_row_length,
    million_tokens,
    never_generated,
    position_limit,
    positive_int,
)

CARD = CardText(
    pipeline="text2text-generation",
    tag="denoising",
    metrics={"perplexity": ("perplexity per target token", ".2f")},
    note="The text is damaged in the same way at every evaluation. The perplexity depends on the tokenizer, and on "
    "what the targets are: only what was taken away (spans) or the whole text (infilling).",
    sizes=("tokens",),
    metric="perplexity",
    usage="""from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True)
ids = model.generate(**tokenizer({prompt}, return_tensors="pt"))
print(tokenizer.decode(ids[0]))""",
)


@dataclass
class DenoisingFields:
    """How text is damaged."""

    type: str = "denoising"
    noise: str = "spans"
    """spans (T5: each is replaced by a sentinel, the targets are the spans) or infilling (BART: by one mask, the target
    is the text)."""
    noise_rate: float | None = None
    """Share of the tokens that the noise takes away; by default as published, 0.15 for spans, 0.3 for infilling."""
    noise_span: float = 3.0
    """Mean length of what is taken away at once, in tokens."""
    permute_sentences: bool = False
    """Infilling: shuffle the sentences as well."""
    sentinels: int = 100
    """Spans: how many tokens <extra_id_0>, ... a trained tokenizer has to stand for them."""
    row_length: int = 128
    """The longest piece of text, in tokens."""
    tokens_per_update: int = 8192
    """At most so many positions, texts x the longest source or target, per optimiser step over all processes."""
    num_beams: int = 5
    """Beams with which training.prompt is repaired."""

    def __post_init__(self) -> None:
        if self.noise not in ("spans", "infilling"):
            raise ValueError(f"noise {self.noise!r} is neither spans (T5) nor infilling (BART).")
        for name in ("row_length", "tokens_per_update", "num_beams", "sentinels"):
            positive_int(getattr(self, name), f"objective.{name}")


class Denoising(Objective):
    """Learns to repair damaged text."""

    name = "denoising"
    card: ClassVar[CardText] = CARD

    @classmethod
    def section(cls, model_class: type[PreTrainedModel] | None) -> type:
        return DenoisingFields

    @classmethod
    def auto_class_name(cls, values: Mapping[str, Any]) -> str:
        return "AutoModelForSeq2SeqLM"

    def tokenizer_options(self) -> dict[str, Any]:
        if self.fields.noise == "infilling":
            return {"translation": True, "mask": True}
        return {"translation": True, "sentinels": self.fields.sentinels}

    def config_fields(self) -> dict[str, Any]:
        fields = super().config_fields()
        fields.pop("mask_token_id", None)  # no field of a sequence-to-sequence model
        return {
            **fields,
            "decoder_start_token_id": self.tokenizer.bos_token_id,
            "forced_eos_token_id": self.tokenizer.eos_token_id,  # of Marian and BART, else another id
        }

    def check_before(self, config: Any) -> None:
        check_row_length(self.fields.row_length, config)

    def check_prompt(self, config: Any) -> None:
        super().check_prompt(config)
        prompt, tokenizer = self.recipe.training.prompt, self.tokenizer
        holes = (
            [tokenizer.mask_token_id] if self.fields.noise == "infilling" else data.sentinel_ids(tokenizer)
        )
        if prompt and not set(holes) & set(tokenizer(prompt)["input_ids"]):
            raise ValueError(
                f"training.prompt {prompt!r} has no {tokenizer.convert_ids_to_tokens(holes[0])} to fill in."
            )

    @property
    def _noise(self) -> data.Denoising:
        fields = self.fields
        return data.Denoising(fields.noise, fields.noise_rate, fields.noise_span, fields.permute_sentences)

    def plan(self, config: Any, processes: int) -> Plan:
        train = data.DenoisingPlan(
            self.arrays["train"],
            data.DenoisingVocabulary.from_tokenizer(self.tokenizer),
            row_length=self.fields.row_length,
            tokens_per_update=self.fields.tokens_per_update,
            denoising=self._noise,
            epochs=self.epochs,
            micro_batches=self.accumulation * processes,
            seed=self.seed,
        )
        return self.whole_batches(config, train, self.evaluation_plan("validation", processes))

    def evaluation_plan(self, side: str, processes: int = 1) -> data.DenoisingPlan:
        """How a side is measured: damaged in the same way every time."""
        return data.DenoisingPlan.evaluation(
            self.arrays[side],
            data.DenoisingVocabulary.from_tokenizer(self.tokenizer),
            row_length=self.fields.row_length,
            denoising=self._noise,
            processes=processes,
        )

    def amount(self) -> str:
        return million_tokens(self.arrays["train"])

    def generation(self, config: Any) -> dict[str, Any]:
        positions = position_limit(config)
        return {
            **({} if positions is None else {"max_length": positions}),
            **never_generated(self.tokenizer, config.vocab_size, self.tokenizer.bos_token_id),
        }

    def score(self, model: PreTrainedModel, side: str) -> Seq2SeqScore:
        return Seq2SeqScore(*score_rows(model, self.evaluation_plan(side)))

    def sample(self, model: PreTrainedModel, prompt: str) -> dict[str, Any]:
        model.eval()
        tokenizer = self.tokenizer
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(model.device)
        ids = model.generate(**inputs, num_beams=self.fields.num_beams)[0].tolist()
        ends = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        return {"repaired": tokenizer.decode([i for i in ids if i not in ends])}
