"""Contract 6: the loss is a mean over what it counts, however an update is cut into micro-batches.

Trainer hands `num_items_in_batch`, the number of labels of the whole update, to the model and divides by nothing
itself. A model that takes its own mean is off by a factor (transformers#37766, #34191), one that adds a mean of
something else (a regulariser) is off by the number of accumulation steps.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import PreTrainedModel

from .cases import Case
from .comparing import FLOAT64, gradients, require_close, require_close_gradients
from .kinds import IGNORE_INDEX, Batch
from .training_runs import losses, trainer
from .violation import ContractViolation, require, run_checks

LENGTHS = [5, 2, 7, 4, 3, 6, 1, 8]


def contract(case: Case) -> None:
    run_checks(
        case,
        num_items_in_batch,
        micro_batches_add_up,
        loss_of_training_is_loss_of_evaluation,
        cross_entropy_by_hand,
        shifted_labels,
        targets_made_of_labels,
        nothing_to_count,
        sixteen_rows_are_four_times_four,
        streams_sixteen_are_four_times_four,
        label_smoothing,
        label_smoothing_by_trainer,
    )


def _batch(case: Case, model: PreTrainedModel) -> Batch:
    return case.batch(case.rows(model.config, LENGTHS), model.config)


def num_items_in_batch(case: Case) -> None:
    """A sum divided by the count that is given, as a tensor or a number; by the batch's own count if none is."""
    for model, precision in case.models():
        batch = _batch(case, model)
        count = case.kind.count_labels(batch)
        for training in (True, False):
            model.train(training)
            own = model(**batch).loss
            for given in (count * 3, torch.tensor(count * 3)):
                loss = model(**batch, num_items_in_batch=given).loss
                mode = "training" if training else "evaluation"
                what = f"{mode}: loss for num_items_in_batch={given!r} ({count} labels in the batch) times 3"
                require_close(what, loss * 3, own, precision.tolerance)


def micro_batches_add_up(case: Case) -> None:
    for model, precision in case.models():
        model.train()
        rows = case.rows(model.config, LENGTHS)
        whole = case.batch(rows, model.config)
        count = case.kind.count_labels(whole)
        loss = model(**whole, num_items_in_batch=count).loss
        loss.backward()
        expected = gradients(model)
        total = 0.0
        for part in (rows[:1], rows[1:4], rows[4:]):
            piece = model(**case.batch(part, model.config), num_items_in_batch=count).loss
            piece.backward()
            total = total + piece.detach()
        require_close("sum of the losses of three micro-batches", total, loss, precision.tolerance)
        require_close_gradients("three micro-batches", gradients(model), expected, precision.tolerance)


def loss_of_training_is_loss_of_evaluation(case: Case) -> None:
    """Without dropout and auxiliary terms; the two modes may well compute it in different ways."""
    for model, precision in case.models(**case.plain):
        batch = _batch(case, model)
        with torch.no_grad():
            expected = model.eval()(**batch).loss
        require_close("loss in training mode", model.train()(**batch).loss, expected, precision.tolerance)


def loss_by_hand(case: Case, model: PreTrainedModel, batch: Batch, epsilon: float = 0.0) -> torch.Tensor:
    """The loss, in the most obvious way, of what the model says without labels."""
    return case.kind.loss(case.outputs(model, batch), batch, epsilon)


def cross_entropy_by_hand(case: Case) -> None:
    for model, precision in case.models(**case.plain):
        batch = _batch(case, model)
        expected = loss_by_hand(case, model, batch)
        with torch.no_grad():
            result = model(**batch)
        require_close(
            "loss against the cross-entropy of the logits", result.loss, expected, precision.tolerance
        )
        without = case.outputs(model, batch)
        for name in case.kind.outputs:
            require(result[name] is not None, f"evaluation with labels returned no {name}")
            require_close(f"{name} with labels", result[name], without[name], precision.tolerance)


def shifted_labels(case: Case) -> None:
    """`shift_labels` are labels that have been moved already; their last one may lie beyond the row."""
    if not (case.kind.shifts and case.takes_shift_labels):
        return
    for model, precision in case.models():
        batch = case.batch(case.rows(model.config, [8, 8, 8]), model.config)
        for training in (True, False):
            model.train(training)
            inputs = {"input_ids": batch["input_ids"][:, :-1], **case.timeless(batch)}
            expected = model(**{**inputs, "input_ids": batch["input_ids"]}, labels=batch["labels"]).loss
            for extra in ({}, {"labels": batch["labels"][:, :-1]}):
                got = model(**inputs, shift_labels=batch["labels"][:, 1:], **extra).loss
                require_close(
                    f"loss of shift_labels with {sorted(extra)}", got, expected, precision.tolerance
                )


def targets_made_of_labels(case: Case) -> None:
    """Without decoder_input_ids the targets are the labels, moved right behind decoder_start_token_id."""
    if not case.kind.is_encoder_decoder:
        return
    target = {case.kind.ids["target"], case.kind.masks["target"]}
    for model, precision in case.models():
        batch = _batch(case, model)
        alone = {name: value for name, value in batch.items() if name not in target}
        for training in (True, False):
            model.train(training)
            mode = "training" if training else "evaluation"
            require_close(
                f"{mode}: loss of labels alone", model(**alone).loss, model(**batch).loss, precision.tolerance
            )


def nothing_to_count(case: Case) -> None:
    """Rows without a label have loss 0 and no gradient, never NaN, and do not disturb others."""
    for model, precision in case.models(**case.plain):
        batch = _batch(case, model)
        empty = {**batch, **{n: torch.full_like(batch[n], IGNORE_INDEX) for n in case.kind.labels}}
        for training in (True, False):
            model.train(training)
            for options in ({}, {"num_items_in_batch": torch.tensor(7)}):
                loss = model(**empty, **options).loss
                require(
                    float(loss.detach()) == 0.0,
                    f"loss without a single label is {float(loss.detach())} with {options}",
                )
                loss.backward()
                for name, gradient in gradients(model).items():
                    require(
                        bool((gradient == 0).all()), f"gradient of {name} without a single label is not 0"
                    )
        model.train()
        rows = case.rows(model.config, LENGTHS)
        count = case.kind.count_labels(batch)
        with_empty = {name: torch.cat([value, empty[name]]) for name, value in batch.items()}
        loss = model(**with_empty).loss
        expected = model(**case.batch(rows, model.config), num_items_in_batch=count).loss
        require_close("loss with rows that have no label", loss, expected, precision.tolerance)


def _train(case: Case, rows, **options) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = case.model(FLOAT64)
    if callable(rows):
        rows, collator = rows(model.config)
        options["data_collator"] = collator
    with tempfile.TemporaryDirectory() as directory:
        made = trainer(case, model, rows, directory, **options)
        made.train()
    return losses(made), {name: p.detach() for name, p in model.named_parameters()}


def _require_same_runs(case: Case, runs: dict[str, tuple]) -> None:
    (first, (expected, weights)), *others = runs.items()
    start = dict(case.model(FLOAT64).named_parameters())
    still = [name for name, value in weights.items() if torch.equal(value, start[name])]
    # Some stand still rightly: attention's key biases cancel in the softmax.
    require(len(still) < len(weights) / 2, f"vacuous: training did not move {still}")
    for name, (got, got_weights) in others:
        # Logged losses went through float32 sums and rounding.
        require_close(f"losses logged by {name} against {first}", got, expected, 1e-4)
        for parameter, value in weights.items():
            require_close(f"{parameter} trained {name} against {first}", got_weights[parameter], value, 1e-9)


def sixteen_rows_are_four_times_four(case: Case) -> None:
    """Through the stock Trainer: unequal rows, so that the micro-batches count different numbers of labels."""
    rows = case.rows(case.config(), (LENGTHS + LENGTHS[::-1]) * 2)
    shared = {"max_steps": 2, "train_sampling_strategy": "sequential"}
    _require_same_runs(
        case,
        {
            f"{size} x {16 // size}": _train(
                case, rows, per_device_train_batch_size=size, gradient_accumulation_steps=16 // size, **shared
            )
            for size in (16, 4)
        },
    )


def stream_plan(case: Case, streams: int, segment_length: int, epochs: int = 1):
    """config -> (plan over random tokens in contiguous streams, collator)."""
    from ..data import StreamCollator, StreamPlan  # data needs numpy, which models do not

    def make(config):
        tokens = random_tokens(config, streams * (2 * segment_length + 1))
        plan = StreamPlan(tokens, streams=streams, segment_length=segment_length, epochs=epochs)
        return plan, StreamCollator()

    return make


def random_tokens(config, count: int):
    """A little corpus of ordinary ids, as a token array holds them."""
    from .kinds import random_ids

    return random_ids(config, count, torch.Generator().manual_seed(0)).numpy().astype("uint16")


def streams_sixteen_are_four_times_four(case: Case) -> None:
    """The same for contiguous streams with carried state."""
    if not case.streams:
        return
    make = stream_plan(case, streams=16, segment_length=5, epochs=2)
    shared = {"max_steps": 4, "train_sampling_strategy": "sequential"}
    _require_same_runs(
        case,
        {
            f"{size} x {16 // size} streams": _train(
                case, make, per_device_train_batch_size=size, gradient_accumulation_steps=16 // size, **shared
            )
            for size in (16, 4)
        },
    )


def label_smoothing(case: Case) -> None:
    """`config.label_smoothing` acts in training and only there."""
    if not hasattr(case.config(), "label_smoothing"):
        return
    for model, precision in case.models(label_smoothing=0.2, **case.plain):
        batch = _batch(case, model)
        plain, smoothed = (loss_by_hand(case, model, batch, epsilon) for epsilon in (0.0, 0.2))
        require_close("evaluation loss, label_smoothing=0.2", model(**batch).loss, plain, precision.tolerance)
        loss = model.train()(**batch).loss
        require_close("training loss, label_smoothing=0.2", loss, smoothed, precision.tolerance)


def label_smoothing_by_trainer(case: Case) -> None:
    """Trainer's `label_smoothing_factor` gives the same value (the slow way); never a wrong one.

    Trainer shifts the labels only for class names that it knows. Its sum over the vocabulary is in float32.
    """
    model = case.model(FLOAT64, **case.plain).train()
    rows = case.rows(model.config, LENGTHS)
    batch = case.batch(rows, model.config)
    if "labels" not in batch or batch["labels"].ndim == 1:
        return  # Trainer smooths these by the same rule for every model, or not at all
    count = torch.tensor(case.kind.count_labels(batch))
    with tempfile.TemporaryDirectory() as directory:
        made = trainer(case, model, rows, directory, label_smoothing_factor=0.2)
        if not case.kind.smoothed_by_trainer:
            try:
                got = made.compute_loss(model, dict(batch), num_items_in_batch=count)
            except (KeyError, TypeError, ValueError):
                return  # refused: Trainer would lose the other labels' share
            raise ContractViolation(
                f"Trainer smoothed a loss of {case.kind.labels} to {float(got.detach()):.4f}, which cannot be right"
            )
        got = made.compute_loss(model, dict(batch), num_items_in_batch=count)
    expected = loss_by_hand(case, model, batch, 0.2)
    require_close("loss by Trainer(label_smoothing_factor=0.2)", got, expected, 1e-6)
    if case.streams:
        shifted = {
            "input_ids": batch["input_ids"],
            "labels": batch["labels"],
            "shift_labels": batch["labels"],
        }
        try:
            got = made.compute_loss(model, shifted, num_items_in_batch=count)
        except (KeyError, TypeError, ValueError):
            return  # refused: Trainer takes the labels away and would shift once too often
        raise ContractViolation(
            f"Trainer smoothed shift_labels to {float(got.detach()):.4f}, which cannot be right"
        )
