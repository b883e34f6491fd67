"""Contract 11: bad input raises an error that names the value and the remedy.

What a tensor *contains* is checked on the CPU, by tokenizers, collators and scripts: a look at it in `forward` would
make the GPU wait. Here: shapes, arguments and configurations, and what must not turn into NaN.
"""

from __future__ import annotations

import os
import tempfile

import torch
from huggingface_hub.errors import StrictDataclassError

from .cases import BadInput, Case
from .comparing import FLOAT64
from .kinds import IGNORE_INDEX
from .training_runs import trainer
from .violation import ContractViolation, require, run_checks

# What a refusal may be; configs of transformers raise the last (it wraps the ValueError of a validator).
REFUSALS = (ValueError, TypeError, StrictDataclassError)
SHAPE = (3, 5)  # [rows, time] of the batches that are spoilt


def contract(case: Case) -> None:
    checks = [forward_arguments, unknown_ids_are_not_read, rows_of_padding_alone]
    if case.kind.labels:
        checks += [a_non_finite_loss_stops_the_run]
    run_checks(case, *checks)


def _ids_name(case: Case) -> str:
    return case.kind.ids.get("tokens") or case.kind.ids["source"]


def common_bad_inputs(case: Case) -> tuple[BadInput, ...]:
    """What every class refuses in `forward`."""
    ids, mask = _ids_name(case), case.kind.masks.get("tokens") or case.kind.masks["source"]

    def without(batch, *names):
        return {name: value for name, value in batch.items() if name not in names}

    def embeds(model, batch):
        return model.get_input_embeddings()(batch[ids])

    return (
        BadInput(
            "neither ids nor embeddings",
            lambda model, batch: model(**without(batch, ids)),
            ("input_ids", "inputs_embeds"),
        ),
        BadInput(
            "both ids and embeddings",
            lambda model, batch: model(**batch, inputs_embeds=embeds(model, batch)),
            ("input_ids", "inputs_embeds"),
        ),
        BadInput(
            "a mask of another length",
            lambda model, batch: model(**{**batch, mask: batch[mask][..., :-2]}),
            (mask, str(SHAPE[1])),
        ),
        BadInput(
            "a mask of another batch",
            lambda model, batch: model(**{**batch, mask: batch[mask][:-1]}),
            (mask, str(SHAPE[0])),
        ),
        BadInput(
            "no time steps",
            lambda model, batch: model(**{ids: batch[ids][..., :0]}),
            ("time",),
        ),
    )


def forward_arguments(case: Case) -> None:
    model = case.model()
    batch = case.without_labels(case.batch(case.rows(model.config, [SHAPE[1]] * SHAPE[0]), model.config))
    complaints = []
    for bad in (*common_bad_inputs(case), *case.bad_inputs):
        try:
            require_refused(bad, model, batch)
        except ContractViolation as violation:
            complaints.append(str(violation))
    require(not complaints, "; ".join(complaints))


def require_refused(bad: BadInput, model, batch) -> None:
    """Raises unless the call ends in one of `REFUSALS` whose message holds all the words."""
    try:
        bad.call(model, dict(batch))
    except REFUSALS as error:
        missing = [word for word in bad.words if word not in str(error)]
        require(not missing, f"{bad.what}: the message does not name {missing}: {error}")
    except Exception as error:
        raise ContractViolation(
            f"{bad.what}: {type(error).__name__} instead of a ValueError: {error}"
        ) from error
    else:
        raise ContractViolation(f"{bad.what}: accepted")


def unknown_ids_are_not_read(case: Case) -> None:
    """On a CPU an id beyond the vocabulary is an error, not the memory behind the embedding."""
    model = case.model()
    batch = case.without_labels(case.batch(case.rows(model.config, [4]), model.config))
    size = model.get_input_embeddings().weight.shape[0]
    for wrong in (size, -1):
        changed = {**batch, _ids_name(case): batch[_ids_name(case)].clone()}
        changed[_ids_name(case)][0, ..., 1] = wrong
        try:
            model(**changed)
        except (IndexError, ValueError):
            continue
        raise ContractViolation(f"id {wrong} was accepted by a vocabulary of {size}")


def rows_of_padding_alone(case: Case) -> None:
    """A row without one attended token is the collator's to refuse; here it must not poison the batch."""
    model = case.model().train()
    rows = case.rows(model.config, [4, 3])
    batch = case.batch(rows, model.config)
    for name in case.kind.masks.values():
        batch[name][1] = 0
    if case.kind.labels:
        for name in case.kind.labels:
            batch[name][1] = IGNORE_INDEX
        loss = model(**batch).loss
        require(bool(torch.isfinite(loss)), f"a row of padding alone makes the loss {float(loss.detach())}")
        loss.backward()
        for name, parameter in model.named_parameters():
            finite = parameter.grad is None or bool(torch.isfinite(parameter.grad).all())
            require(finite, f"a row of padding alone makes the gradient of {name} non-finite")
    for name, value in case.outputs(model.eval(), batch).items():
        require(
            bool(torch.isfinite(value[0]).all()),
            f"a row of padding alone makes {name} of its neighbour non-finite",
        )


def a_non_finite_loss_stops_the_run(case: Case) -> None:
    """With hfseq's callback, before anything is saved."""
    from ..training import StopOnNonFiniteLoss

    model = case.model(FLOAT64)
    rows = case.rows(model.config, [4, 3, 5, 2])
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with tempfile.TemporaryDirectory() as directory:
        made = trainer(
            case, model, rows, directory, max_steps=2, save_strategy="steps", save_steps=1,
            callbacks=[StopOnNonFiniteLoss()],
        )  # fmt: skip
        try:
            made.train()
        except FloatingPointError as error:
            require("nan" in str(error), f"the loss is not named: {error}")
            require("learning_rate" in str(error), f"no remedy is named: {error}")
        else:
            raise ContractViolation("a run went on with a loss of NaN")
        saved = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
        require(not saved, f"losses {saved} were logged as if they were real")
        left = [name for name in os.listdir(directory) if name.startswith("checkpoint")]
        require(not left, f"{left} were saved after a loss of NaN")
