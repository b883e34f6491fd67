"""Contract 5: nothing sees the future. Changing position t changes nothing before t, in evaluation and in training.

Training mode counts: a normalisation over the batch and time (published for some convolutional models) leaks only
there, and the leak looks like a wonderfully low training loss.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from .cases import Case
from .comparing import FLOAT64, require_close
from .kinds import IGNORE_INDEX, Batch, random_ids
from .violation import require, run_checks

TIME = 7


def contract(case: Case) -> None:
    run_checks(
        case, evaluation_mode, training_mode, training_mode_with_dropout, no_gradient_from_the_past_to_the_future,
        the_loss_scores_the_next_token,
    )  # fmt: skip


def _outputs(case: Case, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    torch.manual_seed(0)  # the same dropout masks in every call
    (name,) = case.kind.outputs
    return case.outputs(model, batch)[name]


def _require_causal(case: Case, model: PreTrainedModel, tolerance: float) -> None:
    axis = case.kind.causal_axis
    ids_name = case.kind.ids[axis]
    batch = case.batch(case.rows(model.config, [TIME] * 2), model.config)
    time = batch[ids_name].shape[1]
    reference = _outputs(case, model, batch)
    for t in range(1, time):
        changed = {**batch, ids_name: batch[ids_name].clone()}
        noise = random_ids(model.config, 2 * (time - t), torch.Generator().manual_seed(t)).view(2, -1)
        # Never the token that stands there.
        other = torch.where(noise == batch[ids_name][:, t:], noise.roll(1, 1), noise)
        changed[ids_name][:, t:] = other
        got = _outputs(case, model, changed)
        require_close(
            f"positions before {t} after a change of {t} and later", got[:, :t], reference[:, :t], tolerance
        )
        if not torch.equal(changed[ids_name][:, t], batch[ids_name][:, t]):
            moved = float((got[:, t] - reference[:, t]).abs().max())
            require(moved > 0, f"vacuous: changing token {t} does not change the output there")


def evaluation_mode(case: Case) -> None:
    for model, precision in case.models():
        _require_causal(case, model, precision.tolerance)


def training_mode(case: Case) -> None:
    for model, precision in case.models():
        _require_causal(case, model.train(), precision.tolerance)


def training_mode_with_dropout(case: Case) -> None:
    model = case.model(FLOAT64, dropout=True).train()
    # Dropout of whole words depends on the ids themselves, not on time.
    _require_causal(case, model, FLOAT64.tolerance)


def no_gradient_from_the_past_to_the_future(case: Case) -> None:
    """The derivative of output t by the embedding at a later position is zero, exactly."""
    model = case.model(FLOAT64)
    axis = case.kind.causal_axis
    ids_name = case.kind.ids[axis]
    embeds_name = ids_name.replace("input_ids", "inputs_embeds")
    batch = case.without_labels(case.batch(case.rows(model.config, [TIME]), model.config))
    ids = batch.pop(ids_name)
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_(True)
    (name,) = case.kind.outputs
    output = model(**batch, **{embeds_name: embeds})[name]
    for t in range(output.shape[1]):
        # A random direction: a sum over normalised outputs could cancel.
        direction = torch.randn(output.shape[-1], generator=torch.Generator().manual_seed(t)).to(output)
        (gradient,) = torch.autograd.grad(output[0, t] @ direction, embeds, retain_graph=True)
        future = float(gradient[0, t + 1 :].abs().max()) if t + 1 < gradient.shape[1] else 0.0
        require(future == 0, f"output {t} has a gradient of {future:.1e} in the embeddings after it")
        require(
            float(gradient[0, : t + 1].abs().max()) > 0, f"vacuous: output {t} does not depend on its past"
        )


def the_loss_scores_the_next_token(case: Case) -> None:
    """The gradient of the loss reaches no token that it scores from that token's own position or from later ones."""
    if not case.kind.shifts:
        return
    for training in (True, False):
        model = case.model(FLOAT64).train(training)
        batch = case.batch(case.rows(model.config, [TIME]), model.config)
        embeds = model.get_input_embeddings()(batch.pop("input_ids")).detach().requires_grad_(True)
        for t in range(1, TIME):
            labels = torch.full_like(batch["labels"], IGNORE_INDEX)
            labels[:, t] = batch["labels"][:, t]
            loss = model(**{**batch, "labels": labels}, inputs_embeds=embeds).loss
            (gradient,) = torch.autograd.grad(loss, embeds, allow_unused=True)
            leak = float(gradient[0, t:].abs().max())
            require(
                leak == 0, f"the loss of token {t} depends on token {t} or later ones (gradient {leak:.1e})"
            )
            require(
                float(gradient[0, :t].abs().max()) > 0, f"vacuous: the loss of token {t} ignores its past"
            )
