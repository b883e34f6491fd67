"""Contract 4: sequences packed into one row give what they give alone, in loss and in gradients, or are refused.

Packed rows arrive in two ways, and a model that does not keep the sequences apart must see both: positions that
begin again without a mask (what `DataCollatorWithFlattening` sends), and `cu_seq_lens_q` (the same with lengths).
"""

from __future__ import annotations

import inspect

import torch

from .cases import Case
from .comparing import gradients, require_close, require_close_gradients
from .violation import ContractViolation, require, run_checks

LENGTHS = [4, 1, 6, 3]


def contract(case: Case) -> None:
    if case.packs:
        run_checks(case, packed_equals_separate)
    else:
        run_checks(case, packed_rows_are_refused)


def packed_equals_separate(case: Case) -> None:
    for model, precision in case.models():
        model.train()
        rows = case.rows(model.config, LENGTHS)
        total = sum(case.kind.count_labels(case.alone(row, model.config)) for row in rows)
        losses = [model(**case.alone(row, model.config), num_items_in_batch=total).loss for row in rows]
        expected = torch.stack(losses).sum()
        expected.backward()
        reference = gradients(model)
        packed = case.kind.pack(rows)
        if "use_cache" in inspect.signature(case.model_class.forward).parameters:
            packed["use_cache"] = False  # with a cache, transformers does not look for packed rows
        loss = model(**packed, num_items_in_batch=total).loss
        loss.backward()
        require_close("loss of a packed row", loss, expected, precision.tolerance)
        require_close_gradients("a packed row", gradients(model), reference, precision.tolerance)
        # Vacuous if sequences do not matter to each other: as one long sequence they must.
        joined = {name: value for name, value in packed.items() if name != "position_ids"}
        with torch.no_grad():
            mixed = model(**joined, num_items_in_batch=total).loss
        require(
            abs(float((mixed - expected).detach())) > precision.tolerance * abs(float(expected.detach())),
            "vacuous: the row gives the same loss without the borders of its sequences",
        )


def packed_rows_are_refused(case: Case) -> None:
    model = case.model()
    rows = case.rows(model.config, LENGTHS)
    lengths = {axis: [len(row[name]) for row in rows] for axis, name in case.kind.ids.items()}
    ids = {name: torch.cat([row[name] for row in rows]).unsqueeze(0) for name in case.kind.ids.values()}
    own = next(iter(lengths.values()))
    borders = torch.tensor([0, *torch.tensor(own).cumsum(0).tolist()], dtype=torch.int32)
    restarting = {
        name.replace("input_ids", "position_ids"): torch.cat(
            [torch.arange(n) for n in lengths[axis]]
        ).unsqueeze(0)
        for axis, name in case.kind.ids.items()
    }
    longest = {"max_length_q": max(own), "max_length_k": max(own)}
    for what, arguments in (
        ("position_ids that begin again, without a mask", restarting),
        ("cu_seq_lens_q", {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, **longest}),
        (
            "seq_idx",
            {"seq_idx": torch.repeat_interleave(torch.arange(len(own)), torch.tensor(own)).unsqueeze(0)},
        ),
    ):
        for mode in ("training", "evaluation"):
            model.train(mode == "training")
            try:
                model(**ids, **arguments)
            except (ValueError, TypeError) as error:
                require("pack" in str(error), f"{what}: refused without saying that rows are packed: {error}")
            else:
                raise ContractViolation(
                    f"{what} was accepted in {mode} mode, though the class does not keep packed sequences apart"
                )
