"""Cross-entropy over a vocabulary without keeping the logits.

A language model's largest tensor is its logits: batch x time x vocabulary floats, three times over in
training (logits, log-softmax, gradient). `linear_cross_entropy` computes the projection, the loss *and* its
gradients chunk by chunk in the forward pass, so that only one chunk of logits ever exists; backward only
scales what is already there.

All losses here are sums divided by a count that the caller gives: under gradient accumulation Trainer passes
`num_items_in_batch`, the number of labels in the whole update, and no longer divides by the steps itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig

from .plain_layers import is_plain

IGNORE_INDEX = -100

# Logits per chunk. The matrix products want many rows (64 GFLOP/s with 256 rows of 16k words, 41 with 64, of 90 at
# best), and one buffer serves all chunks: 4M floats (16 MB) is the best or near it from 8k to 32k words on a CPU.
CPU_CHUNK_ELEMENTS = 1 << 22
# Of 16 bits: the units that multiply them want more rows still.
CPU_HALF_CHUNK_ELEMENTS = 1 << 23
# What is widened at a time from 16 bits, so that it lies in the processor's cache: 5,120 rows of 448 units and 8,192
# words in bfloat16 on one core took 0.33 s with whole chunks in float32, 0.22 s so.
CPU_BLOCK_ELEMENTS = 1 << 18
# On a GPU launches cost more than cache misses: 64M elements are 128 MB in bf16.
GPU_CHUNK_ELEMENTS = 1 << 26


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, label_smoothing):
        rows, vocabulary = hidden.shape[0], weight.shape[0]
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        chunk, block = _rows_at_once(hidden, vocabulary, wide)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        needs_gradient = needs_hidden or needs_weight or needs_bias
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        grad_bias = torch.zeros(vocabulary, dtype=wide, device=weight.device) if needs_bias else None
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        # One buffer for all chunks: fresh blocks of this size come from the system page by page, which takes as long
        # as the softmax itself.
        buffer = hidden.new_empty(chunk, vocabulary)

        for start in range(0, rows, chunk):
            h = hidden[start : start + chunk]
            gradient = logits = torch.mm(h, weight.t(), out=buffer[: len(h)])  # [chunk, vocabulary]
            for first in range(0, len(h), block):
                part = logits[first : first + block]
                if bias is not None:
                    part += bias
                y = labels[start + first : start + first + len(part)]
                # Not in place: the compiler of torch 2.11 gives a function whose output was changed in place no
                # gradient.
                partial, of_logits = _loss_and_gradient(part, y, label_smoothing, wide, needs_gradient)
                loss = loss + partial
                if not needs_gradient:
                    continue
                if grad_bias is not None:
                    grad_bias += of_logits.sum(0)
                if block < chunk:
                    part.copy_(of_logits)
                else:
                    gradient = of_logits.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, weight, out=grad_hidden[start : start + chunk])
            if grad_weight is not None:
                if wide == hidden.dtype:
                    grad_weight.addmm_(gradient.t(), h)
                else:
                    grad_weight += gradient.t() @ h

        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss):
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        # In place: another block as large as the weight would cost more than the product. Autograd frees what it saved
        # before it accumulates, so the block itself becomes the gradient; a second backward is refused by its version.
        if grad_hidden is not None:
            grad_hidden = grad_hidden.mul_(grad_loss)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(grad_loss).to(weight_dtype)
        if grad_bias is not None:
            grad_bias = grad_bias.mul_(grad_loss).to(bias_dtype)
        return grad_hidden, grad_weight, grad_bias, None, None


def _rows_at_once(hidden: torch.Tensor, vocabulary: int, wide: torch.dtype) -> tuple[int, int]:
    """Of a chunk of logits, and of a block whose softmax is computed at once."""
    if hidden.is_cuda:
        elements = block_elements = GPU_CHUNK_ELEMENTS
    elif hidden.dtype == wide or torch.compiler.is_compiling():  # the compiler fuses what a block is for
        elements = block_elements = CPU_CHUNK_ELEMENTS
    else:
        elements, block_elements = CPU_HALF_CHUNK_ELEMENTS, CPU_BLOCK_ELEMENTS
    chunk = max(1, min(hidden.shape[0], elements // vocabulary))
    return chunk, max(1, min(chunk, block_elements // vocabulary))


def _loss_and_gradient(
    logits: torch.Tensor,
    labels: torch.Tensor,
    label_smoothing: float,
    wide: torch.dtype,
    needs_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed loss of logits [rows, vocabulary], which may be overwritten, and its gradient in `wide`: softmax minus
    the target distribution, zero in rows without a label."""
    vocabulary = logits.shape[1]
    counted = labels != IGNORE_INDEX
    target = torch.where(counted, labels, 0).unsqueeze(1)
    if wide == logits.dtype and not logits.is_cuda:  # only the CPU kernel is known to allow it in place
        log_probabilities = torch.log_softmax(logits, dim=1, out=logits)
    else:
        log_probabilities = torch.log_softmax(logits, dim=1, dtype=wide)
    nll = -log_probabilities.gather(1, target).squeeze(1)
    if label_smoothing:
        nll = (1 - label_smoothing) * nll - label_smoothing / vocabulary * log_probabilities.sum(1)
    loss = torch.where(counted, nll, 0).sum()
    if not needs_gradient:
        return loss, log_probabilities
    gradient = log_probabilities.exp_()
    if label_smoothing:
        gradient -= label_smoothing / vocabulary
    gradient.scatter_add_(1, target, torch.full_like(nll, label_smoothing - 1).unsqueeze(1))
    gradient *= counted.unsqueeze(1)
    return loss, gradient


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Summed cross-entropy of a linear output layer, without materialising its logits.

    Args:
        hidden: [rows, width], any strides.
        weight: [vocabulary, width]; bias: [vocabulary] or None.
        labels: [rows], -100 where a row does not count.
        label_smoothing: share of each target spread evenly over the vocabulary (Szegedy et al. 2016).

    Returns:
        The sum over counted rows, a float32 (float64 for float64 input) scalar; 0 where no row counts.
    """  # fmt: skip
    device_type = hidden.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast(device_type, enabled=False):
        return _LinearCrossEntropy.apply(hidden, weight, bias, labels, label_smoothing)


def output_layer_loss(
    layer: nn.Linear, hidden: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """`linear_cross_entropy` of a model's output layer; one that is not plain (adapters, hooks) is called.

    Args:
        layer: [rows, width] -> [rows, vocabulary].
        hidden, labels, label_smoothing: as there.
    """
    if is_plain(layer):
        return linear_cross_entropy(hidden, layer.weight, layer.bias, labels, label_smoothing)
    return cross_entropy(layer(hidden), labels, label_smoothing)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Summed cross-entropy of logits [..., vocabulary] against labels [...]; 0 where no label counts."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return F.cross_entropy(
        logits.flatten(0, -2),
        labels.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="sum",
        label_smoothing=label_smoothing,
    )


def count_labels(labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | int:
    """What a summed loss is divided by: Trainer's count of the whole update, else this batch's labels (at least 1)."""
    if num_items_in_batch is None:
        return (labels != IGNORE_INDEX).sum().clamp(min=1)
    if isinstance(num_items_in_batch, torch.Tensor):
        return num_items_in_batch.to(labels.device).clamp(min=1)
    return max(num_items_in_batch, 1)


def check_labels(name: str, labels: torch.Tensor | None, shape: torch.Size) -> None:
    """Raises ValueError unless labels, where there are any, have the shape."""
    if labels is not None and labels.shape != shape:
        raise ValueError(f"{name} must be {list(shape)} like the input, not {list(labels.shape)}.")


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    config: PreTrainedConfig,
    num_items_in_batch: torch.Tensor | int | None,
    training: bool,
) -> torch.Tensor:
    """The loss of a sequence classifier, by `config.problem_type`, or by the labels where that is None.

    Args:
        logits: [batch, num_labels].
        labels: single_label_classification: class numbers [batch], -100 does not count;
            multi_label_classification: 0 or 1 [batch, num_labels], binary cross-entropy;
            regression: numbers [batch] (one output) or [batch, num_labels], squared error.
        config: num_labels, problem_type, label_smoothing (single label, in training).
        num_items_in_batch: entries of `labels` in the whole update, as Trainer counts them.

    Raises:
        ValueError: labels of the wrong type or shape for the problem.
    """
    whole = labels.dtype in (torch.int64, torch.int32)
    problem = config.problem_type
    if problem is None:
        one = "single_label_classification" if whole else "multi_label_classification"
        problem = "regression" if config.num_labels == 1 else one
    batch, outputs = logits.shape
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if problem == "single_label_classification":
        if not whole or labels.shape not in ((batch,), (batch, 1)):
            raise ValueError(
                f"{problem} takes class numbers (int64) [{batch}], not {labels.dtype} {list(labels.shape)}. "
                "For several labels per text set config.problem_type to multi_label_classification."
            )
        smoothing = getattr(config, "label_smoothing", 0.0) if training else 0.0
        labels = labels.reshape(-1).long()
        return cross_entropy(wide, labels, smoothing) / count_labels(labels, num_items_in_batch)
    expected = ((batch, outputs),) if problem.startswith("multi") or outputs > 1 else ((batch,), (batch, 1))
    if labels.shape not in expected:
        raise ValueError(f"{problem} takes labels {list(expected[0])}, not {list(labels.shape)}.")
    labels = labels.reshape(batch, -1).to(wide.dtype)
    if problem == "multi_label_classification":
        total = F.binary_cross_entropy_with_logits(wide, labels, reduction="sum")
    elif problem == "regression":
        total = F.mse_loss(wide, labels, reduction="sum")
    else:
        raise ValueError(
            f"config.problem_type {problem!r} is none of single_label_classification, multi_label_classification, "
            "regression."
        )
    return total / count_labels(labels, num_items_in_batch)


def next_token_labels(labels: torch.Tensor) -> torch.Tensor:
    """Labels [batch, time] moved one to the left, so that position t is scored against token t + 1."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)


def activation_penalty(
    dropped: torch.Tensor, raw: torch.Tensor, labels: torch.Tensor, alpha: float, beta: float
) -> torch.Tensor:
    """AWD-LSTM's activation (AR) and temporal activation (TAR) regularisation (Merity et al. 2017), as a sum.

    Args:
        dropped: outputs of the last layer after dropout [batch, time, hidden], for AR.
        raw: the same before dropout, for TAR.
        labels: [batch, time]; a row weighs as much as it has labels, so that the sum, divided by the update's
            label count, does not depend on how the update was cut into micro-batches.
    """
    counted = (labels != IGNORE_INDEX).to(raw.dtype)  # [batch, time]
    penalty = raw.new_zeros(())
    if alpha:
        penalty = penalty + alpha * (dropped.square().mean(-1) * counted).sum()
    if beta:
        pairs = counted[:, 1:] * counted[:, :-1]
        change = ((raw[:, 1:] - raw[:, :-1]).square().mean(-1) * pairs).sum(1)
        penalty = penalty + beta * (change / pairs.sum(1).clamp(min=1) * counted.sum(1)).sum()
    return penalty
