"""Contract 4: sequences packed into one row give what they give alone, in loss and in gradients, or are refused.

Packed rows arrive in several ways (`kinds.PACKED_FORMS`): positions that begin again without a mask (what
`DataCollatorWithFlattening` sends), `cu_seq_lens_q` (the same with lengths), `seq_idx`; pairs by positions or borders
of both sides. A model that does not keep the sequences apart must see, and refuse, each of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from .cases import Case
from .comparing import gradients, require_close, require_close_gradients
from .kinds import PACKED_FORMS, Batch, Row
from .violation import ContractViolation, require, run_checks

LENGTHS = [4, 1, 6, 3]
# Which examples share a row: all of them; or two rows of the same length, so that borders run through the batch.
LAYOUTS = ([[0, 1, 2, 3]], [[0, 3], [2, 1]])


def contract(case: Case) -> None:
    if case.packs:
        checks = [outputs_of_packed_rows, *([loss_and_gradients_of_packed_rows] if case.kind.labels else [])]
        run_checks(case, *checks)
    else:
        run_checks(case, packed_rows_are_refused)


def _packed(case: Case, rows: list[Row]) -> Iterator[tuple[str, list[int], Batch]]:
    """(what it is, order of the examples, batch) for each layout and each way to say where sequences begin."""
    for layout in LAYOUTS:
        order = [number for row in layout for number in row]
        parts = [case.kind.pack([rows[number] for number in row]) for row in layout]
        batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        lengths = torch.tensor([LENGTHS[number] for number in order])
        for form in case.packs:
            if case.kind.is_encoder_decoder:
                arguments = _pairs_in_form(form, [rows[number] for number in order], batch)
            else:
                arguments = _in_form(form, lengths, batch)
            if "use_cache" in inspect.signature(case.model_class.forward).parameters:
                arguments["use_cache"] = False  # with a cache, transformers does not look for packed rows
            yield f"{len(layout)} packed rows by {form}", order, arguments


def _in_form(form: str, lengths: torch.Tensor, batch: Batch) -> Batch:
    """The batch, its `position_ids` replaced by another way to say the same."""
    if form == "position_ids":
        return dict(batch)
    rest = {name: value for name, value in batch.items() if name != "position_ids"}
    if form == "seq_idx":
        numbers = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        return {**rest, "seq_idx": numbers.view_as(batch["position_ids"])}
    borders = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).to(torch.int32)
    longest = int(lengths.max())
    return {
        **rest, "cu_seq_lens_q": borders, "cu_seq_lens_k": borders,
        "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip


def _pairs_in_form(form: str, rows: list[Row], batch: Batch) -> Batch:
    """The same for pairs: two sets of positions, or two sets of borders."""
    if form == "position_ids":
        return dict(batch)
    arguments = {name: value for name, value in batch.items() if not name.endswith("position_ids")}
    for prefix in ("", "decoder_"):
        lengths = torch.tensor([len(row[f"{prefix}input_ids"]) for row in rows])
        borders = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).to(torch.int32)
        arguments |= {f"{prefix}cu_seq_lens": borders, f"{prefix}max_length": int(lengths.max())}
    return arguments


def _borderless(packed: Batch) -> Batch:
    hints = {*PACKED_FORMS, "cu_seq_lens_k", "max_length_q", "max_length_k"}
    hints |= {
        f"{prefix}{name}"
        for prefix in ("", "decoder_")
        for name in ("position_ids", "cu_seq_lens", "max_length")
    }
    return {name: value for name, value in packed.items() if name not in hints}


def outputs_of_packed_rows(case: Case) -> None:
    names = [name for name, axis in case.kind.outputs.items() if axis is not None]
    for model, precision in case.models():
        rows = case.rows(model.config, LENGTHS)
        alone = [case.outputs(model, case.alone(row, model.config)) for row in rows]
        for what, order, batch in _packed(case, rows):
            got, mixed = case.outputs(model, batch), case.outputs(model, _borderless(batch))
            for name in names:
                expected = torch.cat([alone[number][name][0] for number in order])
                require_close(f"{name} of {what}", got[name].flatten(0, 1), expected, precision.tolerance)
                # Vacuous if sequences do not matter to each other: as one long sequence they must.
                moved = float((mixed[name].flatten(0, 1) - expected).abs().max())
                require(
                    moved > 100 * precision.tolerance * float(expected.abs().max()),
                    f"vacuous: {what} give the same {name} without the borders of their sequences",
                )


def loss_and_gradients_of_packed_rows(case: Case) -> None:
    for model, precision in case.models():
        model.train()
        rows = case.rows(model.config, LENGTHS)
        total = sum(case.kind.count_labels(case.alone(row, model.config)) for row in rows)
        losses = [model(**case.alone(row, model.config), num_items_in_batch=total).loss for row in rows]
        expected = torch.stack(losses).sum()
        expected.backward()
        reference = gradients(model)
        for what, _, batch in _packed(case, rows):
            loss = model(**batch, num_items_in_batch=total).loss
            loss.backward()
            require_close(f"loss of {what}", loss, expected, precision.tolerance)
            require_close_gradients(what, gradients(model), reference, precision.tolerance)


def packed_rows_are_refused(case: Case) -> None:
    model = case.model()
    rows = case.rows(model.config, LENGTHS)
    for form in PACKED_FORMS:
        arguments = _joined(case, rows, form)
        for mode in ("training", "evaluation"):
            _require_refused(model.train(mode == "training"), f"{form} in {mode} mode", arguments)


def _joined(case: Case, rows: list[Row], form: str) -> Batch:
    """Ids one after the other, source and target alike, and where their sequences begin."""
    arguments: Batch = {}
    for name in case.kind.ids.values():
        lengths = torch.tensor([row[name].shape[-1] for row in rows])
        ids = torch.cat([row[name] for row in rows], dim=-1).unsqueeze(0)  # [1, time] or [1, texts, time]
        places = torch.cat([torch.arange(n) for n in lengths.tolist()]).expand_as(ids)
        hints = _in_form(form, lengths, {"position_ids": places[:, 0] if ids.ndim == 3 else places})
        if form == "position_ids":
            hints = {name.replace("input_ids", "position_ids"): places}
        arguments = {**hints, **arguments, name: ids}  # borders are those of the first ids
    return arguments


def _require_refused(model: PreTrainedModel, what: str, arguments: Batch) -> None:
    try:
        model(**arguments)
    except (ValueError, TypeError) as error:
        require("pack" in str(error), f"{what}: refused without saying that rows are packed: {error}")
    else:
        raise ContractViolation(f"{what} was accepted, though the class does not keep packed sequences apart")
