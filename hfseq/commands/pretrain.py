"""Trains a model from scratch: corpus -> tokenizer -> token arrays -> stock Trainer -> checkpoint and card.

    hfseq pretrain lstm-kjv
    hfseq pretrain transformer-multi30k-en-de
    hfseq pretrain lstm-kjv --hidden_size 256 --output_dir outputs/small
    hfseq pretrain lstm-kjv --train_file my.txt --corpus null --output_dir outputs/mine
    hfseq pretrain ./mine.yaml --resume
    torchrun --nproc_per_node 2 -m hfseq pretrain lstm-kjv --use_cpu true --ddp_backend gloo

Everything is in the recipe: the name of one that comes with hfseq (`hfseq recipes` lists them) or a YAML file; `--field
value` changes a field. What happens to an output directory that already holds a run is asked, or said with `--resume`
or `--overwrite`. `model.model_type` is any of hfseq or transformers that has the head for the objective.

What differs between the ways to pretrain is in `hfseq/objectives/`, one file each; this command is what they share.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed

from .. import training
from ..cards import write_model_card
from ..objectives import Objective, Plan, load_recipe, model_config, objective_of
from ..objectives.old_recipes import is_old, modernise
from ..paths import user_path
from ..plots import has_matplotlib, plot_loss_curve
from ..recipe import Recipe, packaged_recipes
from ..training.arguments import training_arguments
from ..training.processes import decide, is_main, start_processes, world_size
from .console import CommandParser

T = TypeVar("T")

# What an evaluation's entry in the log keeps for summary and card.
KEPT_METRICS = ("step", "epoch", "eval_loss", "eval_bleu", "eval_bleu_lowercase", "eval_chrf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="the name of a packaged recipe (lstm-kjv), or a YAML file")
    parser.add_argument("--resume", action="store_true", help="continue from the newest complete checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="delete the run that is in output_dir")


def main(argv: list[str] | None = None) -> None:
    recipe, choice = parse_command_line(argv)
    output = user_path(recipe.training_arguments["output_dir"])
    start_processes(recipe.training_arguments.get("ddp_backend"))
    resume_from = decide(lambda: prepare_output(output, recipe, choice))

    objective = objective_of(recipe)
    config = says_where(recipe, lambda: prepare_data(recipe, objective))
    plan = says_where(recipe, lambda: objective.plan(config, world_size()))
    arguments = make_arguments(recipe, plan)
    check_averaging(recipe, plan, arguments)
    optimizer = says_where(
        recipe,
        lambda: training.optimizer_factory(
            recipe.training.optimizer, arguments, **recipe.training.optimizer_arguments
        ),
    )
    set_seed(arguments.seed)
    model = says_where(recipe, lambda: make_model(recipe, objective, config))
    notice = objective.begin(model, plan)

    progress = training.ReadableProgress(plan.tokens_at)
    callbacks = [training.TrueEpoch(plan.train), training.StopOnNonFiniteLoss(), *plan.callbacks]
    if recipe.training.optimizer == "ntasgd":
        callbacks.append(training.AveragedEvaluation())
    callbacks.append(training.CheckpointCallback(streams=plan.streams))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=plan.train,
        eval_dataset=plan.validation,
        data_collator=plan.collator,
        processing_class=objective.tokenizer,
        callbacks=callbacks,
        optimizer_cls_and_kwargs=optimizer,
        compute_loss_func=plan.compute_loss,
    )
    training.weigh_losses_by_labels(trainer)
    training.replace_progress(trainer, progress)
    if is_main():
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"{type(model).__name__}, {parameters / 1e6:.2f}M parameters, vocabulary {len(objective.tokenizer)}; "
            f"{objective.amount()} an epoch, {plan.train.epochs:g} epochs, {plan.train.n_updates} updates; output in "
            f"{output}{(notice and chr(10) + notice) or ''}"
        )

    with training.refused_pickles_told(resume_from):
        trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
    trainer.save_model(str(output))  # the tokenizer goes with it
    if is_main():
        objective.save_tokenizers(output)

    averaging = choose_weights(recipe, objective, trainer, output)
    facts = measure(recipe, objective, trainer, averaging, progress)
    if is_main():
        finish(facts, objective, trainer, output)


def parse_command_line(argv: list[str] | None) -> tuple[Recipe, str | None]:
    parser = CommandParser("pretrain", __doc__)
    add_arguments(parser)
    known, rest = parser.parse_known_args(argv)
    if known.resume and known.overwrite:
        parser.error("--resume and --overwrite exclude each other")
    try:
        recipe = load_recipe(known.recipe, rest)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    recipe.training_arguments.setdefault("output_dir", f"outputs/{recipe.name}")
    return recipe, "resume" if known.resume else "overwrite" if known.overwrite else None


def says_where(recipe: Recipe, work: Callable[[], T]) -> T:
    """What `work` returns; where it raises for something that the user can mend, the program ends with the message."""
    try:
        return work()
    except (ValueError, OSError, ImportError) as error:
        message = str(error)
        sys.exit(message if message.startswith(recipe.path) else f"{recipe.path}: {message}")


def prepare_output(output: Path, recipe: Recipe, choice: str | None) -> Path | None:
    """Makes the output directory; returns the checkpoint to resume from, if any. Asks before deleting a run."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        sys.exit(f"Cannot write to output_dir {output}: {error}. Choose another with --output_dir.")
    saved = output / "recipe.yaml"
    checkpoint = training.newest_complete_checkpoint(output)
    finished = (output / "training_summary.json").exists()
    if saved.exists() and choice is None:
        state = (
            "a finished run"
            if finished
            else f"a run that stopped at {checkpoint.name if checkpoint else 'its start'}"
        )
        if sys.stdin.isatty():
            answer = input(f"{output} holds {state}. [r]esume, [o]verwrite or [q]uit? ").strip().lower()
            choice = {"r": "resume", "o": "overwrite"}.get(answer[:1])
            if choice is None:
                sys.exit("Nothing was changed.")
        elif finished or world_size() > 1:
            sys.exit(f"{output} holds {state}: say --resume or --overwrite, or choose another --output_dir.")
        else:
            choice = "resume"
    if choice == "overwrite":
        remove_run(output)
        checkpoint = None
    elif choice == "resume" and saved.exists():
        check_same_run(saved, recipe, output)
        if checkpoint is None:
            print(f"{output} holds no complete checkpoint: starting from the beginning.")
    elif choice == "resume":
        sys.exit(f"Nothing to resume in {output}.")
    saved.write_text(yaml.safe_dump(recipe.as_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return checkpoint


def check_same_run(saved: Path, recipe: Recipe, output: Path) -> None:
    """Refuses to go on with a run that began with other data, another tokenizer, objective or model."""
    try:
        before = yaml.safe_load(saved.read_text(encoding="utf-8"))
        before = modernise(before) if is_old(before) else before
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        sys.exit(f"Cannot resume {output}: {saved.name} is damaged ({error}). Start again with --overwrite.")
    now = recipe.as_dict()
    for section in ("data", "tokenizer", "objective", "model"):
        for key, value in now[section].items():
            was = before.get(section, {}).get(key, value if key not in before.get(section, {}) else None)
            if was != value:
                sys.exit(
                    f"Cannot resume {output}: it was started with {section}.{key} = {was!r}, now it is {value!r}. "
                    "Restore the value, or start again with --overwrite."
                )


def remove_run(output: Path) -> None:
    """Deletes what this command writes, and nothing else that may lie in the directory."""
    for path in output.glob("checkpoint-*"):
        shutil.rmtree(path)
    written = ["recipe.yaml", "training_summary.json", "loss_curve.png", "README.md", "model.safetensors"]
    for name in [*written, "config.json", "generation_config.json", "training_args.bin"]:
        (output / name).unlink(missing_ok=True)


def prepare_data(recipe: Recipe, objective: Objective) -> Any:
    """The model's config, its vocabulary fitted to the tokenizer and checked against it; the data are in the objective.
    What cannot be right whatever the corpus is refused before the corpus is read."""
    objective.check_before(model_config(recipe))
    objective.prepare()
    config = model_config(recipe, **objective.config_fields())
    objective.check(config)
    objective.check_prompt(config)
    return config


def make_model(recipe: Recipe, objective: Objective, config: Any) -> PreTrainedModel:
    model = objective.auto_class.from_config(config)
    if recipe.training.initialize_from:
        model = training.initialize_from(model, objective.tokenizer, recipe.training.initialize_from)
    if model.can_generate():
        model.generation_config.update(**objective.generation(config))
    return model


def make_arguments(recipe: Recipe, plan: Plan) -> TrainingArguments:
    given = dict(recipe.training_arguments)
    for name in ("num_train_epochs", "gradient_accumulation_steps", "per_device_train_batch_size"):
        given.pop(name, None)  # the plan was made with them
    given["output_dir"] = str(user_path(given["output_dir"]))
    defaults = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "save_steps": given.get("eval_steps", 0.2),
        "save_total_limit": max(2, recipe.training.average_checkpoints),
        "report_to": "none",
        "ddp_find_unused_parameters": False,
        "use_cpu": torch.accelerator.current_accelerator() is None,
    }
    fixed = {
        **plan.sizes,
        "num_train_epochs": 1,  # the plan holds all epochs
        "train_sampling_strategy": "sequential",
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "dataloader_drop_last": False,
        "prediction_loss_only": True,
    }
    clashing = sorted(set(given) & set(fixed))
    if clashing:
        sys.exit(
            f"{recipe.path}: training.{clashing[0]} follows from the objective and the epochs; leave it out."
        )
    return says_where(recipe, lambda: training_arguments({**defaults, **given, **fixed}))


def check_averaging(recipe: Recipe, plan: Plan, arguments: TrainingArguments) -> None:
    """Says before training, not after it, that there will not be enough checkpoints to average."""
    count = recipe.training.average_checkpoints
    if not count:
        return
    updates = arguments.max_steps if arguments.max_steps > 0 else plan.train.n_updates
    every = arguments.save_steps if arguments.save_steps >= 1 else math.ceil(arguments.save_steps * updates)
    problem = None
    if count < 2:
        problem = "a mean needs at least 2 (0: none)"
    elif arguments.load_best_model_at_end:
        problem = "load_best_model_at_end already chooses the weights: use one of the two"
    elif arguments.save_strategy != "steps":
        problem = f"save_strategy must be steps, not {arguments.save_strategy.value}"
    elif arguments.save_total_limit and arguments.save_total_limit < count:
        problem = f"save_total_limit keeps only {arguments.save_total_limit}"
    elif math.ceil(updates / every) < count:
        problem = f"{updates} updates are saved only {math.ceil(updates / every)} times: lower save_steps"
    if problem:
        sys.exit(f"{recipe.path}: training.average_checkpoints = {count}, but {problem}.")


def choose_weights(recipe: Recipe, objective: Objective, trainer: Trainer, output: Path) -> dict | None:
    """Averages the last checkpoints, if the recipe says so; leaves and saves the better weights on validation."""
    count = recipe.training.average_checkpoints
    if not count:
        return None
    model = trainer.model
    checkpoints = training.last_checkpoints(output, count)
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = {"last": objective.score(model, "validation").as_dict()}
    training.load_weights(model, training.average_weights(checkpoints))
    scores["average"] = objective.score(model, "validation").as_dict()
    gain = scores["average"][objective.main_score] - scores["last"][objective.main_score]
    kept = "average" if (gain > 0 if objective.higher_is_better else gain < 0) else "last"
    if kept == "last":
        training.load_weights(model, last)
    else:
        trainer.save_model(str(output))
    return {
        "checkpoints": [int(path.name.rpartition("-")[2]) for path in checkpoints],
        "score": objective.main_score,
        "validation": scores,
        "kept": kept,
    }


def measure(
    recipe: Recipe, objective: Objective, trainer: Trainer, averaging: dict | None, progress: Any
) -> dict:
    """What summary and card say of the run; the scores are measured by all processes together."""
    model = trainer.model
    # Averaging has measured validation already, with the weights that were kept.
    measured = {"validation": averaging["validation"][averaging["kept"]]} if averaging else {}
    scores = {
        side: measured.get(side) or objective.score(model, side).as_dict() for side in objective.held_out
    }
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    facts = {
        "recipe": recipe.name,
        "objective": objective.name,
        "command": " ".join(["hfseq pretrain", recipe_word(recipe), *map(shlex.quote, recipe.overrides)]),
        "model_class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(objective.tokenizer),
        **objective.data_facts(),
        "updates": trainer.state.global_step,
        "epochs": round(float(trainer.state.epoch or 0), 3),
        "training_seconds": round(progress.total_seconds, 1),
        "tokens_per_second": progress.tokens_per_second and round(progress.tokens_per_second),
        "scores": scores,
        "averaging": averaging,
        "evaluations": [{key: e[key] for key in KEPT_METRICS if key in e} for e in evaluations],
        "evaluation_signatures": {
            key: value for e in evaluations[-1:] for key, value in e.items() if key.endswith("_signature")
        },
        "learning_rate_trials": recipe.training.trials,
        "machine": training.describe_machine(),
        "recipe_content": recipe.as_dict(),
    }
    if recipe.training.prompt:
        facts |= {"prompt": recipe.training.prompt, **objective.sample(model, recipe.training.prompt)}
    return facts


def recipe_word(recipe: Recipe) -> str:
    """How the command line names the recipe: a packaged one by its name."""
    packaged = packaged_recipes().get(recipe.name)
    return recipe.name if packaged and str(packaged) == recipe.path else shlex.quote(recipe.path)


def finish(facts: dict, objective: Objective, trainer: Trainer, output: Path) -> None:
    """Writes summary, loss curve and card, and shows what was reached."""
    facts["loss_curve"] = None
    if has_matplotlib():
        picture = output / "loss_curve.png"
        facts["loss_curve"] = plot_loss_curve(trainer.state.log_history, picture, facts["recipe"]).name
    training.write_json(output / "training_summary.json", facts)
    write_model_card(output, facts, objective.card)
    show(facts, objective, output)


def show(facts: dict, objective: Objective, output: Path) -> None:
    metrics = objective.card.metrics
    rows = [("", facts["scores"])]
    if facts["averaging"]:
        rows = [
            (f", {name}", {"validation": s}) for name, s in facts["averaging"]["validation"].items()
        ] + rows
    print(f"\n{'':24}{'loss':>8}" + "".join(f"{name:>30}" for name, _ in metrics.values()))
    for what, scores in rows:
        for side, score in scores.items():
            cells = "".join(
                f"{score[key]:>30{shape}}" if key in score else f"{'-':>30}"
                for key, (_, shape) in metrics.items()
            )
            print(f"{side + what:24}{score['loss']:8.3f}{cells}")
    speed = f", {facts['tokens_per_second']} tokens/s" if facts["tokens_per_second"] else ""
    print(f"trained {facts['epochs']:.2f} epochs in {facts['training_seconds']:.0f} s{speed}")
    if "continuation" in facts:
        print(f"\n{facts['continuation']}\n")
    for key in ("translation", "repaired", "described"):
        if key in facts:
            print(f"\n{facts['prompt']}\n  -> {facts[key]}\n")
    if "guesses" in facts:
        guesses = ", ".join(f"{guess['token']} ({guess['probability']})" for guess in facts["guesses"])
        print(f"\n{facts['prompt']}\n  {guesses}\n")
    print(f"model, tokenizer, training_summary.json, loss_curve.png and model card: {output}")
    if objective.sample_prompt:
        print(f"try: hfseq generate {output} --prompt '{facts.get('prompt') or objective.sample_prompt}'")
