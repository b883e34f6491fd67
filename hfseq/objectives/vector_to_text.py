"""Texts that begin with a vector: any causal model whose config has a `feature_size` (after Vinyals et al. 2015); with
`model.feature_size: 0` the same texts without it, to see what the vector is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from .. import data
from ..cards import CardText
from ..data.colours import LAB, RGB
from ..data.fingerprints import hash_of
from ..data.made_up import Lengths, MadeUpSide, MadeUpTexts
from ..training.describing import VectorScore, describe_vectors, parse_vector
from ..training.evaluation import score_rows
from .base import Objective, Plan, positive_int

MADE_UP = Lengths(4, 0.5, 20)  # tokens of a text, to plan with

CARD = CardText(
    pipeline="text-generation",
    tag="vector-to-sequence",
    metrics={
        "perplexity_per_token": ("perplexity per token", ".2f"),
        "perplexity_permuted": ("with the vectors of other texts", ".2f"),
        "bits_per_text": ("bits per text", ".2f"),
        "bits_per_byte": ("bits per byte", ".4f"),
    },
    note="Of held-out texts given their vectors. With the vectors of other texts, each text has another one's: what "
    "the model gains by the right ones. Perplexity per token depends on the tokenizer, bits per text and byte do not.",
    sizes=("texts", "tokens", "bytes"),
    metric="perplexity",
    usage="""import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
features = torch.rand(2, model.config.feature_size)  # a vector for each text
begin = torch.full((2, 1), tokenizer.eos_token_id)
ids = model.generate(begin, features=features, max_new_tokens=20, do_sample=True, temperature=0.7)
print(tokenizer.batch_decode(ids, skip_special_tokens=True))""",
)


@dataclass
class VectorData:
    """Which texts and vectors are read, and how they are split."""

    corpus: str | None = None
    """"colours": 30,222 names of colours."""
    train_file: str | list[str] | None = None
    """Your own tables instead: files, folders or globs of .csv or .jsonl, each also .gz."""
    validation_file: str | list[str] | None = None
    """Validation rows; without it `validation_share` of them is set aside."""
    test_file: str | list[str] | None = None
    """Test rows; without it `test_share` of them is set aside."""
    text_column: str = "text"
    """The column (or JSON key) that holds the text."""
    feature_columns: str | list[str] | None = None
    """The columns whose numbers each text begins with (in .jsonl also a list of numbers); of the corpus "colours": red,
    green, blue, lightness, green_red, blue_yellow."""
    validation_share: float = 0.05
    """Share of rows set aside for validation, chosen by a hash of the text."""
    test_share: float = 0.05
    """Share of rows set aside for testing, chosen likewise."""
    split_seed: int = 0
    """Another number is another split."""
    cache_dir: str | None = None
    """Where token arrays are kept; default: $HFSEQ_CACHE, else ~/.cache/hfseq."""


@dataclass
class VectorFields:
    """How texts become batches."""

    type: str = "vector_to_text"
    tokens_per_update: int = 8192
    """At most so many positions, texts x the longest, per optimiser step over all processes."""

    def __post_init__(self) -> None:
        positive_int(self.tokens_per_update, "objective.tokens_per_update")


class VectorToText(Objective):
    """Learns to say in words what a vector stands for."""

    name = "vector_to_text"
    data_section = VectorData
    card: ClassVar[CardText] = CARD

    table: data.FeatureTable

    @classmethod
    def section(cls, model_class: type[PreTrainedModel] | None) -> type:
        return VectorFields

    @classmethod
    def auto_class_name(cls, values: Mapping[str, Any]) -> str:
        return "AutoModelForCausalLM"

    def made_up(self, texts: MadeUpTexts, count: int, longest: int | None) -> MadeUpSide:
        section = self.recipe.data
        columns = section.feature_columns or (*RGB, *LAB)  # without them, those of the packaged corpus
        columns = [columns] if isinstance(columns, str) else list(columns)
        words = iter(texts.words(count))
        lines = [",".join([section.text_column, *columns])]
        for length in texts.lengths(count, MADE_UP):
            text = " ".join(next(words, "w0") for _ in range(length))
            lines.append(",".join([text, *(f"{value:.3f}" for value in texts.draw.random(len(columns)))]))
        return MadeUpSide("\n".join(lines), ".csv", {"feature_columns": columns}, f"texts of {MADE_UP}")

    def check_before(self, config: Any) -> None:
        if not hasattr(config, "feature_size"):
            raise ValueError(
                f"model_type {config.model_type} takes no vectors (its config has no feature_size): choose hfseq_rnn, "
                "hfseq_gru or hfseq_lstm."
            )
        prompt = self.recipe.training.prompt
        if prompt and config.feature_size:
            parse_vector(prompt, config.feature_size)

    def prepare(self) -> None:
        self.table = self.load(data.load_features)
        corpus = self.table.corpus()
        self.tokenizer = self.tokenizer_for(corpus)
        self.arrays = data.build_token_arrays(corpus, self.tokenizer, self.recipe.data.cache_dir)

    def fingerprints(self) -> dict[str, str]:
        vectors = {
            f"vectors of {side}": f"{hash_of(values.tobytes()):016x}"
            for side, values in self.table.features.items()
        }
        return {**super().fingerprints(), **vectors}

    def config_fields(self) -> dict[str, Any]:
        return {**super().config_fields(), "feature_size": self.table.width}

    def check(self, config: Any) -> None:
        super().check(config)
        if config.feature_size not in (0, self.table.width):
            raise ValueError(
                f"model.feature_size {config.feature_size} is not the width of the vectors, {self.table.width} "
                f"({', '.join(self.table.columns)}). Leave the field out, or set it to 0 for a model without them."
            )

    def check_prompt(self, config: Any) -> None:  # a vector is no text
        if self.recipe.training.prompt and config.feature_size:
            parse_vector(self.recipe.training.prompt, config.feature_size)

    def plan(self, config: Any, processes: int) -> Plan:
        given = bool(config.feature_size)
        train = data.FeaturePlan(
            self.arrays["train"],
            self._vectors("train", given),
            tokens_per_update=self.fields.tokens_per_update,
            epochs=self.epochs,
            micro_batches=self.accumulation * processes,
            seed=self.seed,
        )
        return self.whole_batches(config, train, self.evaluation_plan("validation", processes, given))

    def _vectors(self, side: str, given: bool) -> Any:
        return self.table.features[side] if given else None

    def evaluation_plan(
        self, side: str, processes: int = 1, given: bool = True, permuted: bool = False
    ) -> data.FeaturePlan:
        """How a side is measured: with the vectors where they are given; `permuted`: with those of other texts."""
        return data.FeaturePlan.evaluation(
            self.arrays[side],
            self._vectors(side, given),
            tokens_per_batch=self.fields.tokens_per_update,
            processes=processes,
            permuted=permuted,
        )

    def amount(self) -> str:
        train = self.arrays["train"]
        return f"{train.n_documents:,} texts, {(len(train) - 1) / 1e6:.2f}M training tokens"

    def data_facts(self) -> dict[str, Any]:
        return {**super().data_facts(), "feature_columns": ", ".join(self.table.columns)}

    def score(self, model: PreTrainedModel, side: str) -> VectorScore:
        given = bool(model.config.feature_size)
        array = self.arrays[side]
        own, tokens = score_rows(model, self.evaluation_plan(side, given=given))
        others = score_rows(model, self.evaluation_plan(side, permuted=True))[0] if given else None
        return VectorScore(own, tokens, array.n_words, array.n_bytes, array.n_documents, others)

    def sample(self, model: PreTrainedModel, prompt: str) -> dict[str, Any]:
        size = model.config.feature_size
        if not size:
            return {}
        return {"described": describe_vectors(model, self.tokenizer, [parse_vector(prompt, size)])[0]}
