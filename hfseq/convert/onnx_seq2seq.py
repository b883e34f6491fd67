"""The recurrent encoder-decoders as ONNX: a graph that reads the source, and one that writes a token.

| file | inputs -> outputs |
|---|---|
| `encoder.onnx` | input_ids, attention_mask [batch, source time] -> memory [batch, source time, width], the states |
| `decoder.onnx` | decoder_input_ids [batch, time], memory, attention_mask, the states -> logits, new states |

The states are called `state_0`, `state_1`, ..., [layers, batch, width] each. Without input feeding the decoder takes
several tokens at once, with it one. Without attention it has neither memory nor attention_mask.
"""

from __future__ import annotations

import numpy as np

from ..models.configuration_recurrent_seq2seq import RecurrentSeq2SeqConfig
from ..models.modeling_recurrent_seq2seq import RecurrentDecoder, RecurrentForSeq2SeqLM
from .onnx_graph import Graph

ENCODER_FILE, DECODER_FILE = "encoder.onnx", "decoder.onnx"


def write_graphs(model: RecurrentForSeq2SeqLM) -> dict[str, Graph]:
    """{file: graph}."""
    return {ENCODER_FILE: _encoder(model), DECODER_FILE: _decoder(model)}


def _state_shapes(decoder: RecurrentDecoder) -> list[list[tuple[int, str, int]]]:
    """Shapes of the tensors of each state in the decoder's cache."""
    shapes = [[(b.num_layers, "batch", b.hidden_size)] * b.state_tensors for b in decoder.blocks]
    if decoder.num_states > len(shapes):
        shapes.append([(1, "batch", decoder.readout_size)])
    return shapes


def _encoder(model: RecurrentForSeq2SeqLM) -> Graph:
    encoder, decoder, config = model.model.encoder, model.model.decoder, model.config
    graph = Graph("encoder")
    ids = graph.input("input_ids", int, ("batch", "source_time"))
    mask = graph.input("attention_mask", int, ("batch", "source_time"))
    x = graph.add("Transpose", graph.embedding(ids, encoder.embed_tokens), perm=[1, 0, 2])
    output, _, finals = graph.block(encoder.block, x, graph.lengths(mask))
    real = graph.add("Unsqueeze", graph.floats(mask), graph.integers(2))  # [batch, source time, 1]
    memory = graph.add("Mul", graph.add("Transpose", output, perm=[1, 0, 2]), real)
    graph.output("memory", memory, float, ("batch", "source_time", config.memory_size))
    first = _bridge(
        graph, encoder.bridge, config, memory, real, finals
    )  # [decoder layers, batch, hidden] each
    begin, number = 0, 0
    for index, shapes in enumerate(_state_shapes(decoder)):
        for tensor, shape in enumerate(shapes):
            if index < len(decoder.blocks):
                ends = graph.integers(begin), graph.integers(begin + shape[0]), graph.integers(0)
                state = graph.add("Slice", first[tensor], *ends)
            else:  # what Luong's recurrence feeds back: nothing yet
                width = graph.constant(np.zeros((config.hidden_size, shape[2]), dtype=np.float32))
                state = graph.add(
                    "MatMul", graph.add("Slice", first[0], *map(graph.integers, (0, 1, 0))), width
                )
            graph.output(f"state_{number}", state, float, shape)
            number += 1
        begin += shapes[0][0]
    return graph


def _bridge(graph: Graph, bridge, config: RecurrentSeq2SeqConfig, memory, real, finals) -> list[str]:
    """The decoder's first state: each of its tensors, [decoder layers, batch, hidden]."""
    if config.hands_over:
        return list(finals)
    layers, time = config.decoder_layers, graph.integers(1)

    def by_layer(x: str) -> str:  # [batch, layers * hidden] -> [layers, batch, hidden]
        x = graph.add("Reshape", x, graph.integers(0, layers, config.hidden_size))
        return graph.add("Transpose", x, perm=[1, 0, 2])

    def flat(state: str) -> str:  # [n, batch, width] -> [batch, n * width]
        return graph.add("Flatten", graph.add("Transpose", state, perm=[1, 0, 2]), axis=1)

    if config.bridge == "mean":
        count = graph.add("ReduceSum", real, time, keepdims=0)
        mean = graph.add("Div", graph.add("ReduceSum", memory, time, keepdims=0), count)
        one = graph.add("Tanh", graph.linear(mean, bridge.projection))
        h = by_layer(graph.add("Concat", *[one] * layers, axis=1))
    elif config.attention is not None:
        ways = config.memory_size // config.encoder_width
        total = config.encoder_layers * ways
        ends = graph.integers(total - ways), graph.integers(total), graph.integers(0)
        top = flat(graph.add("Slice", finals[0], *ends))
        h = by_layer(graph.add("Tanh", graph.linear(top, bridge.projection)))
    else:
        h = by_layer(graph.add("Tanh", graph.linear(flat(finals[0]), bridge.projection)))
        if config.state_tensors == 2:
            return [h, by_layer(graph.linear(flat(finals[1]), bridge.cell_projection))]
    zero = graph.constant(np.float32(0))
    return [h, graph.add("Mul", h, zero)] if config.state_tensors == 2 else [h]


def _decoder(model: RecurrentForSeq2SeqLM) -> Graph:
    decoder, config = model.model.decoder, model.config
    graph = Graph("decoder")
    ids = graph.input("decoder_input_ids", int, ("batch", 1 if config.input_feeding else "time"))
    attend = None
    if decoder.attention is not None:
        memory = graph.input("memory", float, ("batch", "source_time", config.memory_size))
        mask = graph.input("attention_mask", int, ("batch", "source_time"))
        attend = _attention(graph, decoder, memory, mask)
    shapes, states, number = _state_shapes(decoder), [], 0
    for block in shapes:
        states.append([graph.input(f"state_{number + i}", float, shape) for i, shape in enumerate(block)])
        number += len(block)

    embedding = decoder.embed_tokens or model.model.encoder.embed_tokens
    x = graph.add("Transpose", graph.embedding(ids, embedding), perm=[1, 0, 2])  # [time, batch, width]
    late = decoder.num_states > len(decoder.blocks)
    context = None
    if late:
        x = graph.add("Concat", x, states[-1][0], axis=2)
    elif config.input_feeding:
        first = graph.add("Slice", states[0][0], *map(graph.integers, (0, 1, 0)))
        context = attend(first)
        x = graph.add("Concat", x, context, axis=2)
    new = []
    for index, block in enumerate(decoder.blocks):
        x, _, final = graph.block(block, x, states=tuple(states[index]))
        new.append(final)
        if index == 0 and decoder.attends_between:
            x = graph.add("Concat", x, attend(x), axis=2)
    if decoder.combine is not None:
        context = attend(x) if context is None else context
        x = graph.add("Tanh", graph.linear(graph.add("Concat", x, context, axis=2), decoder.combine))
    if late:
        new.append((x,))
    if model.projection is not None:
        x = graph.linear(x, model.projection)
    logits = graph.add("Transpose", graph.linear(x, model.lm_head), perm=[1, 0, 2])
    graph.output("logits", logits, float, ("batch", "time", config.decoder_vocab_size))
    pairs = (
        (value, shape)
        for values, block in zip(new, shapes, strict=True)
        for value, shape in zip(values, block, strict=True)
    )
    for number, (value, shape) in enumerate(pairs):
        graph.output(f"new_state_{number}", value, float, shape)
    return graph


def _attention(graph: Graph, decoder: RecurrentDecoder, memory: str, mask: str):
    """A function from states [time, batch, hidden] to contexts [time, batch, memory_size]."""
    attention = decoder.attention
    real = graph.add("Sub", graph.floats(mask), graph.constant(np.float32(1)))  # 0 at tokens, -1 at padding
    beyond = graph.add(
        "Unsqueeze", graph.add("Mul", real, graph.constant(np.float32(1e30))), graph.integers(1)
    )
    keys = graph.linear(memory, attention.key) if attention.additive else memory

    def attend(x: str) -> str:
        queries = graph.add(
            "Transpose", graph.linear(x, attention.query), perm=[1, 0, 2]
        )  # [batch, time, width]
        if attention.additive:
            both = graph.add(
                "Add",
                graph.add("Unsqueeze", queries, graph.integers(2)),
                graph.add("Unsqueeze", keys, graph.integers(1)),
            )
            scores = graph.linear(graph.add("Tanh", both), attention.score)
            scores = graph.add("Squeeze", scores, graph.integers(3))
        else:
            scores = graph.add("MatMul", queries, graph.add("Transpose", keys, perm=[0, 2, 1]))
        weights = graph.add("Softmax", graph.add("Add", scores, beyond), axis=2)
        return graph.add("Transpose", graph.add("MatMul", weights, memory), perm=[1, 0, 2])

    return attend
