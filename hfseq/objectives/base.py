"""What an objective is: everything about a way to pretrain that another objective does differently.

`hfseq pretrain` asks, in this order: which fields the recipe's sections have (`section`), what cannot be right whatever
the corpus (`check_before`), for data and tokenizer (`prepare`), what the model's config takes from them
(`config_fields`) and whether they fit (`check`), for the batch plan (`plan`); after training for scores (`score`) and a
sample (`sample`). `hfseq evaluate` asks for the scores alone.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
import transformers
from transformers import PreTrainedModel, TrainerCallback

from .. import data
from ..cards import CardText
from ..data.made_up import DOCUMENT, MadeUpSide, MadeUpTexts
from ..positions import position_limit
from ..recipe import Recipe
from ..training.exact_loss import honours_item_count, loss_from_logits
from ..training.model_batches import ModelBatches
from .sections import TextData, Tokenizer, saved_tokenizer


class Score(Protocol):
    """What a model reaches on one side of the corpus."""

    def as_dict(self) -> dict[str, Any]:
        """Among others `loss`, and what the objective's card shows."""


@dataclass
class Plan:
    """The batches of a run, ready for Trainer."""

    train: Any
    """The batch plan of the whole run (`hfseq.data.plans`)."""
    validation: Any
    """The batch plan of an evaluation."""
    collator: Callable
    sizes: dict[str, int]
    """Fields of TrainingArguments that follow from the plan."""
    tokens_at: Callable[[int], int]
    """Tokens of an update, for the progress bar."""
    callbacks: list[TrainerCallback] = field(default_factory=list)
    streams: int | None = None
    """Text streams whose state is carried and saved."""
    compute_loss: Callable | None = None
    """Trainer's compute_loss_func, for models that do not hand num_items_in_batch on."""


class Objective(abc.ABC):
    """One way to pretrain. A subclass in a file of its own, and a line in `hfseq.objectives.OBJECTIVES`.

    Args:
        recipe: whose sections are this objective's.
    """

    name: ClassVar[str]
    data_section: ClassVar[type] = TextData
    tokenizer_section: ClassVar[type] = Tokenizer
    card: ClassVar[CardText]
    """What a card says of such models."""
    main_score: ClassVar[str] = "loss"
    """The score by which weights are chosen on validation."""
    higher_is_better: ClassVar[bool] = False
    shifts_labels: ClassVar[bool] = False
    """Whether the model predicts label t + 1 at position t, as causal models of transformers do with `labels`."""
    sample_prompt: ClassVar[str | None] = None
    """What one may try a trained model with; None: `hfseq generate` is not for such models."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.fields = recipe, recipe.objective
        self.tokenizer: Any = None
        self.arrays: dict[str, Any] = {}
        """{side: token array}, of train, validation and, where there is one, test."""

    # -------------------------------------------------------------------------------------------- before the model

    @classmethod
    @abc.abstractmethod
    def section(cls, model_class: type[PreTrainedModel] | None) -> type:
        """The dataclass of the objective's own fields, for that model; None: of any model."""

    @classmethod
    @abc.abstractmethod
    def auto_class_name(cls, values: Mapping[str, Any]) -> str:
        """The Auto class whose models learn so; `values` is the objective's section as written."""

    @classmethod
    def all_fields(cls) -> set[str]:
        """Names of the objective's own fields, for any model."""
        return {f.name for f in dataclasses.fields(cls.section(None))}

    @property
    def auto_class(self) -> Any:
        """As `auto_class_name`."""
        return getattr(transformers, self.auto_class_name(dataclasses.asdict(self.fields)))

    def model_class(self, config: Any) -> type[PreTrainedModel]:
        """What the Auto class builds from the config."""
        found = model_class_of(self.auto_class.__name__, type(config))
        if found is None:
            raise ValueError(f"{self.auto_class.__name__} has no class for model_type {config.model_type}.")
        return found

    @property
    def accumulation(self) -> int:
        """Micro-batches of a process per update."""
        return positive_int(
            self.recipe.training_arguments.get("gradient_accumulation_steps", 1),
            "training.gradient_accumulation_steps",
        )

    @property
    def epochs(self) -> float:
        """Passes over the training side."""
        epochs = self.recipe.training_arguments.get("num_train_epochs", 3)
        if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs < float("inf"):
            raise ValueError(f"training.num_train_epochs must be a number above 0, not {epochs!r}.")
        return epochs

    @property
    def seed(self) -> int:
        """Of order and noise: `training.data_seed`, else `training.seed`."""
        given = self.recipe.training_arguments
        seed = given.get("data_seed")
        seed = given.get("seed", 42) if seed is None else seed
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"training.seed (or data_seed) must be a whole number from 0 on, not {seed!r}.")
        return seed

    @property
    def tokens_per_update(self) -> int:
        """Positions of an update over all processes, as the objective's section says it."""
        return self.fields.tokens_per_update

    def made_up(self, texts: MadeUpTexts, count: int, longest: int | None) -> MadeUpSide:
        """Data such as the objective reads, to plan with where the recipe's are not at hand.

        Args:
            texts: draws them.
            count: tokens of the side; of pairs, of the targets.
            longest: text that the model has positions for; None: any.
        """
        fields = {"txt_document": "paragraph", "shards": None}
        return MadeUpSide("\n\n".join(texts.documents(count)), ".txt", fields, f"documents of {DOCUMENT}")

    def check_numbers(self) -> None:
        """ValueError where epochs, accumulation steps or seed are none."""
        _ = self.epochs, self.accumulation, self.seed

    def check_before(self, config: Any) -> None:  # noqa: B027 - not every objective has something to check
        """ValueError where the recipe cannot be right whatever the corpus; before anything is read or built.

        Args:
            config: of the model, its vocabulary not yet that of the tokenizer.
        """

    def prepare(self) -> None:
        """Corpus, tokenizer and token arrays: built once and cached by the process that comes first, read by all.

        Raises:
            ValueError, OSError, ImportError: what is wrong with the corpus, the tokenizer or a text, and where.
        """
        corpus = self.load(data.load_corpus)
        self.tokenizer = self.tokenizer_for(corpus, **self.tokenizer_options())
        section = self.recipe.data
        self.arrays = data.build_token_arrays(
            corpus, self.tokenizer, section.cache_dir, shards=section.shards
        )

    def load(self, loader: Callable) -> Any:
        """What `loader` (say, hfseq.data.load_corpus) makes of the data section: it takes the fields by keyword, under
        the same names."""
        parameters = inspect.signature(loader).parameters.values()
        section = self.recipe.data
        options = {
            p.name: getattr(section, p.name)
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and hasattr(section, p.name)
        }
        return loader(section.corpus, **options)

    def tokenizer_options(self) -> dict[str, Any]:
        """What a tokenizer trained for this objective must have (arguments of `train_tokenizer`)."""
        return {}

    def tokenizer_for(self, corpus: data.Corpus, **options: Any) -> Any:
        """The recipe's tokenizer: loaded, or trained on the corpus."""
        section = self.recipe.tokenizer
        if section.path is not None:
            return saved_tokenizer(section.path)
        return data.cached_tokenizer(
            corpus,
            section.type,
            section.vocab_size,
            lowercase=section.lowercase,
            cache_dir=self.recipe.data.cache_dir,
            **options,
        )

    def config_fields(self) -> dict[str, Any]:
        """What the model's config takes from the tokenizer."""
        return data.tokenizer_config_fields(self.tokenizer)

    # --------------------------------------------------------------------------------------------- with the config

    def check(self, config: Any) -> None:
        """Fits tokenizer and data to the model's config; ValueError where they do not."""
        data.check_vocabulary(self.tokenizer, config)
        for array in self.arrays.values():
            data.check_ids(array.tokens, config.vocab_size)
        if (positions := position_limit(config)) is not None:
            self.tokenizer.model_max_length = positions

    def check_lengths(self, config: Any) -> None:  # noqa: B027 - most objectives cut their rows themselves
        """ValueError where a text is longer than the model's positions."""

    @abc.abstractmethod
    def plan(self, config: Any, processes: int) -> Plan:
        """The run's batches.

        Raises:
            ValueError: a field that does not fit, naming it.
        """

    def whole_batches(
        self, config: Any, train: Any, validation: Any, callbacks: Sequence[TrainerCallback] = ()
    ) -> Plan:
        """The `Plan` of batch plans whose items are whole micro-batches."""
        return Plan(
            train=train,
            validation=validation,
            collator=ModelBatches(self.model_class(config)),
            sizes={
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": self.accumulation,
                "per_device_eval_batch_size": 1,
            },
            tokens_at=train.tokens_at,
            callbacks=list(callbacks),
        )

    @abc.abstractmethod
    def amount(self) -> str:
        """What an epoch is, for people."""

    def data_facts(self) -> dict[str, Any]:
        """How much there was to train on, for summary and card."""
        array = self.arrays["train"]
        return {
            "train_tokens": len(array.tokens),
            "train_bytes": int(array.n_bytes),
            "train_documents": int(array.n_documents),
            "train_words": int(array.n_words),
            **({"train_shards": shards} if (shards := getattr(self.recipe.data, "shards", None)) else {}),
            **({"composition": composition} if (composition := self._composition()) else {}),
        }

    def _composition(self) -> dict[str, dict[str, int]]:
        """Documents and words of each source of a corpus that is a mixture."""
        if getattr(self.recipe.data, "corpus", None) not in data.MIXTURES:
            return {}
        return self.load(data.load_corpus).composition()

    def fingerprints(self) -> dict[str, str]:
        """Of all data that are trained on or measured with, and of how they became tokens."""
        return {side: array.fingerprint for side, array in self.arrays.items()}

    def tokenizers(self) -> list[Any]:
        """All that the run uses."""
        return [self.tokenizer]

    @property
    def held_out(self) -> tuple[str, ...]:
        """Which of validation and test there are."""
        return tuple(side for side in ("validation", "test") if side in self.arrays)

    def generation(self, config: Any) -> dict[str, Any]:
        """Fields of the model's generation config: ids that are never generated."""
        return never_generated(self.tokenizer, config.vocab_size)

    # ---------------------------------------------------------------------------------------------- with the model

    def begin(self, model: PreTrainedModel, plan: Plan) -> str | None:
        """Looks at the model before it trains: where its class does not divide its loss by num_items_in_batch, the
        loss is computed from its logits, and that is said."""
        batch = plan.collator([plan.train[0]]) if plan.streams is None else None
        if batch is None or honours_item_count(model, batch):
            return None
        shifts = self.shifts_labels

        def compute_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
            return loss_from_logits(outputs, labels, num_items_in_batch, shifts)

        plan.compute_loss = compute_loss
        return (
            f"{type(model).__name__} does not divide its loss by num_items_in_batch: the loss is computed from its "
            "logits, so that accumulation and several processes give what one process gives."
        )

    @abc.abstractmethod
    def score(self, model: PreTrainedModel, side: str) -> Score:
        """Measures the model on "validation" or "test"; all processes call it, and share the work."""

    def sample(self, model: PreTrainedModel, prompt: str) -> dict[str, Any]:
        """{how the card calls it: what the model makes of the prompt}."""
        return {}

    def save_tokenizers(self, directory: Path) -> None:  # noqa: B027 - most have one tokenizer
        """Beside the model, what Trainer does not save: a second tokenizer, where there is one."""

    def check_prompt(self, config: Any) -> None:
        """ValueError where `training.prompt` is nothing that `sample` can use: after training it would be too late."""
        prompt, positions = self.recipe.training.prompt, position_limit(config)
        if not prompt:
            return
        length = len(self.tokenizer(prompt, split_special_tokens=True, verbose=False)["input_ids"])
        if length == 0:
            raise ValueError(
                f"training.prompt {prompt!r} is no token for this tokenizer: choose another, or none."
            )
        if positions is not None and length >= positions:
            raise ValueError(
                f"training.prompt {prompt!r:.60} has {length} tokens, too many for a model with {positions} positions: "
                "shorten it."
            )


def model_class_of(auto_class_name: str, config_class: type) -> type[PreTrainedModel] | None:
    """The class that the Auto class builds from such a config; None: it has none."""
    found = getattr(transformers, auto_class_name)._model_mapping.get(config_class, None)
    return found[0] if isinstance(found, tuple) else found


def check_row_length(length: float, config: Any) -> None:
    """ValueError where the model has fewer positions than a row."""
    positions = position_limit(config)
    if positions is not None and length > positions:
        raise ValueError(
            f"objective.row_length {length} is longer than the model's {positions} positions "
            f"(model.max_position_embeddings {config.max_position_embeddings}): raise that, or shorten the rows."
        )


def positive_int(value: Any, name: str) -> int:
    """The value, if it is a whole number from 1 on; else ValueError, with its name."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}.")
    return value


def never_generated(tokenizer: Any, vocab_size: int, *more: int | None) -> dict[str, Any]:
    """Padding, ids without a token, and `more`."""
    ids = {*data.surplus_ids(tokenizer, vocab_size), *more} - {None}
    return {"suppress_tokens": sorted(ids) or None}


def million_tokens(array: data.TokenArray) -> str:
    """How long a text is, for people."""
    return f"{(len(array) - 1) / 1e6:.2f}M training tokens"
