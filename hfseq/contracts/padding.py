"""Contract 3: a row's output depends on neither its padding nor its neighbours.

What usually breaks it: a mask that reaches the attention but not a pooling or a normalisation over time, final states
taken after the padding, bidirectional layers that read the padding first.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from .cases import Case
from .comparing import gradients, require_close, require_close_gradients
from .kinds import Batch, Row
from .violation import run_checks

LENGTHS = [6, 3, 1, 5]


def contract(case: Case) -> None:
    checks = [padded_on_the_right, whatever_the_padding_holds, every_hidden_state, other_neighbours]
    if case.kind.labels:
        checks += [loss_padded_on_the_right, loss_and_gradients_in_training]
    if "left" in case.sides:
        checks += [padded_on_the_left, *([loss_padded_on_the_left] if case.kind.labels else [])]
    run_checks(case, *checks)


def _require_rows_alone(
    case: Case, what: str, model: PreTrainedModel, rows: list[Row], batch: Batch, tolerance
) -> None:
    together = case.outputs(model, batch)
    for number, row in enumerate(rows):
        alone = case.outputs(model, case.alone(row, model.config))
        for name, axis in case.kind.outputs.items():
            got, expected = together[name][number], alone[name][0]
            if axis is not None:
                got = got[batch[case.kind.masks[axis]][number].bool()]
            require_close(
                f"{what}: {name} of row {number} ({LENGTHS[number]} tokens)", got, expected, tolerance
            )


def _padded(case: Case, side: str, **options) -> None:
    for model, precision in case.models():
        rows = case.rows(model.config, LENGTHS)
        for extra in (0, 3):
            batch = case.batch(rows, model.config, side=side, extra=extra, **options)
            what = f"padded on the {side}, {extra} columns more than needed"
            _require_rows_alone(case, what, model, rows, batch, precision.tolerance)


def padded_on_the_right(case: Case) -> None:
    _padded(case, "right")


def padded_on_the_left(case: Case) -> None:
    _padded(case, "left")


def whatever_the_padding_holds(case: Case) -> None:
    for side in case.sides:
        _padded(case, side, junk=1)


def every_hidden_state(case: Case) -> None:
    for model, precision in case.models():
        rows = case.rows(model.config, LENGTHS)
        for side in case.sides:
            batch = case.batch(rows, model.config, side=side)
            together = _hidden_states(case, model, batch)
            for number, row in enumerate(rows):
                alone = _hidden_states(case, model, case.alone(row, model.config))
                for name, (axis, layers) in together.items():
                    real = batch[case.kind.masks[axis]][number].bool()
                    for layer, (got, expected) in enumerate(zip(layers, alone[name][1], strict=True)):
                        what = f"padded on the {side}: {name}[{layer}] of row {number}"
                        if case.kind.texts is not None:  # [batch x texts, ...]
                            got = got.unflatten(0, (-1, case.kind.texts))
                            expected = expected.flatten(0, 1).unsqueeze(0)
                        require_close(what, got[number][real], expected[0], precision.tolerance)


def _hidden_states(case: Case, model: PreTrainedModel, batch: Batch) -> dict:
    with torch.no_grad():
        result = model(**case.without_labels(batch), output_hidden_states=True)
    if case.kind.is_encoder_decoder:
        names = {"encoder_hidden_states": "source", "decoder_hidden_states": "target"}
    else:
        names = {"hidden_states": "tokens"}
    return {name: (axis, result[name]) for name, axis in names.items()}


def other_neighbours(case: Case) -> None:
    """The same row with different company, in another place of the batch."""
    for model, precision in case.models():
        rows = case.rows(model.config, LENGTHS)
        others = case.rows(model.config, [2, 9, 4], seed=1)
        for side in case.sides:
            batch = case.batch([others[0], *rows[::-1], *others[1:]], model.config, side=side)
            outputs = case.outputs(model, batch)
            reference = case.outputs(model, case.batch(rows, model.config, side=side))
            for number in range(len(rows)):
                for name, axis in case.kind.outputs.items():
                    place = len(rows) - number
                    got, expected = outputs[name][place], reference[name][number]
                    if axis is not None:
                        mask = case.batch(rows, model.config, side=side)[case.kind.masks[axis]]
                        got = got[batch[case.kind.masks[axis]][place].bool()]
                        expected = expected[mask[number].bool()]
                    what = f"padded on the {side}: {name} of row {number} among others"
                    require_close(what, got, expected, precision.tolerance)


def _loss(case: Case, side: str) -> None:
    for model, precision in case.models():
        rows = case.rows(model.config, LENGTHS)
        batch = case.batch(rows, model.config, side=side, extra=2)
        with torch.no_grad():
            together = model(**batch).loss
            counts = [case.kind.count_labels(case.alone(row, model.config)) for row in rows]
            alone = [
                model(**case.alone(row, model.config)).loss * n
                for row, n in zip(rows, counts, strict=True)
                if n
            ]
        expected = torch.stack(alone).sum() / sum(counts)
        require_close(f"evaluation loss, padded on the {side}", together, expected, precision.tolerance)


def loss_padded_on_the_right(case: Case) -> None:
    _loss(case, "right")


def loss_padded_on_the_left(case: Case) -> None:
    """The first token of a left-padded row has no context: no position may be scored on it."""
    _loss(case, "left")


def loss_and_gradients_in_training(case: Case) -> None:
    """A padded batch has the loss and the gradients of its rows one by one, each weighted by its labels.

    Without `num_items_in_batch`: a model that ignores it fails contract 6, not this one.
    """
    for model, precision in case.models():
        model.train()
        rows = case.rows(model.config, LENGTHS)
        singles = [case.alone(row, model.config) for row in rows]
        counts = [case.kind.count_labels(single) for single in singles]
        counted = [(single, n) for single, n in zip(singles, counts, strict=True) if n]
        expected = torch.stack([model(**single).loss * n for single, n in counted]).sum() / sum(counts)
        expected.backward()
        reference = gradients(model)
        for side in case.sides:
            loss = model(**case.batch(rows, model.config, side=side, extra=2)).loss
            loss.backward()
            what = f"training, padded on the {side}"
            require_close(f"{what}: loss", loss, expected, precision.tolerance)
            require_close_gradients(what, gradients(model), reference, precision.tolerance)
