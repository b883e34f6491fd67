"""Contract 7: what changes the arithmetic changes nothing else: checkpointing, bfloat16, resized embeddings.

`torch.compile` belongs here too, but compiles for seconds: it runs once per family (`compiling.py`).
"""

from __future__ import annotations

import torch

from .cases import Case, dropout_fields
from .comparing import FLOAT32, FLOAT64, gradients, require_close, require_close_gradients
from .kinds import IGNORE_INDEX
from .violation import ContractViolation, require, run_checks

LENGTHS = [6, 3, 5]


def contract(case: Case) -> None:
    checks = [bfloat16, bfloat16_autocast, resized_embeddings]
    if case.kind.labels and case.model_class.supports_gradient_checkpointing:
        checks += [gradient_checkpointing, gradient_checkpointing_with_dropout]
    run_checks(case, *checks)


def _loss_and_gradients(case: Case, model, batch):
    torch.manual_seed(0)  # the same dropout masks
    loss = model.train()(**batch).loss
    loss.backward()
    return loss.detach(), gradients(model)


def gradient_checkpointing(case: Case) -> None:
    for model, precision in case.models():
        _require_checkpointing_changes_nothing(case, model, precision.tolerance)


def gradient_checkpointing_with_dropout(case: Case) -> None:
    """The second forward must draw the masks of the first.

    A checkpointed block may run its layers one by one and so draw masks in another order than one fused call. The
    reference is therefore the same path with the checkpoint function replaced by a plain call: nothing runs twice.
    """
    model = case.model(FLOAT64, dropout=True)
    batch = case.batch(case.rows(model.config, LENGTHS), model.config)
    for reentrant in (False, True):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
        loss, got = _loss_and_gradients(case, model, batch)
        for module in model.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                module._gradient_checkpointing_func = _call
        expected_loss, expected = _loss_and_gradients(case, model, batch)
        what = f"gradient checkpointing with dropout, use_reentrant={reentrant}"
        require_close(f"{what}: loss", loss, expected_loss, FLOAT64.tolerance)
        require_close_gradients(what, got, expected, FLOAT64.tolerance)
        if reentrant:
            model.disable_input_require_grads()
    if any(name != "classifier_dropout" for name in dropout_fields(model.config)):  # that of another head
        torch.manual_seed(1)
        with torch.no_grad():
            require(
                not torch.equal(loss, model(**batch).loss),
                "vacuous: another seed gives the same loss, nothing is dropped",
            )


def _call(function, *arguments, **options):
    return function(*arguments, **options)


def _require_checkpointing_changes_nothing(case: Case, model, tolerance: float) -> None:
    batch = case.batch(case.rows(model.config, LENGTHS), model.config)
    expected_loss, expected = _loss_and_gradients(case, model, batch)
    for reentrant in (False, True):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
        require(model.is_gradient_checkpointing, "gradient_checkpointing_enable() switched nothing on")
        loss, got = _loss_and_gradients(case, model, batch)
        what = f"gradient checkpointing, use_reentrant={reentrant}"
        require_close(f"{what}: loss", loss, expected_loss, tolerance)
        require_close_gradients(what, got, expected, tolerance)
        if reentrant:
            model.disable_input_require_grads()
        model.gradient_checkpointing_disable()


def bfloat16(case: Case) -> None:
    """Everything finite with weights in bfloat16, training and decoding included."""
    model = case.model(FLOAT32).to(torch.bfloat16)
    _require_finite(case, model, "weights in bfloat16")
    for name, value in case.outputs(
        model, case.batch(case.rows(model.config, LENGTHS), model.config)
    ).items():
        require(value.dtype == torch.bfloat16, f"weights in bfloat16 gave {name} in {value.dtype}")


def bfloat16_autocast(case: Case) -> None:
    model = case.model(FLOAT32)
    with torch.autocast("cpu", torch.bfloat16):
        _require_finite(case, model, "autocast to bfloat16")


def _require_finite(case: Case, model, what: str) -> None:
    batch = case.batch(case.rows(model.config, LENGTHS), model.config)
    for name, value in case.outputs(model, batch).items():
        require(bool(torch.isfinite(value).all()), f"{what}: non-finite {name}")
    if case.kind.labels:
        reference = float(case.model(FLOAT32).train()(**batch).loss.detach())
        loss = model.train()(**batch).loss
        require(
            loss.dtype == torch.float32, f"{what}: the loss is in {loss.dtype}; sums over tokens need float32"
        )
        close = abs(float(loss.detach()) - reference) <= 0.1 * abs(reference) + 0.1
        require(close, f"{what}: loss {float(loss.detach()):.4f} against {reference:.4f} in float32")
        loss.backward()
        for name, gradient in gradients(model).items():
            require(bool(torch.isfinite(gradient).all()), f"{what}: non-finite gradient of {name}")
        model.eval()
    if case.kind.generates:
        prompt = {name: batch[name] for name in ("input_ids", "attention_mask")} | case.timeless(batch)
        with torch.no_grad():
            model.generate(**prompt, max_new_tokens=4, num_beams=2, do_sample=False)


def resized_embeddings(case: Case) -> None:
    """A bigger vocabulary leaves the old tokens' outputs alone; a smaller one cuts. Ties and heads follow."""
    if not getattr(case.config(), "share_encoder_decoder_embeddings", True):
        return _two_vocabularies_have_no_common_size(case)
    for change in (+7, -5):
        model = case.model(FLOAT64)
        rows = case.rows(model.config, LENGTHS)
        old_size = model.config.get_text_config().vocab_size
        size = old_size + change
        kept = min(old_size, size)
        for row in rows:
            for name in case.kind.ids.values():
                # Ids that both vocabularies have, none of them special.
                row[name].remainder_(kept - 6).add_(3)
            if case.kind.labels and model.get_output_embeddings() is not None:
                labels = row[case.kind.labels[0]]
                labels.copy_(torch.where(labels == IGNORE_INDEX, labels, labels.remainder(kept)))
        batch = case.batch(rows, model.config)
        before = case.outputs(model, batch)
        was_tied = _is_tied(model)
        model.resize_token_embeddings(size, mean_resizing=False)
        what = f"vocabulary resized from {old_size} to {size}"
        require(model.config.get_text_config().vocab_size == size, f"{what}: the config did not follow")
        require(
            len(model.get_input_embeddings().weight) == size, f"{what}: the input embedding did not follow"
        )
        require(
            _is_tied(model) == was_tied,
            f"{what}: the output layer was {'' if was_tied else 'not '}tied before",
        )
        rebuilt = case.model_class(type(model.config).from_dict(model.config.to_dict())).state_dict()
        wrong = [n for n, value in model.state_dict().items() if rebuilt[n].shape != value.shape]
        require(not wrong, f"{what}: a model built from its config has other shapes in {wrong}")
        for name, value in case.outputs(model, batch).items():
            expected = before[name]
            if value.shape[-1] == size and model.get_output_embeddings() is not None:
                value, expected = value[..., :kept], expected[..., :kept]
            require_close(f"{what}: {name}", value, expected, FLOAT64.tolerance)
        if case.kind.labels:
            loss = model.train()(**batch).loss
            loss.backward()
            require(bool(torch.isfinite(loss)), f"{what}: the loss is {float(loss.detach())}")
            missing = {n for n, p in model.named_parameters() if p.requires_grad} - gradients(model).keys()
            require(not missing, f"{what}: no gradient reaches {sorted(missing)}")
            model.eval()
        if case.kind.generates:
            new = torch.full_like(batch["input_ids"][:, :1], size - 1)
            ids = torch.cat([batch["input_ids"], new], 1)[:, -3:]
            with torch.no_grad():
                tokens = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=4,
                    do_sample=False,
                    **case.timeless(batch),
                )
            require(int(tokens.max()) < size, f"{what}: generated {int(tokens.max())}")
        again = case.rows(model.config, LENGTHS, seed=1)
        for name, value in case.outputs(model, case.batch(again, model.config)).items():
            require(bool(torch.isfinite(value).all()), f"{what}: non-finite {name} with the new tokens")


def _two_vocabularies_have_no_common_size(case: Case) -> None:
    """What a stranger makes of one size for two vocabularies is its own affair; ours refuses."""
    if case.family == "stranger":
        return
    try:
        case.model(FLOAT64).resize_token_embeddings(47)
    except ValueError as error:
        named = "share_encoder_decoder_embeddings" in str(error)
        require(named, f"two vocabularies resized to 47: the message does not say why not: {error}")
    else:
        raise ContractViolation("two vocabularies were resized to 47, though only one of them can be meant")


def _is_tied(model) -> bool:
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight
