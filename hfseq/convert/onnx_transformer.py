"""The encoder-decoder Transformer as ONNX: a graph that reads the source, and one that writes tokens, with a cache.

| file | inputs -> outputs |
|---|---|
| `encoder.onnx` | input_ids, attention_mask [batch, source time] -> `memory_0`, ..., the states to begin with |
| `decoder.onnx` | decoder_input_ids [batch, time], attention_mask, memory, the states -> logits, new states |

The memory is what every decoder layer reads of the source, keys and values, projected once: [batch, heads, source time,
width]. The states `state_0`, `state_1`, ... are the keys and values of the target so far [batch, heads, tokens, width],
empty at first. The decoder takes one token or many, and padding of the source stands on either side.
"""

from __future__ import annotations

import numpy as np

from ..models.modeling_transformer import SinusoidalPositions, TransformerForSeq2SeqLM, TransformerStack
from .onnx_graph import Graph
from .onnx_layers import (
    MASKED,
    attention,
    count,
    feed_forward,
    layer_norm,
    length,
    padding_bias,
    places,
    projections,
    rotary_angles,
    rotate,
)
from .onnx_seq2seq import DECODER_FILE, ENCODER_FILE


def write_graphs(model: TransformerForSeq2SeqLM) -> dict[str, Graph]:
    """{file: graph}."""
    return {ENCODER_FILE: _encoder(model), DECODER_FILE: _decoder(model)}


def _embedded(graph: Graph, stack: TransformerStack, x: str, positions: str) -> str:
    """Word vectors [batch, time, d_model] at positions [batch or nothing, time] -> the first layer's input."""
    x = graph.add("Mul", x, graph.constant(np.float32(stack.embed_scale)))
    table = stack.embed_positions
    if table is None:
        return x
    rows = table.table if isinstance(table, SinusoidalPositions) else table.weight
    return graph.add("Add", x, graph.add("Gather", graph.constant(rows), positions))


def _angles(graph: Graph, model: TransformerForSeq2SeqLM, positions: str, heads: int, batched: bool):
    config = model.config
    if config.position_embedding_type != "rotary":
        return None
    return rotary_angles(graph, positions, config.d_model // heads, config.rope_theta, batched)


def _enter(graph: Graph, residual, x: str) -> str:
    return layer_norm(graph, x, residual.norm) if residual.pre_norm else x


def _leave(graph: Graph, residual, x: str, output: str) -> str:
    x = graph.add("Add", x, output)
    return x if residual.pre_norm else layer_norm(graph, x, residual.norm)


def _read_for_attention(graph: Graph, layer, x: str, angles) -> tuple[str, str, str]:
    """Queries, keys and values of self-attention, turned by their positions where those are rotary."""
    part = layer.attention
    read = _enter(graph, layer.attention_residual, x)
    q, k, v = projections(graph, read, part.heads, part.q_proj, part.k_proj, part.v_proj)
    if angles is not None:
        q, k = rotate(graph, q, angles), rotate(graph, k, angles)
    return q, k, v


def _feed_forward(graph: Graph, layer, x: str, function: str) -> str:
    residual = layer.mlp_residual
    return _leave(graph, residual, x, feed_forward(graph, _enter(graph, residual, x), layer.mlp, function))


def _encoder(model: TransformerForSeq2SeqLM) -> Graph:
    encoder, decoder, config = model.model.encoder, model.model.decoder, model.config
    graph = Graph("encoder")
    ids = graph.input("input_ids", int, ("batch", "source_time"))
    mask = graph.input("attention_mask", int, ("batch", "source_time"))
    positions = places(graph, mask)
    x = _embedded(graph, encoder, graph.embedding(ids, encoder.embed_tokens), positions)
    angles = _angles(graph, model, positions, config.encoder_attention_heads, batched=True)
    bias = padding_bias(graph, mask)
    for layer in encoder.layers:
        part, residual = layer.attention, layer.attention_residual
        q, k, v = _read_for_attention(graph, layer, x, angles)
        x = _leave(graph, residual, x, attention(graph, q, k, v, bias, part))
        x = _feed_forward(graph, layer, x, config.activation_function)
    if encoder.final_norm is not None:
        x = layer_norm(graph, x, encoder.final_norm)

    heads = config.decoder_attention_heads
    width = config.d_model // heads
    memory: list[str] = []
    for layer in decoder.layers:
        part = layer.cross_attention
        memory += projections(graph, x, part.heads, part.k_proj, part.v_proj)
    for number, value in enumerate(memory):
        graph.output(f"memory_{number}", value, float, ("batch", heads, "source_time", width))
    for number, value in enumerate(memory):  # no token of the target yet
        nothing = graph.add("Slice", value, *map(graph.integers, (0, 0, 2)))
        graph.output(f"state_{number}", nothing, float, ("batch", heads, "tokens", width))
    return graph


def _decoder(model: TransformerForSeq2SeqLM) -> Graph:
    decoder, config = model.model.decoder, model.config
    heads = config.decoder_attention_heads
    width = config.d_model // heads
    graph = Graph("decoder")
    ids = graph.input("decoder_input_ids", int, ("batch", "time"))
    mask = graph.input("attention_mask", int, ("batch", "source_time"))
    numbers = range(2 * config.decoder_layers)
    memory = [graph.input(f"memory_{n}", float, ("batch", heads, "source_time", width)) for n in numbers]
    states = [graph.input(f"state_{n}", float, ("batch", heads, "tokens", width)) for n in numbers]

    seen = length(graph, states[0], 2)
    total = graph.add("Add", seen, length(graph, ids, 1))
    positions = count(graph, seen, total)  # [time]
    x = _embedded(graph, decoder, graph.embedding(ids, model.model.target_embedding), positions)
    angles = _angles(graph, model, positions, heads, batched=False)
    ahead = graph.add(
        "Greater",
        graph.add("Unsqueeze", count(graph, graph.constant(np.int64(0)), total), graph.integers(0)),
        graph.add("Unsqueeze", positions, graph.integers(1)),
    )  # [time, tokens + time]
    bias = graph.add("Mul", graph.floats(ahead), graph.constant(np.float32(MASKED)))
    source_bias = padding_bias(graph, mask)
    new: list[str] = []
    for number, layer in enumerate(decoder.layers):
        part, residual = layer.attention, layer.attention_residual
        q, k, v = _read_for_attention(graph, layer, x, angles)
        pair = zip(states[2 * number : 2 * number + 2], (k, v), strict=True)
        k, v = (graph.add("Concat", before, now, axis=2) for before, now in pair)
        new += [k, v]
        x = _leave(graph, residual, x, attention(graph, q, k, v, bias, part))
        part, residual = layer.cross_attention, layer.cross_attention_residual
        (q,) = projections(graph, _enter(graph, residual, x), heads, part.q_proj)
        k, v = memory[2 * number : 2 * number + 2]
        x = _leave(graph, residual, x, attention(graph, q, k, v, source_bias, part))
        x = _feed_forward(graph, layer, x, config.activation_function)
    if decoder.final_norm is not None:
        x = layer_norm(graph, x, decoder.final_norm)
    logits = graph.linear(x, model.lm_head)
    graph.output("logits", logits, float, ("batch", "time", config.decoder_vocab_size))
    for n, value in enumerate(new):
        graph.output(f"new_state_{n}", value, float, ("batch", heads, "new_tokens", width))
    return graph


__all__ = ["write_graphs"]
