"""Contract 12: what other people's tools take for granted.

A stock Trainer with transformers' own collators scores the model; hooks and adapters on any linear layer, and on the
embedding, take effect; `device_map="auto"` places it; `torch.export` makes a graph of it for any number of padded
rows; attention weights and hidden states are there when asked for, whole, and on the way of the gradient.
"""

from __future__ import annotations

import math
import tempfile

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from . import kinds
from .cases import Case
from .comparing import FLOAT32, FLOAT64, gradients, require_close, require_close_gradients, require_same_bits
from .training_runs import trainer
from .violation import require, run_checks

LENGTHS = [6, 3, 5, 4]
# As wide as each other, and short: a decoder's steps are unrolled in the graph.
TRACED, GIVEN = [3, 1, 2], [3, 2, 1, 2, 3]


def contract(case: Case) -> None:
    run_checks(
        case,
        evaluated_by_the_stock_trainer,
        every_linear_layer_is_called,
        the_embedding_sees_rows_of_tokens,
        placed_by_device_map,
        exported_for_any_number_of_padded_rows,
        hidden_states_and_attentions,
    )


# --- Trainer ---------------------------------------------------------------------------------------------------------


def evaluated_by_the_stock_trainer(case: Case) -> None:
    """`evaluate()` gives a loss, and logits to `compute_metrics`, from rows that a stock collator puts together."""
    if not case.kind.labels:
        return
    model = case.model(FLOAT32)
    rows = [_as_lists(row) for row in case.rows(model.config, LENGTHS)]
    collator, dropped = stock_collator(case.kind, model)
    rows = [{name: value for name, value in row.items() if name not in dropped} for row in rows]
    seen = []

    def compute_metrics(prediction) -> dict[str, float]:
        first = prediction.predictions
        seen.append((first[0] if isinstance(first, tuple) else first).shape[0])
        return {"rows": float(seen[-1])}

    with tempfile.TemporaryDirectory() as directory:
        made = trainer(
            case, model, rows, directory, data_collator=collator, eval_dataset=rows,
            per_device_eval_batch_size=len(rows), eval_strategy="epoch", num_train_epochs=1,
            save_strategy="epoch", load_best_model_at_end=True, compute_metrics=compute_metrics,
        )  # fmt: skip
        torch.manual_seed(0)
        scores = made.evaluate()
        require(
            "eval_loss" in scores, f"Trainer.evaluate() with {type(collator).__name__} gave {sorted(scores)}"
        )
        require(scores["eval_rows"] == len(rows), f"compute_metrics saw {scores['eval_rows']} rows")
        torch.manual_seed(0)
        with torch.no_grad():
            expected = model.eval()(**collator(rows)).loss
        if (
            not isinstance(collator, DataCollatorForLanguageModeling) or not collator.mlm
        ):  # that one draws anew
            require_close("eval_loss", torch.tensor(scores["eval_loss"]), expected, FLOAT32.tolerance)
        require(math.isfinite(scores["eval_loss"]), f"eval_loss is {scores['eval_loss']}")
        made.train()
        require(made.state.best_model_checkpoint is not None, "load_best_model_at_end found no best model")


def stock_collator(kind: kinds.Kind, model) -> tuple[object, tuple[str, ...]]:
    """transformers' own collator for a kind of head, and the arguments that it makes itself."""
    tokenizer = tokenizer_of(model.config)
    if kind.is_encoder_decoder:
        return DataCollatorForSeq2Seq(tokenizer, model=model), ("decoder_input_ids",)
    if kind.shifts:
        return DataCollatorForLanguageModeling(tokenizer, mlm=False), ("labels",)
    if kind.auto_class in ("AutoModelForMaskedLM", "AutoModelForPreTraining"):
        return DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=0), ("labels",)
    if kind.auto_class == "AutoModelForTokenClassification":
        return DataCollatorForTokenClassification(tokenizer), ()
    if kind.texts is not None:
        from ..tasks.choice import ChoiceCollator  # the stock one, whose older versions change their rows

        return ChoiceCollator(tokenizer), ()
    return DataCollatorWithPadding(tokenizer), ()


def tokenizer_of(config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    """A tokenizer with the ids of the model, for what tools ask of one: padding, special tokens, words <ID>."""
    vocabulary = {f"<{i}>": i for i in range(config.get_text_config().vocab_size)}
    special = {}
    for name in ("pad", "bos", "eos", "mask"):
        value = getattr(config, f"{name}_token_id", None)
        if isinstance(value, int):
            special[f"{name}_token"] = f"<{value}>"
    special.setdefault("pad_token", "<0>")
    special.setdefault("mask_token", f"<{len(vocabulary) - 1}>")
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<0>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<0>", model_input_names=names, **special
    )


def _as_lists(row: kinds.Row) -> dict[str, object]:
    return {name: value.tolist() for name, value in row.items()}


# --- hooks -----------------------------------------------------------------------------------------------------------


def every_linear_layer_is_called(case: Case) -> None:
    """A linear layer that has a part in the loss is called where it has a hook, and the numbers stay the same."""
    if not case.kind.labels:
        return
    model = case.model(FLOAT64).train()
    batch = case.batch(case.rows(model.config, LENGTHS), model.config)
    loss = model(**batch).loss
    loss.backward()
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    used = {name for name, layer in linear.items() if layer.weight.grad is not None}
    expected, called = gradients(model), set()
    for name, layer in linear.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    again = model(**batch).loss
    again.backward()
    require(not used - called, f"trained, but never called with a hook: {sorted(used - called)}")
    require_close("loss with hooks", again, loss, FLOAT64.tolerance)
    require_close_gradients("with hooks", gradients(model), expected, FLOAT64.tolerance)


def the_embedding_sees_rows_of_tokens(case: Case) -> None:
    model = case.model(FLOAT64)
    batch = case.batch(case.rows(model.config, LENGTHS), model.config)
    expected, shapes = case.outputs(model, batch), []
    model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: shapes.append(tuple(inputs[0].shape))
    )
    for name, value in case.outputs(model, batch).items():
        require_close(f"{name} with a hook on the embedding", value, expected[name], FLOAT64.tolerance)
    ids = batch["input_ids"]
    rows = (ids.shape[:-1].numel(), ids.shape[-1])
    require(rows in shapes, f"the embedding of ids {list(ids.shape)} saw {shapes}, not {list(rows)}")


# --- placing and exporting -------------------------------------------------------------------------------------------


def placed_by_device_map(case: Case) -> None:
    """`device_map="auto"` finds a place for every weight, here on the CPU."""
    model = case.model(FLOAT32)
    batch = case.batch(case.rows(model.config, LENGTHS), model.config)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        placed = case.model_class.from_pretrained(
            directory, config=model.config, device_map="auto", max_memory={"cpu": "1GiB"}
        ).eval()
    require_same_bits('weights with device_map="auto"', placed.state_dict(), model.state_dict())
    for name, value in case.outputs(placed, batch).items():
        require_close(
            f'{name} with device_map="auto"', value, case.outputs(model, batch)[name], FLOAT32.tolerance
        )


def exported_for_any_number_of_padded_rows(case: Case) -> None:
    model = case.model(FLOAT64).requires_grad_(False)
    options = {"use_cache": False} if case.kind.causal_axis else {}

    def given(lengths: list[int], seed: int) -> kinds.Batch:
        batch = case.batch(case.rows(model.config, lengths, seed), model.config, extra=1)
        return case.without_labels(batch)

    example, other = given(TRACED, 0), given(GIVEN, 1)
    rows = torch.export.Dim("rows", min=2, max=64)
    shapes = {name: {0: rows} for name in example}
    shapes.update(dict.fromkeys(options))
    program = torch.export.export(model, (), {**example, **options}, dynamic_shapes=shapes, strict=False)
    got = program.module()(**other, **options)
    expected = case.outputs(model, other, **options)
    for name in case.kind.outputs:
        require_close(f"{name} of the exported graph", got[name], expected[name], FLOAT64.tolerance)


# --- what is inside --------------------------------------------------------------------------------------------------


def hidden_states_and_attentions(case: Case) -> None:
    """Whole, the same as without asking, and on the way of the gradient, which flows through what was returned."""
    model = case.model(FLOAT64)
    batch = case.without_labels(case.batch(case.rows(model.config, LENGTHS), model.config))
    expected = case.outputs(model, batch)
    found = model(**batch, output_hidden_states=True)
    sides = ("encoder_", "decoder_") if case.kind.is_encoder_decoder else ("",)
    states = {f"{side}hidden_states": found.get(f"{side}hidden_states") for side in sides}
    if any(value is not None for value in states.values()):
        _require_on_the_way("output_hidden_states", found, states, expected)
    if not _gives_attentions(model):
        return
    found = model(**batch, output_attentions=True)
    names = [f"{side}attentions" for side in sides] + ["cross_attentions"] * case.kind.is_encoder_decoder
    attentions = {name: found.get(name) for name in names if found.get(name)}
    for name, layers in attentions.items():
        for weights in layers:
            if weights.ndim == 4 and name != "cross_attentions":
                require(
                    weights.shape[2] == weights.shape[3],
                    f"{name} are {list(weights.shape)}: not every position asks",
                )
    _require_on_the_way("output_attentions", found, attentions, expected)


def _gives_attentions(model) -> bool:
    """Whether the model has attention weights: nobody can tell, but by asking."""
    heads = getattr(model.config, "num_attention_heads", None) or getattr(
        model.config, "encoder_attention_heads", None
    )
    return bool(heads)


def _require_on_the_way(option: str, found, asked: dict, expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        require_close(f"{name} with {option}", found[name], value, FLOAT64.tolerance)
    tensors = {f"{name}[0]": layers[0] for name, layers in asked.items() if layers}
    for tensor in tensors.values():
        tensor.retain_grad()
    found[next(iter(expected))].sum().backward()
    without = [name for name, tensor in tensors.items() if tensor.grad is None]
    require(not without, f"{option}: the gradient does not flow through {without}")
