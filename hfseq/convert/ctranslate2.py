"""CTranslate2 out (Klein et al. 2020): the Transformer as a `Translator`, the encoder as an `Encoder`, for fast CPUs.

CTranslate2 reads a specification, tensors by name, not a graph. Its own converter reads Marian and BERT, and a model
that Marian can express becomes here what that converter makes of `convert export marian`. Ours goes directly, because
the engine has more than Marian and BERT have: pre-norm (which most of our recipes use), gated feed-forward networks,
rotary and learned positions, layers without biases.

| model | class | in -> out |
|---|---|---|
| `TransformerForSeq2SeqLM` | `ctranslate2.Translator` | tokens -> tokens, by beam search |
| `Encoder*` | `ctranslate2.Encoder` | tokens -> last_hidden_state [batch, time, width], pooler_output |

Tokens are those of the tokenizer, special ones included: `tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)`.
By default the engine's search ends once there are as many translations as beams; `patience=2` goes on for about as long
as `generate()` does (0.02 BLEU apart where the default was 0.37). The engine has no heads for an encoder: they go to
`head.safetensors`, under the names that they have here. Ids that the tokenizer does not have (rows that round up a
vocabulary) are left out, those that generation suppresses are never chosen.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from ..hints import nearest_hint
from ..models.modeling_encoder import EncoderModel, EncoderPreTrainedModel
from ..models.modeling_transformer import SinusoidalPositions, TransformerForSeq2SeqLM

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

HEAD_FILE = "head.safetensors"
QUANTIZATIONS = (
    "float32",
    "int8",
    "int16",
    "float16",
    "bfloat16",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
)
# transformers' name of an activation -> CTranslate2's.
ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "quick_gelu": "GELUSigmoid",
    "silu": "SWISH",
    "swish": "SWISH",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}
NEVER = -1e9  # the bias of a token that is not to be chosen


def import_ctranslate2():
    """The package `ctranslate2`, or an error that says how to get it."""
    try:
        import ctranslate2
    except ImportError as error:
        raise ImportError("Writing CTranslate2 needs ctranslate2: pip install 'hfseq[deploy]'") from error
    return ctranslate2


def export_model(
    model: PreTrainedModel,
    directory: str | PathLike[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
    target_tokenizer: PreTrainedTokenizerBase | None = None,
    quantization: str | None = None,
) -> None:
    """Writes `model.bin`, `config.json` and the vocabulary; see `hfseq.convert.export_model`.

    Args:
        model: a TransformerForSeq2SeqLM, or any model of the encoder's family.
        directory: made if missing.
        tokenizer: the model's, for the names of the tokens; of the source, where the target has another.
        target_tokenizer: of the target; None: the same.
        quantization: one of QUANTIZATIONS, how matrices are stored; None: "float32". int8 has a scale for each row.

    Raises:
        ValueError: another family, no tokenizer, an option that CTranslate2 does not have (by name).
        ImportError: ctranslate2 is not installed.
    """
    quantization = quantization or "float32"
    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"CTranslate2 has no quantization {quantization!r}.{nearest_hint(quantization, QUANTIZATIONS)} "
            f"There are: {', '.join(QUANTIZATIONS)}."
        )
    if not isinstance(model, (TransformerForSeq2SeqLM, EncoderPreTrainedModel)):
        raise ValueError(
            f"The format ctranslate2 takes TransformerForSeq2SeqLM and the encoder's family, not "
            f"{type(model).__name__} ({model.config.model_type}): the engine has no such layers. "
            "`hfseq convert export onnx` writes every family."
        )
    if tokenizer is None:
        raise ValueError(
            "CTranslate2 names tokens, ids it does not know: pass the model's tokenizer (`hfseq convert export` reads "
            "it from the checkpoint, where there is none)."
        )
    import_ctranslate2()
    directory = Path(directory)
    head: dict[str, torch.Tensor] = {}
    if isinstance(model, TransformerForSeq2SeqLM):
        spec = _translator(model, tokenizer, target_tokenizer or tokenizer)
    else:
        body = model if isinstance(model, EncoderModel) else model.model
        spec = _encoder(body, tokenizer)
        head = {name: t for name, t in model.state_dict().items() if not name.startswith("model.")}
    spec.validate()
    spec.optimize(quantization)
    directory.mkdir(parents=True, exist_ok=True)
    spec.save(str(directory))
    if head and body is not model:
        save_file(
            {name: t.detach().float().contiguous().clone() for name, t in head.items()}, directory / HEAD_FILE
        )


def _translator(
    model: TransformerForSeq2SeqLM,
    source_tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase,
) -> Any:
    from ctranslate2.specs import transformer_spec

    config = model.config
    encoder, decoder = model.model.encoder, model.model.decoder
    source, target = (
        _vocabulary(tokenizer, size, side)
        for tokenizer, size, side in (
            (source_tokenizer, config.vocab_size, "source"),
            (target_tokenizer, config.target_vocab_size, "target"),
        )
    )
    if config.decoder_start_token_id is None:
        raise ValueError(
            "CTranslate2 begins with a token: decoder_start_token_id is None in the model's config."
        )
    common = {
        "pre_norm": config.pre_norm,
        "activation": _activation(config.activation_function),
        "ffn_glu": config.gated_mlp,
    }
    sides = []
    for kind, layers, heads in (
        (transformer_spec.TransformerEncoderSpec, config.encoder_layers, config.encoder_attention_heads),
        (transformer_spec.TransformerDecoderSpec, config.decoder_layers, config.decoder_attention_heads),
    ):
        rotary = _rotary(config, config.d_model // heads)
        sides.append(kind(layers, heads, **common, **rotary))
    spec = transformer_spec.TransformerSpec(*sides)
    # The two stacks have layers of their own classes, of which the decoder's has more.
    parts: list[tuple[Any, Any, Any, int]] = [
        (spec.encoder, encoder, encoder.embed_tokens, len(source)),
        (spec.decoder, decoder, model.model.target_embedding, len(target)),
    ]
    for part, stack, embedding, size in parts:
        part.scale_embeddings = stack.embed_scale
        first = part.embeddings[0] if isinstance(part.embeddings, list) else part.embeddings
        first.weight = _tensor(embedding.weight[:size])
        positions = stack.embed_positions
        if positions is not None:
            table = positions.table if isinstance(positions, SinusoidalPositions) else positions.weight
            part.position_encodings.encodings = _tensor(table)
        if stack.final_norm is not None:
            _norm(part.layer_norm, stack.final_norm)
        for layer_spec, layer in zip(part.layer, stack.layers, strict=True):
            _self_attention(layer_spec.self_attention, layer.attention, layer.attention_residual.norm)
            if part is spec.decoder:
                _cross_attention(
                    layer_spec.attention, layer.cross_attention, layer.cross_attention_residual.norm
                )
            _feed_forward(layer_spec.ffn, layer.mlp, layer.mlp_residual.norm)
    spec.decoder.projection.weight = _tensor(model.lm_head.weight[: len(target)])
    bias = _output_bias(model, len(target))
    if bias is not None:
        spec.decoder.projection.bias = bias
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    spec.config.layer_norm_epsilon = config.layer_norm_eps
    spec.config.decoder_start_token = target[config.decoder_start_token_id]
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if not ends or ends[0] is None:
        raise ValueError("CTranslate2 ends with a token: eos_token_id is None in the model's config.")
    spec.config.eos_token = target[ends[0]]
    spec.config.bos_token = target_tokenizer.bos_token or spec.config.decoder_start_token
    spec.config.unk_token = target_tokenizer.unk_token or spec.config.eos_token
    return spec


def _output_bias(model: TransformerForSeq2SeqLM, size: int) -> torch.Tensor | None:
    """The output layer's bias, with what generation never chooses far below all others; None: there is neither."""
    never = [i for i in model.generation_config.suppress_tokens or () if i < size]
    if model.lm_head.bias is None and not never:
        return None
    bias = torch.zeros(size) if model.lm_head.bias is None else _tensor(model.lm_head.bias[:size])
    bias[never] = NEVER
    return bias


def _encoder(model: EncoderModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    from ctranslate2.specs import common_spec, transformer_spec

    config = model.config
    types = model.embed_types
    encoder = transformer_spec.TransformerEncoderSpec(
        config.num_hidden_layers,
        config.num_attention_heads,
        pre_norm=config.pre_norm,
        activation=_activation(config.hidden_act),
        layernorm_embedding=True,
        num_source_embeddings=1 if types is None else 2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
        ffn_glu=config.gated_mlp,
        **_rotary(config, config.hidden_size // config.num_attention_heads),
    )
    spec = transformer_spec.TransformerEncoderModelSpec(encoder, pooling_layer=model.pooler is not None)
    tokens = _vocabulary(tokenizer, config.vocab_size, "text")
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = _tensor(model.embed_tokens.weight[: len(tokens)])
    if types is not None:
        encoder.embeddings[1].weight = _tensor(types.weight)
    if model.embed_positions is not None:
        encoder.position_encodings.encodings = _tensor(model.embed_positions.weight)
    _norm(encoder.layernorm_embedding, model.embed_norm)
    if model.final_norm is not None:
        _norm(encoder.layer_norm, model.final_norm)
    for layer_spec, layer in zip(encoder.layer, model.layers, strict=True):
        _self_attention(layer_spec.self_attention, layer.attention, layer.attention_norm)
        _feed_forward(layer_spec.ffn, layer.mlp, layer.mlp_norm)
    if model.pooler is not None:
        _linear(spec.pooler_dense, model.pooler.dense)
    spec.register_vocabulary(tokens)
    spec.config.layer_norm_epsilon = config.layer_norm_eps
    spec.config.unk_token = tokenizer.unk_token or tokens[0]
    return spec


def _vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, side: str) -> list[str]:
    """Tokens by id, as many as there are in both."""
    size = len(tokenizer)
    if size > rows:
        raise ValueError(
            f"The tokenizer of the {side} has {size} entries, the model only {rows}: export a model with the tokenizer "
            "it was trained with."
        )
    tokens = tokenizer.convert_ids_to_tokens(list(range(size)))
    if len(set(tokens)) < size or None in tokens:
        raise ValueError(
            f"The tokenizer of the {side} has gaps or one token under several ids; CTranslate2 knows tokens by name."
        )
    return tokens


def _activation(name: str) -> int:
    from ctranslate2.specs import common_spec

    if name not in ACTIVATIONS:
        raise ValueError(
            f"CTranslate2 has no activation {name!r}; a model with one of {', '.join(ACTIVATIONS)} goes into it."
        )
    return common_spec.Activation[ACTIVATIONS[name]]


def _rotary(config: PreTrainedConfig, head_width: int) -> dict[str, Any]:
    if config.position_embedding_type != "rotary":
        return {}
    return {"rotary_dim": head_width, "rotary_interleave": False, "rotary_base": float(config.rope_theta)}


def _tensor(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().float().clone()


def _linear(spec: Any, *layers: nn.Linear) -> None:
    """One linear layer of several that read the same, their outputs side by side."""
    spec.weight = torch.cat([_tensor(layer.weight) for layer in layers])
    if layers[0].bias is not None:
        spec.bias = torch.cat([_tensor(layer.bias) for layer in layers])


def _norm(spec: Any, norm: Any) -> None:
    spec.gamma = _tensor(norm.weight)
    spec.beta = torch.zeros_like(spec.gamma) if norm.bias is None else _tensor(norm.bias)


def _self_attention(spec: Any, attention: Any, norm: Any) -> None:
    _norm(spec.layer_norm, norm)
    _linear(spec.linear[0], attention.q_proj, attention.k_proj, attention.v_proj)
    _linear(spec.linear[1], attention.o_proj)


def _cross_attention(spec: Any, attention: Any, norm: Any) -> None:
    _norm(spec.layer_norm, norm)
    _linear(spec.linear[0], attention.q_proj)
    _linear(spec.linear[1], attention.k_proj, attention.v_proj)
    _linear(spec.linear[2], attention.o_proj)


def _feed_forward(spec: Any, mlp: Any, norm: Any) -> None:
    _norm(spec.layer_norm, norm)
    if mlp.gate_proj is None:
        _linear(spec.linear_0, mlp.up_proj)
    else:  # the activation is on the gate
        _linear(spec.linear_0, mlp.gate_proj)
        _linear(spec.linear_0_noact, mlp.up_proj)
    _linear(spec.linear_1, mlp.down_proj)


__all__ = ["HEAD_FILE", "QUANTIZATIONS", "export_model", "import_ctranslate2"]
