"""Predicts memory, speed and duration of a run, and what limits it, before it costs anything.

    hfseq plan lstm-kjv                                 # on this machine
    hfseq plan encoder-base --devices 8 --device h200 --bf16 true
    hfseq plan ./mine.yaml --device l4 --hidden_size 2048 --output plan.json
    hfseq plan encoder-base --tokens 4e9 --device h200  # the corpus is not here, and not needed

Takes what `hfseq pretrain` takes. The data are prepared as pretraining would (and kept for it), or, with --tokens, made
up: only their shapes matter, and what was assumed of these is said. The model, its backward pass and the optimiser are
run on tensors without content, so that a model of any size can be planned anywhere. Memory and arithmetic are counted;
how long they take follows from the device's peaks (`hfseq/planning/devices.py`), and is an estimate.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

import hfseq  # noqa: F401  (registers the model classes)

from .. import training
from ..data import id_count
from ..loading import build_model
from ..objectives import (
    Objective,
    Plan,
    check_recipe,
    load_recipe,
    model_config,
    objective_of,
    prepared_config,
)
from ..objectives.sections import saved_tokenizer
from ..paths import user_path
from ..planning import DEVICES, Device, Prediction, Work, find_device, predict, simulate
from ..planning.made_up import made_up
from ..planning.prediction import STRATEGIES
from ..positions import position_limit
from ..recipe import Recipe
from .console import CommandParser, mistakes_told
from .outputs import check_output_file

# Micro-batches whose mean counts, and among how many the heaviest is looked for.
TYPICAL, LOOKED_AT = 4, 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="the name of a packaged recipe (lstm-kjv), or a YAML file")
    parser.add_argument("--devices", type=int, default=1, help="how many share an update")
    parser.add_argument(
        "--device", default="here", help=f"here (measured now), or one of {', '.join(DEVICES)}"
    )
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="ddp",
        help="each device has everything, or weights are sharded",
    )
    parser.add_argument(
        "--network", type=float, default=50.0, help="GB/s between nodes of 8 devices, one way"
    )
    parser.add_argument(
        "--tokens",
        type=float,
        help="plan without the data: so many training tokens (an epoch), the rest of them assumed",
    )
    parser.add_argument("--output", help="write the numbers there, as JSON")


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("plan", __doc__)
    add_arguments(parser)
    known, rest = parser.parse_known_args(argv)
    with mistakes_told(parser):
        if known.devices < 1:
            raise ValueError(f"--devices must be at least 1, not {known.devices}.")
        if not known.network > 0:
            raise ValueError(f"--network must be above 0, not {known.network:g}.")
        if known.tokens is not None and not 1 <= known.tokens < float("inf"):
            raise ValueError(f"--tokens must be a number of tokens, 1 or more, not {known.tokens:g}.")
        output = user_path(known.output) if known.output else None
        check_output_file(output, "--output")
        recipe = load_recipe(known.recipe, rest)
        device = find_device(known.device)
        with contextlib.ExitStack() as stack:
            assumed = None
            if known.tokens is not None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hfseq-plan-"))
                recipe, assumed = without_data(recipe, known.tokens, Path(folder))
            objective = objective_of(recipe)
            with planned_without_data_told(assumed is None):
                check_recipe(recipe, objective)
                config = prepared_config(recipe, objective)
            plan = objective.plan(config, known.devices)
            typical, heaviest, tokens = count(recipe, objective, config, plan, known.devices)
            updates = int(recipe.training_arguments.get("max_steps", 0))
            if updates <= 0:
                share = 1.0 if assumed is None else known.tokens / training_tokens(objective)
                updates = math.ceil(plan.train.n_updates * share)
            amount = objective.amount() if assumed is None else f"{known.tokens / 1e6:,.2f}M training tokens"
        prediction = predict(
            typical,
            heaviest,
            device,
            devices=known.devices,
            accumulation=plan.sizes["gradient_accumulation_steps"],
            tokens_per_update=tokens,
            updates=updates,
            sixteen_bits=sixteen_bits(recipe),
            strategy=known.strategy,
            network=known.network * 1e9,
        )
        print(described(prediction, heaviest, device, amount, assumed, known))
        if output is not None:
            facts = {
                "recipe": recipe.name,
                "device": dataclasses.asdict(device),
                "devices": known.devices,
                "strategy": known.strategy,
                "assumed": assumed,
                "heaviest_micro_batch": dataclasses.asdict(heaviest),
                "prediction": dataclasses.asdict(prediction),
            }
            training.write_json(output, facts)
            print(f"all numbers: {output}")


@contextlib.contextmanager
def planned_without_data_told(told: bool) -> Iterator[None]:
    """Adds to an error about data that cannot be had that a plan can do without them."""
    try:
        yield
    except (OSError, ImportError) as error:
        if not told:
            raise
        raise ValueError(
            f"{error}. To plan without the data, say how many training tokens they have: --tokens 1e9."
        ) from error


def without_data(recipe: Recipe, tokens: float, folder: Path) -> tuple[Recipe, str]:
    """The recipe on made-up data, and what was assumed of them."""
    section = recipe.tokenizer
    vocab_size = section.vocab_size
    if section.path is not None:
        try:
            vocab_size = id_count(saved_tokenizer(section.path))
        except ValueError as error:
            raise ValueError(
                f"{error} To plan without it, say how large it is: --tokenizer.type bpe --tokenizer.vocab_size 32000."
            ) from error
    return made_up(recipe, folder, tokens, vocab_size, position_limit(model_config(recipe)))


def training_tokens(objective: Objective) -> int:
    """Of the data that the objective has; of pairs, those of the targets."""
    train = objective.arrays["train"]
    return int(train.target_lengths.sum()) if hasattr(train, "target_lengths") else len(train)


def count(
    recipe: Recipe, objective: Objective, config: Any, plan: Plan, devices: int
) -> tuple[list[Work], Work, float]:
    """Typical micro-batches, the heaviest one, and tokens of a mean update."""
    rows = plan.sizes["per_device_train_batch_size"]
    batches = len(plan.train) // rows
    spread = sorted({batch * batches // LOOKED_AT for batch in range(LOOKED_AT)})
    made = {at: plan.collator([plan.train[at * rows + row] for row in range(rows)]) for at in spread}
    largest = max(made, key=lambda at: cells(made[at]))
    chosen = spread[:: max(1, len(spread) // TYPICAL)][:TYPICAL]
    options: dict[str, Any] = {
        "make_optimizer": lambda model: make_optimizer(recipe, model),
        "autocast": torch.bfloat16 if sixteen_bits(recipe) else None,
        "gradient_checkpointing": bool(recipe.training_arguments.get("gradient_checkpointing")),
    }
    works = {
        at: simulate(lambda: make_model(objective, config, plan), made[at], **options)
        for at in dict.fromkeys([largest, *chosen])
    }
    updates = sorted({i * plan.train.n_updates // LOOKED_AT for i in range(LOOKED_AT)})
    tokens = sum(plan.tokens_at(update) for update in updates) / len(updates)
    return [works[at] for at in chosen], works[largest], tokens


def make_model(objective: Objective, config: Any, plan: Plan) -> Any:
    """The model with its place for carried states, as training begins."""
    model = build_model(objective.auto_class, config)
    if plan.streams:
        model.carried_states.reserve(plan.streams)
    return model


def cells(batch: dict[str, Any]) -> int:
    """Size of a micro-batch: all ids; with a source and a target their product too, as a network over both has it."""
    sizes = [value.numel() for value in batch.values() if isinstance(value, torch.Tensor)]
    shapes = [batch[key].shape for key in ("input_ids", "labels") if isinstance(batch.get(key), torch.Tensor)]
    product = shapes[0][0] * shapes[0][-1] * shapes[1][-1] if len(shapes) == 2 else 0
    return sum(sizes) + product


def make_optimizer(recipe: Recipe, model: Any) -> torch.optim.Optimizer:
    """The recipe's, for its memory and arithmetic: rates do not matter."""
    arguments = TrainingArguments(output_dir=os.devnull, use_cpu=True, report_to="none")
    factory, options = training.optimizer_factory(
        recipe.training.optimizer, arguments, **recipe.training.optimizer_arguments
    )
    return factory()(model, **options)


def sixteen_bits(recipe: Recipe) -> bool:
    """Whether the run computes in bfloat16 or float16."""
    return any(recipe.training_arguments.get(name) is True for name in ("bf16", "fp16"))


def described(
    prediction: Prediction,
    work: Work,
    device: Device,
    amount: str,
    assumed: str | None,
    known: argparse.Namespace,
) -> str:
    """The prediction, for people.

    Args:
        amount: what an epoch is.
        assumed: of data that are not there; None: they are.
    """
    memory = sum(prediction.memory.values())
    source = (
        "measured now" if device.measured else "data sheet; shares of its peaks assumed, not measured by us"
    )
    parts = ", ".join(f"{name} {size(value)}" for name, value in prediction.memory.items() if value)
    shares = ", ".join(
        f"{name} {seconds / prediction.step_seconds:.0%}"
        for name, seconds in sorted(prediction.seconds.items(), key=lambda item: -item[1])
        if seconds / prediction.step_seconds >= 0.005
    )
    lines = [
        f"{work.parameters / 1e6:,.2f}M parameters; {amount} an epoch",
        *([f"data                made up, with {assumed}"] if assumed else []),
        f"{known.devices} x {device.name} ({source}), {known.strategy}",
        f"memory per device   {size(memory)} of {size(device.memory)}: "
        + ("fits" if prediction.fits else "DOES NOT FIT"),
        f"                    {parts}",
        f"arithmetic          {work.flops / 1e9:,.1f} GFLOP per micro-batch at most, MFU {prediction.mfu:.0%}",
        f"update              {prediction.step_seconds:.3g} s: {shares}",
        f"speed               {prediction.tokens_per_second:,.0f} tokens/s",
        f"run                 {prediction.updates:,} updates, {duration(prediction.total_seconds)}",
        f"limited by          {prediction.limit}",
    ]
    if not prediction.fits:
        lines.append(remedy(prediction))
    return "\n".join(lines)


def remedy(prediction: Prediction) -> str:
    """What makes a run fit, by what takes the memory."""
    largest = max(prediction.memory, key=prediction.memory.__getitem__)
    if largest == "activations":
        return "try: more --gradient_accumulation_steps, --gradient_checkpointing true, or --bf16 true"
    return "try: --strategy fsdp2 with more --devices, or a smaller model"


def size(number: int) -> str:
    """Bytes, for people."""
    return f"{number / 1024**3:,.2f} GiB" if number >= 2**30 // 10 else f"{number / 1024**2:,.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds, for people."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"
