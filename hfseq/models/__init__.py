"""The model families: one flat folder, because every file here may travel to a Hub repository.

Files in this folder import the standard library, torch, transformers and `from .sibling import ...`, nothing else
(this one stays at home). Start with `modeling_recurrent.py`.

`AUTO_CLASSES` is the one list of what there is, {configuration: {Auto class: head}}; each modeling file has a part of
it. What `import hfseq` exports and registers, what an export names in its `auto_map`, and what `convert` can fill are
read from it.
"""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedModel

from . import (
    modeling_encoder,
    modeling_pervasive,
    modeling_recurrent,
    modeling_recurrent_seq2seq,
    modeling_transformer,
)

AUTO_CLASSES: dict[type[PreTrainedConfig], dict[str, type[PreTrainedModel]]] = {
    **modeling_recurrent.AUTO_CLASSES,
    **modeling_recurrent_seq2seq.AUTO_CLASSES,
    **modeling_encoder.AUTO_CLASSES,
    **modeling_transformer.AUTO_CLASSES,
    **modeling_pervasive.AUTO_CLASSES,
}

__all__ = ["AUTO_CLASSES"]
