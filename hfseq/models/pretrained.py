"""The base of every hfseq model: what `PreTrainedModel` does not do for models whose code travels with them."""

from __future__ import annotations

import os
from typing import TypeVar

import torch
from transformers.modeling_utils import PreTrainedModel

Model = TypeVar("Model", bound="HfseqPreTrainedModel")


class HfseqPreTrainedModel(PreTrainedModel):
    """A `PreTrainedModel` whose ordinary saves are ordinary checkpoints, and which reads those of its older versions.

    `renamed` says how parameters were called once, {beginning of the old name: beginning of the new}. `from_pretrained`
    of transformers 5 loads past every hook of `nn.Module`, and its own table of conversions would also turn the names
    back at each save; so both ways of loading are told here, and saves have the new names.
    """

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    renamed: dict[str, str] = {}

    def post_init(self):
        """As in transformers; then `_no_split_modules` names only layers that this model has.

        A family may have a class of layer for each of its forms, and accelerate does not shard a model that lacks one.
        """
        super().post_init()
        self._no_split_modules &= {type(module).__name__ for module in self.modules()}

    @classmethod
    def from_pretrained(
        cls: type[Model], *args: object, key_mapping: dict[str, str] | None = None, **kwargs: object
    ) -> Model:
        """As in transformers."""
        renamed = {"^" + old.replace(".", r"\."): new for old, new in cls.renamed.items()}
        return super().from_pretrained(
            *args, key_mapping={**renamed, **(key_mapping or {})} or None, **kwargs
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, torch.Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        for old, new in self.renamed.items():
            for name in [name for name in state_dict if name.startswith(prefix + old)]:
                state_dict[prefix + new + name.removeprefix(prefix + old)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: object) -> None:
        """As in transformers; an `auto_map` left from loading an exported checkpoint is written only with its code."""
        if self.renamed:
            kwargs.setdefault("save_original_format", False)
        auto_map = getattr(self.config, "auto_map", None)
        if auto_map is None or self._auto_class is not None:
            return super().save_pretrained(save_directory, **kwargs)
        del self.config.auto_map
        try:
            return super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.auto_map = auto_map
