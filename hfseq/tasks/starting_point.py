"""What a run starts from: a checkpoint's config, tokenizer and weights, and a head for the task.

The weights must be whole and finite (`hfseq.loading`). The head is drawn anew where the checkpoint has none, and where
it has one for other classes: weights that once meant "negative" would silently mean "sports". What is drawn is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from ..data import read_tokenizer
from ..loading import build_model, check_tokenizer, load_config, load_model
from ..paths import user_path
from ..positions import position_limit
from .base import Task


@dataclass
class StartingModel:
    """The `model` section of a fine-tuning recipe, beside fields of the model's config."""

    path: str | None = None
    """A checkpoint directory or Hub id."""
    from_scratch: bool = False
    """The checkpoint's config, but none of its weights."""
    tokenizer: str | None = None
    """Where the checkpoint has none: a directory or Hub id."""
    baseline: str | None = None
    """In place of a model: bag-of-words, a linear model on the same sides."""
    trust_remote_code: bool = False
    """Whether code that the checkpoint brings may run."""

    def __post_init__(self) -> None:
        if self.baseline not in (None, "bag-of-words"):
            raise ValueError(f"unknown baseline {self.baseline!r}. There is bag-of-words.")
        if (self.path is None) == (self.baseline is None):
            raise ValueError(
                "give a model or --baseline, not both"
                if self.path
                else "give a model (path), or --baseline bag-of-words"
            )
        if self.path is not None:
            self.path = str(user_path(self.path))
        if self.tokenizer is not None:
            self.tokenizer = str(user_path(self.tokenizer))

    @property
    def name(self) -> str:
        """For output directories."""
        if self.path is None:
            return str(self.baseline)
        return self.path.rstrip("/").rpartition("/")[2] + ("-scratch" if self.from_scratch else "")


def load_parts(start: StartingModel, task: Task) -> tuple[Any, Any, int | None]:
    """The config, the tokenizer and the most tokens that a row may have (None: any number).

    Raises:
        ValueError, OSError: no such checkpoint, no head for the task, a tokenizer that does not fit.
    """
    # a baseline has no path, and comes not here
    config = load_config(start.path, trust_remote_code=start.trust_remote_code)  # type: ignore[arg-type]
    auto_class = getattr(transformers, task.auto_class)
    if type(config) not in auto_class._model_mapping and task.auto_class not in (
        getattr(config, "auto_map", None) or {}
    ):
        raise ValueError(
            f"{start.path} is a {config.model_type}, which has no head for {task.name} ({task.auto_class})."
        )
    source = start.tokenizer or start.path
    try:
        tokenizer = read_tokenizer(source, trust_remote_code=start.trust_remote_code)
    except ValueError as error:
        raise ValueError(
            f"Cannot load the tokenizer of {source} (--tokenizer names another): {error}"
        ) from error
    check_tokenizer(tokenizer, config)
    if tokenizer.pad_token is None:
        raise ValueError(
            f"The tokenizer of {source} has no padding token, so texts cannot be batched. Add one to it."
        )
    limits = [tokenizer.model_max_length, position_limit(config)]
    positions = min((limit for limit in limits if limit and limit < 10**9), default=None)
    asked = task.options.max_length
    if asked and positions and asked > positions:
        raise ValueError(f"--max_length {asked} is beyond the {positions} positions of {start.path}.")
    return config, tokenizer, asked or positions


def make_model(
    start: StartingModel, task: Task, config_fields: dict[str, Any]
) -> tuple[PreTrainedModel, str]:
    """The model, in float32, and what was drawn of it: "everything", "the head", "the head, ...", or "nothing".

    Args:
        config_fields: over the checkpoint's config; the task's own come on top.

    Raises:
        ValueError, OSError: see `hfseq.loading.load_model`; a field that the config refuses.
    """
    auto_class = getattr(transformers, task.auto_class)
    remote = {"trust_remote_code": start.trust_remote_code}
    fields = {**config_fields, **task.config_fields()}
    if start.from_scratch:
        config = AutoConfig.from_pretrained(start.path, **fields, **remote)
        return build_model(auto_class, config, dtype=torch.float32, **remote), "everything"
    # a baseline has no path, and comes not here
    saved = load_config(start.path, **remote)  # type: ignore[arg-type]
    try:
        model = load_model(
            auto_class,
            start.path,  # type: ignore[arg-type]  # likewise
            allow_new_head=True,
            dtype=torch.float32,
            **fields,
            **remote,
        )
    except ValueError as error:
        if not config_fields:
            raise
        raise ValueError(
            f"{error} Or leave out {', '.join(config_fields)}, or train without these weights (--from_scratch)."
        ) from error
    if type(model).__name__ not in (saved.architectures or ()):
        return model, "the head"
    wanted, stored = model.config.id2label, saved.id2label
    if dict(wanted) == dict(stored) or (not task.data.labels and len(wanted) == len(stored)):
        return model, "nothing"
    _draw_head(model, auto_class, remote)
    names = ", ".join(list(stored.values())[:6])
    return model, f"the head, whose classes were others ({names})"


def _draw_head(model: PreTrainedModel, auto_class: Any, remote: dict[str, bool]) -> None:
    fresh = auto_class.from_config(model.config, dtype=torch.float32, **remote)
    drawn = fresh.state_dict()
    body = f"{model.base_model_prefix}."
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.startswith(body):
                tensor.copy_(drawn[name])


__all__ = ["StartingModel", "load_parts", "make_model"]
