"""Marian's translation models (Junczys-Dowmunt et al. 2018) as transformers holds them, in both directions.

The two models compute the same function under other parameter names; `_RULES` is the translation of the layers. Marian
keeps the embedding of a shared vocabulary in up to four places, ours in one.
"""

from __future__ import annotations

import copy
import re
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..data.tables import read_json
from ..models.configuration_transformer import TransformerConfig
from ..models.modeling_transformer import TransformerForSeq2SeqLM
from .tensor_files import read_tensors

if TYPE_CHECKING:
    from transformers import MarianMTModel, PreTrainedTokenizerBase

# Marian's name -> ours, inside a layer of either side; every parameter of a part keeps its own name behind it.
_RULES = {
    "self_attn.q_proj": "attention.q_proj",
    "self_attn.k_proj": "attention.k_proj",
    "self_attn.v_proj": "attention.v_proj",
    "self_attn.out_proj": "attention.o_proj",
    "self_attn_layer_norm": "attention_residual.norm",
    "encoder_attn.q_proj": "cross_attention.q_proj",
    "encoder_attn.k_proj": "cross_attention.k_proj",
    "encoder_attn.v_proj": "cross_attention.v_proj",
    "encoder_attn.out_proj": "cross_attention.o_proj",
    "encoder_attn_layer_norm": "cross_attention_residual.norm",
    "fc1": "mlp.up_proj",
    "fc2": "mlp.down_proj",
    "final_layer_norm": "mlp_residual.norm",
}
_TO_MARIAN = {ours: theirs for theirs, ours in _RULES.items()}
_LAYER = re.compile(r"^(model\.(?:encoder|decoder)\.layers\.\d+)\.(.+)\.(weight|bias)$")
# Fields that both configs have under one name.
_FIELDS = (
    "vocab_size",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "activation_function",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "max_position_embeddings",
    "scale_embedding",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
)
# Options of ours, with the only value that Marian knows.
_PLAIN = {
    "pre_norm": False,
    "gated_mlp": False,
    "position_embedding_type": "sinusoidal",
    "interleaved_positions": False,
    "layer_norm_eps": 1e-5,
}


def import_model(path: str | PathLike[str], head: str | None = None) -> TransformerForSeq2SeqLM:
    """Fills a Transformer from a `MarianMTModel` directory; see `hfseq.convert.import_model` for arguments and errors.

    transformers itself reads the files, so whatever it loads is taken as it loads it: old names, several files, tied
    and untied embeddings. How the model generates goes along. Layer drop does not: it acts in training only.

    Args:
        path: a directory with config.json and the weights.
        head: None or "ForSeq2SeqLM", the only one.
    """
    if head not in (None, "ForSeq2SeqLM"):
        raise ValueError(f"Unknown head {head!r}: the format marian has ForSeq2SeqLM only.")
    theirs = _read(Path(path))
    given = theirs.config
    source = theirs.model.encoder.embed_tokens.weight
    target = theirs.model.decoder.embed_tokens.weight
    output, bias = theirs.lm_head.weight, theirs.final_logits_bias[0]
    shared = given.share_encoder_decoder_embeddings and torch.equal(source, target)
    if len(output) != len(target):
        raise ValueError(
            f"{path}: the target embedding has {len(target)} rows, the output layer {len(output)}: they belong to "
            "different vocabularies."
        )
    config = TransformerConfig(
        **{name: getattr(given, name) for name in _FIELDS if name != "vocab_size"},
        vocab_size=len(source),
        decoder_vocab_size=len(target),
        share_encoder_decoder_embeddings=shared,
        tie_word_embeddings=torch.equal(output, target),
        output_bias=bool(bias.any()),
        init_std=given.init_std,
        label_smoothing=0.0,
        dtype=theirs.dtype,
    )
    ours = TransformerForSeq2SeqLM(config).to(theirs.dtype)
    weights = _renamed(theirs.state_dict(), _RULES)
    weights |= {"model.encoder.embed_tokens.weight": source, "lm_head.weight": output}
    if not shared:
        weights["model.decoder.embed_tokens.weight"] = target
    if config.output_bias:
        weights["lm_head.bias"] = bias
    ours.load_state_dict(weights)
    ours.tie_weights()
    ours.generation_config = copy.deepcopy(theirs.generation_config)
    return ours.eval()


def import_tokenizer(path: str | PathLike[str]) -> PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer.

    Raises:
        FileNotFoundError: the directory has neither tokenizer.json nor tokenizer_config.json.
        ImportError: Marian's own tokenizer needs the package sentencepiece.
    """
    from transformers import AutoTokenizer

    path = Path(path)
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        raise FileNotFoundError(
            f"{path} has neither tokenizer.json nor tokenizer_config.json: add the tokenizer it was trained with."
        )
    return AutoTokenizer.from_pretrained(
        path, trust_remote_code=False
    )  # code of theirs is refused, not asked about


def export_model(model: TransformerForSeq2SeqLM, directory: str | PathLike[str]) -> None:
    """Writes the model as a `MarianMTModel`, which plain transformers loads; see `hfseq.convert.export_model`.

    Dropout rates and how the model generates go along. Label smoothing and R-Drop act in training only, and Marian has
    no fields for them.

    Raises:
        ValueError: not a `TransformerForSeq2SeqLM`, or options that Marian cannot express (each is named).
    """
    import transformers

    config = model.config
    if not isinstance(model, TransformerForSeq2SeqLM):
        raise ValueError(
            f"The format marian takes hfseq's TransformerForSeq2SeqLM, not {type(model).__name__} "
            f"({config.model_type})."
        )
    foreign = [
        f"{name}={getattr(config, name)!r}"
        for name, value in _PLAIN.items()
        if getattr(config, name) != value
    ]
    if config.decoder_start_token_id is None:
        foreign.append("decoder_start_token_id=None")
    if foreign:
        raise ValueError(
            f"Marian cannot express {', '.join(foreign)}: only a Transformer without goes into it."
        )

    fields = {name: getattr(config, name) for name in _FIELDS}
    if config.init_std is not None:
        fields["init_std"] = config.init_std
    target_config = transformers.MarianConfig(
        **fields,
        decoder_vocab_size=config.decoder_vocab_size,
        share_encoder_decoder_embeddings=config.share_encoder_decoder_embeddings,
        tie_word_embeddings=config.tie_word_embeddings,
        forced_eos_token_id=model.generation_config.forced_eos_token_id,
    )
    theirs = transformers.MarianMTModel(target_config).to(model.dtype)
    ours = model.state_dict()
    weights = _renamed(ours, _TO_MARIAN)
    source = ours["model.encoder.embed_tokens.weight"]
    target = ours.get("model.decoder.embed_tokens.weight", source)
    weights |= {
        "model.encoder.embed_tokens.weight": source,
        "model.decoder.embed_tokens.weight": target,
        "lm_head.weight": ours["lm_head.weight"],
        "final_logits_bias": ours.get("lm_head.bias", torch.zeros(len(target), dtype=model.dtype))[None],
    }
    if config.share_encoder_decoder_embeddings:
        weights["model.shared.weight"] = source
    # Positions are computed, on both sides.
    kept = {name: t for name, t in theirs.state_dict().items() if name.endswith("embed_positions.weight")}
    theirs.load_state_dict({**weights, **kept})
    theirs.tie_weights()
    theirs.generation_config = copy.deepcopy(model.generation_config)
    theirs.save_pretrained(directory)


def _renamed(weights: dict[str, torch.Tensor], rules: dict[str, str]) -> dict[str, torch.Tensor]:
    """The layers' weights under the other's names, without what stands outside of layers."""
    renamed = {}
    for name, tensor in weights.items():
        if found := _LAYER.match(name):
            layer, part, parameter = found.groups()
            renamed[f"{layer}.{rules[part]}.{parameter}"] = tensor
    return renamed


def _read(path: Path) -> MarianMTModel:
    from transformers import MarianMTModel

    file = path / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no config.json: name the directory of a Marian checkpoint.")
    fields = read_json(file)
    if not isinstance(fields, dict):
        raise ValueError(f"{file} holds a {type(fields).__name__}, not a JSON object.")
    kind = fields.get("model_type", "marian")
    if kind != "marian":
        raise ValueError(f"{file} says model_type {kind!r}: the format marian reads Marian only.")
    for name in ("normalize_before", "normalize_embedding", "add_final_layer_norm"):  # of old files
        if fields.get(name):
            raise ValueError(
                f"{file}: {name} is true, which MarianMTModel does not compute: the weights are another model's."
            )
    for weights in [*path.glob("pytorch_model*.bin"), *path.glob("model*.safetensors")]:
        read_tensors(weights)  # refused in our words, before transformers reads it
    model, report = MarianMTModel.from_pretrained(
        path, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
    )
    wrong = sorted(report["mismatched_keys"])
    if wrong:
        name, found, expected = wrong[0]
        raise ValueError(
            f"{path}: {name} has shape {list(found)}, by config.json it should have {list(expected)}: the files "
            "belong to different models."
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{path} lacks {missing[0]}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}, which a "
            "MarianMTModel needs: it was saved without its output layer, or from another model."
        )
    return model


__all__ = ["export_model", "import_model", "import_tokenizer"]
