"""The base of every hfseq model: what `PreTrainedModel` does not do for models whose code travels with them."""

from __future__ import annotations

from transformers.modeling_utils import PreTrainedModel


class HfseqPreTrainedModel(PreTrainedModel):
    """A `PreTrainedModel` whose ordinary saves are ordinary checkpoints."""

    base_model_prefix = "model"
    supports_gradient_checkpointing = True

    def save_pretrained(self, save_directory, **kwargs):
        """As in transformers; an `auto_map` left from loading an exported checkpoint is written only with its code."""
        auto_map = getattr(self.config, "auto_map", None)
        if auto_map is None or self._auto_class is not None:
            return super().save_pretrained(save_directory, **kwargs)
        del self.config.auto_map
        try:
            return super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.auto_map = auto_map
