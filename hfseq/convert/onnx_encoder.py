"""The BERT-style encoder as ONNX, with each of its heads.

| model | outputs of `model.onnx` |
|---|---|
| `EncoderModel` | last_hidden_state [batch, time, width], pooler_output [batch, width] where there is a pooler |
| `EncoderForMaskedLM` | logits [batch, time, vocabulary] |
| `EncoderForPreTraining` | prediction_logits [batch, time, vocabulary], seq_relationship_logits [batch, 2] |
| `EncoderForSequenceClassification` | logits [batch, labels] |
| `EncoderForTokenClassification` | logits [batch, time, labels] |
| `EncoderForQuestionAnswering` | start_logits, end_logits [batch, time] |
| `EncoderForMultipleChoice` | logits [batch, choices] |

Inputs are input_ids and attention_mask [batch, time], and token_type_ids where the model has segment types; those of
multiple choice are [batch, choices, time]. Padding stands on either side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..models.modeling_encoder import (
    EncoderForMaskedLM,
    EncoderForMultipleChoice,
    EncoderForPreTraining,
    EncoderForQuestionAnswering,
    EncoderForSequenceClassification,
    EncoderForTokenClassification,
    EncoderModel,
    EncoderPreTrainedModel,
)
from .onnx_graph import Graph
from .onnx_layers import (
    activation,
    attention,
    count,
    feed_forward,
    layer_norm,
    length,
    padding_bias,
    projections,
    rotary_angles,
    rotate,
)


def write_graph(model: EncoderPreTrainedModel) -> Graph:
    """The whole model."""
    graph = Graph("encoder")
    body: EncoderModel = model if isinstance(model, EncoderModel) else model.model
    choices = isinstance(model, EncoderForMultipleChoice)
    shape = ("batch", "choices", "time") if choices else ("batch", "time")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if body.embed_types is not None else [])]
    given = [graph.input(name, int, shape) for name in names]
    # [batch, choices, time] -> [batch * choices, time], one text a row
    rows = [graph.add("Reshape", x, _rows_of(graph, x)) for x in given] if choices else given
    x = _body(graph, body, *rows)
    _head(graph, model, body, x, rows[1], given[0])
    return graph


def _rows_of(graph: Graph, x: str) -> str:
    time = graph.add("Unsqueeze", length(graph, x, 2), graph.integers(0))
    return graph.add("Concat", graph.integers(-1), time, axis=0)


def _body(graph: Graph, model: EncoderModel, ids: str, mask: str, types: str | None = None) -> str:
    config = model.config
    x = graph.embedding(ids, model.embed_tokens)
    if types is not None:
        x = graph.add("Add", x, graph.embedding(types, model.embed_types))
    positions = count(graph, graph.constant(np.int64(0)), length(graph, ids, 1))
    angles = None
    if model.embed_positions is not None:
        x = graph.add("Add", x, graph.embedding(positions, model.embed_positions))
    else:
        width = config.hidden_size // config.num_attention_heads
        angles = rotary_angles(graph, positions, width, config.rope_theta, batched=False)
    x = layer_norm(graph, x, model.embed_norm)
    bias = padding_bias(graph, mask)
    for layer in model.layers:
        read = layer_norm(graph, x, layer.attention_norm) if config.pre_norm else x
        part = layer.attention
        q, k, v = projections(graph, read, part.heads, part.q_proj, part.k_proj, part.v_proj)
        if angles is not None:
            q, k = rotate(graph, q, angles), rotate(graph, k, angles)
        x = graph.add("Add", x, attention(graph, q, k, v, bias, part))
        x = x if config.pre_norm else layer_norm(graph, x, layer.attention_norm)
        read = layer_norm(graph, x, layer.mlp_norm) if config.pre_norm else x
        x = graph.add("Add", x, feed_forward(graph, read, layer.mlp, config.hidden_act))
        x = x if config.pre_norm else layer_norm(graph, x, layer.mlp_norm)
    return x if model.final_norm is None else layer_norm(graph, x, model.final_norm)


def _pooled(graph: Graph, model: EncoderModel, x: str, mask: str) -> str:
    """BERT's pooler on each row's first token [batch, width]."""
    first = graph.add("ArgMax", mask, axis=1, keepdims=0)  # [batch]
    index = graph.add("Unsqueeze", first, graph.integers(1))  # [batch, 1]
    vector = graph.add("GatherND", x, index, batch_dims=1)  # [batch, width]
    return graph.add("Tanh", graph.linear(vector, model.pooler.dense))


def _mean(graph: Graph, x: str, mask: str) -> str:
    """x [batch, time, width] -> its mean over the positions that are not padding [batch, width]."""
    real = graph.add("Unsqueeze", graph.floats(mask), graph.integers(2))
    total = graph.add("ReduceSum", graph.add("Mul", x, real), graph.integers(1), keepdims=0)
    number = graph.add("ReduceSum", real, graph.integers(1), keepdims=0)
    return graph.add("Div", total, graph.add("Max", number, graph.constant(np.float32(1))))


def _head(graph: Graph, model: Any, body: EncoderModel, x: str, mask: str, ids: str) -> None:
    config, rows = model.config, ("batch", "time")
    if isinstance(model, EncoderModel):
        graph.output("last_hidden_state", x, float, (*rows, config.hidden_size))
        if body.pooler is not None:
            graph.output("pooler_output", _pooled(graph, body, x, mask), float, ("batch", config.hidden_size))
        return
    if isinstance(model, (EncoderForMaskedLM, EncoderForPreTraining)):
        transform = model.transform
        y = activation(graph, graph.linear(x, transform.dense), config.hidden_act)
        logits = graph.linear(layer_norm(graph, y, transform.norm), model.lm_head)
        name = "logits" if isinstance(model, EncoderForMaskedLM) else "prediction_logits"
        graph.output(name, logits, float, (*rows, config.vocab_size))
        if isinstance(model, EncoderForPreTraining):
            relation = graph.linear(_pooled(graph, body, x, mask), model.next_sentence)
            graph.output("seq_relationship_logits", relation, float, ("batch", 2))
        return
    if isinstance(model, EncoderForTokenClassification):
        graph.output("logits", graph.linear(x, model.classifier), float, (*rows, config.num_labels))
        return
    if isinstance(model, EncoderForQuestionAnswering):
        sides = graph.add("Split", graph.linear(x, model.qa_outputs), outputs=2, axis=2, num_outputs=2)
        for name, side in zip(("start_logits", "end_logits"), sides, strict=True):
            graph.output(name, graph.add("Squeeze", side, graph.integers(2)), float, rows)
        return
    pooled = _mean(graph, x, mask) if body.pooler is None else _pooled(graph, body, x, mask)
    logits = graph.linear(pooled, model.classifier)
    if isinstance(model, EncoderForSequenceClassification):
        graph.output("logits", logits, float, ("batch", config.num_labels))
        return
    # multiple choice: [batch * choices, 1] -> [batch, choices]
    shape = graph.add("Slice", graph.add("Shape", ids), *map(graph.integers, (0, 2)))
    graph.output("logits", graph.add("Reshape", logits, shape), float, ("batch", "choices"))
