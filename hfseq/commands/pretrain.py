"""Trains a model from scratch: corpus -> tokenizer -> token arrays -> stock Trainer -> checkpoint and card.

    hfseq pretrain lstm-kjv
    hfseq pretrain transformer-multi30k-en-de
    hfseq pretrain lstm-kjv --hidden_size 256 --output_dir outputs/small
    hfseq pretrain lstm-kjv --train_file my.txt --corpus null --output_dir outputs/mine
    hfseq pretrain ./mine.yaml --resume
    torchrun --nproc_per_node 2 -m hfseq pretrain lstm-kjv --use_cpu true --ddp_backend gloo

Everything is in the recipe: the name of one that comes with hfseq (`hfseq recipes` lists them) or a YAML file; `--field
value` changes a field. What happens to an output directory that already holds a run is asked, or said with `--resume`
or `--overwrite`; a run that did not come to its end goes on by itself where nobody can be asked. SIGTERM and
Ctrl-C save a checkpoint and end the run with code 75 and 130 (`hfseq/training/interruption.py`). `model.model_type` is
any of hfseq or transformers that has the head for the objective.

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

import yaml
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed

from .. import training
from ..accelerators import available_accelerator
from ..cards import write_model_card
from ..loading import build_model
from ..objectives import Objective, Plan, check_recipe, load_recipe, objective_of, prepared_config
from ..objectives.old_recipes import is_old, modernise
from ..paths import user_path
from ..plots import has_matplotlib, plot_loss_curve
from ..recipe import Recipe, packaged_recipes
from ..training.arguments import check_optimization, training_arguments
from ..training.checkpoints import clear_the_way
from ..training.full_disk import DiskFullError, full_disk_told
from ..training.interruption import EXIT_CODES, StopOnSignal
from ..training.output_lock import FILE_NAME as LOCK
from ..training.output_lock import OutputLock
from ..training.processes import decide, is_main, process_options, rank, start_processes, world_size
from ..training.run_identity import check_identity, run_identity, write_identity
from .console import CommandParser, messages_exit_with_2

T = TypeVar("T")

# "resume", "resume_anyway", "overwrite" or, where nothing was said, None.
Choice = str | None

# What an evaluation's entry in the log keeps for summary and card.
KEPT_METRICS = ("step", "epoch", "eval_loss", "eval_bleu", "eval_bleu_lowercase", "eval_chrf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="the name of a packaged recipe (lstm-kjv), or a YAML file")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--resume", action="store_true", help="continue from the newest complete checkpoint")
    kind.add_argument(
        "--resume_anyway", action="store_true",
        help="likewise, even if text, tokenizer, plan, seed or optimiser are not what the run began with",
    )  # fmt: skip
    kind.add_argument("--overwrite", action="store_true", help="delete the run that is in output_dir")


@messages_exit_with_2()
def main(argv: list[str] | None = None) -> None:
    recipe, choice = parse_command_line(argv)
    objective = objective_of(recipe)
    # What cannot be right whatever the corpus is refused before anything is read or written.
    says_where(recipe, lambda: check_recipe(recipe, objective))
    output = says_where(recipe, lambda: user_path(recipe.training_arguments["output_dir"]))
    start_processes(**process_options(recipe.training_arguments))
    was_there = output.exists()
    with OutputLock(output) as lock:
        resume_from = decide(lambda: prepare_output(output, recipe, choice, lock))
        try:
            says_where(recipe, lambda: lock.join(rank()))
            run(recipe, objective, choice, output, resume_from)
        except FloatingPointError as error:  # says which loss, where, and what to try
            sys.exit(f"{recipe.path}: {error}")
        except SystemExit:
            if is_main() and not was_there:
                leave_nothing(output)
            raise


def run(recipe: Recipe, objective: Objective, choice: Choice, output: Path, resume_from: Path | None) -> None:
    """From a recipe to a trained model, its scores and its card."""
    config = says_where(recipe, lambda: prepared_config(recipe, objective))
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
    notice = says_where(recipe, lambda: objective.begin(model, plan))
    says_where(recipe, lambda: check_optimization(model, optimizer, arguments))

    progress = training.ReadableProgress(plan.tokens_at)
    interruption = StopOnSignal()
    callbacks = [
        training.TrueEpoch(plan.train),
        interruption,
        training.StopOnNonFiniteLoss(),
        *plan.callbacks,
    ]
    if recipe.training.optimizer == "ntasgd":
        callbacks.append(training.AveragedEvaluation())
    callbacks.append(training.CheckpointCallback(streams=plan.streams, interruption=interruption))
    trainer = says_where(
        recipe,
        lambda: Trainer(
            model=model,
            args=arguments,
            train_dataset=plan.train,
            eval_dataset=plan.validation,
            data_collator=plan.collator,
            processing_class=objective.tokenizer,
            callbacks=callbacks,
            optimizer_cls_and_kwargs=optimizer,
            compute_loss_func=plan.compute_loss,
        ),
    )
    says_where(recipe, lambda: training.check_strategy(trainer, recipe.training.optimizer, resume_from))
    # From here on the directory holds a run.
    decide(lambda: begin(recipe, objective, plan, output, resume_from, choice))
    training.weigh_losses_by_labels(trainer)
    training.replace_progress(trainer, progress)
    if is_main():
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"{type(model).__name__}, {parameters / 1e6:.2f}M parameters, vocabulary {len(objective.tokenizer)}; "
            f"{objective.amount()} an epoch, {plan.train.epochs:g} epochs, {plan.train.n_updates} updates; output in "
            f"{output}{(notice and chr(10) + notice) or ''}"
        )

    go_on = resume_command(recipe)
    try:
        with full_disk_told(output):
            with training.refused_pickles_told(resume_from):
                trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
            stop_if_unfinished(trainer, interruption, go_on)
            training.save_model(trainer, output)  # the tokenizer goes with it
    except DiskFullError as error:
        sys.exit(f"{error} Go on with: {go_on}")
    if is_main():
        objective.save_tokenizers(output)

    with training.whole_model(trainer.model) as model:
        averaging = choose_weights(recipe, objective, trainer, model, output)
        facts = measure(recipe, objective, trainer, model, averaging, progress)
    if is_main():
        finish(facts, objective, trainer, output)


def parse_command_line(argv: list[str] | None) -> tuple[Recipe, Choice]:
    parser = CommandParser("pretrain", __doc__)
    add_arguments(parser)
    known, rest = parser.parse_known_args(argv)
    try:
        recipe = load_recipe(known.recipe, rest)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    if recipe.training_arguments.get("output_dir") is None:
        recipe.training_arguments["output_dir"] = f"outputs/{recipe.name}"
    chosen = (choice for choice in ("resume", "resume_anyway", "overwrite") if getattr(known, choice))
    return recipe, next(chosen, None)


def says_where(recipe: Recipe, work: Callable[[], T]) -> T:
    """What `work` returns; where it raises for something that the user can mend, the program ends with the message."""
    try:
        return work()
    except (ValueError, OSError, ImportError) as error:
        message = str(error)
        sys.exit(message if message.startswith(recipe.path) else f"{recipe.path}: {message}")


def prepare_output(output: Path, recipe: Recipe, choice: Choice, lock: OutputLock) -> Path | None:
    """Makes the output directory and locks it; returns the checkpoint to resume from, if any. Asks before deleting a
    run."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        sys.exit(f"Cannot write to output_dir {output}: {error}. Choose another with --output_dir.")
    says_where(recipe, lock.take)
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
        elif finished:
            sys.exit(f"{output} holds {state}: say --resume or --overwrite, or choose another --output_dir.")
        else:
            choice = "resume"
    if choice == "overwrite":
        remove_run(output)
        return None
    if choice is not None and not saved.exists():
        sys.exit(f"Nothing to resume in {output}.")
    if choice is not None:
        check_same_run(saved, recipe, output, anyway=choice == "resume_anyway")
        clear_the_way(output)
        if checkpoint is None:
            print(f"{output} holds no complete checkpoint: starting from the beginning.")
        else:
            print(f"Going on from {checkpoint}.", flush=True)
    return checkpoint


def leave_nothing(output: Path) -> None:
    """Takes away the directory that this call made, where nothing but the lock is in it."""
    if output.is_dir() and {path.name for path in output.iterdir()} <= {LOCK}:
        shutil.rmtree(output)


def check_same_run(saved: Path, recipe: Recipe, output: Path, anyway: bool = False) -> None:
    """Refuses to go on with a run that began with other data, another tokenizer, objective or model."""
    try:
        before = yaml.safe_load(saved.read_text(encoding="utf-8"))
        before = modernise(before) if is_old(before) else before
        sections = {name: dict(before.get(name, {})) for name in ("data", "tokenizer", "objective", "model")}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        sys.exit(f"Cannot resume {output}: {saved.name} is damaged ({error}). Start again with --overwrite.")
    now = recipe.as_dict()
    for section in ("model",) if anyway else sections:
        # Of a tokenizer that was there the path is all; runs before 0.2 wrote the other fields' defaults beside it.
        path = now[section].get("path") if section == "tokenizer" else None
        for key, value in (now[section] if path is None else {"path": path}).items():
            was = sections[section].get(key, value)
            if was != value:
                sys.exit(
                    f"Cannot resume {output}: it was started with {section}.{key} = {was!r}, now it is {value!r}. "
                    "Restore the value, or start again with --overwrite."
                )


def begin(
    recipe: Recipe, objective: Objective, plan: Plan, output: Path, resume_from: Path | None, choice: Choice
) -> None:
    """Writes what the run is into its directory; a resume with other data, tokenizer, plan, seed or optimiser ends
    here, and changes nothing."""
    given = recipe.training_arguments
    settings = {"seed": given.get("seed", 42), "data_seed": given.get("data_seed")}
    settings |= {
        "optimizer": recipe.training.optimizer, "optimizer_arguments": recipe.training.optimizer_arguments,
        "optim": given.get("optim"),
    }  # fmt: skip
    identity = run_identity(objective.fingerprints(), objective.tokenizers(), plan.train, settings)
    if resume_from is not None and choice != "resume_anyway":
        says_where(recipe, lambda: check_identity(output, identity))
    write_identity(output, identity)
    text = yaml.safe_dump(recipe.as_dict(), sort_keys=False, allow_unicode=True)
    partial = output / "recipe.yaml.part"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, output / "recipe.yaml")


def stop_if_unfinished(trainer: Trainer, interruption: StopOnSignal, go_on: str) -> None:
    """Ends the program where training did not come to its end: nothing is measured, no card is written."""
    state = trainer.state
    if state.global_step >= state.max_steps:
        return
    reason = interruption.signal
    if is_main():
        said = f"by {reason.name}; checkpoint-{state.global_step} is whole" if reason else "before its end"
        print(
            f"Stopped at update {state.global_step} of {state.max_steps} {said}. Go on with: {go_on}",
            file=sys.stderr,
            flush=True,
        )
    sys.exit(EXIT_CODES[reason] if reason else 1)


def remove_run(output: Path) -> None:
    """Deletes what this command writes, and nothing else that may lie in the directory."""
    for path in [*output.glob("checkpoint-*"), *output.glob("damaged-checkpoint-*")]:
        shutil.rmtree(path)
    written = [
        "recipe.yaml",
        "run.json",
        "training_summary.json",
        "loss_curve.png",
        "README.md",
        "model.safetensors",
    ]
    for name in [*written, "config.json", "generation_config.json", "training_args.bin"]:
        (output / name).unlink(missing_ok=True)


def make_model(recipe: Recipe, objective: Objective, config: Any) -> PreTrainedModel:
    model = build_model(objective.auto_class, config)
    if recipe.training.initialize_from:
        model = training.initialize_from(model, objective.tokenizer, recipe.training.initialize_from)
    if model.can_generate():
        model.generation_config.update(**objective.generation(config))
    return model


def make_arguments(recipe: Recipe, plan: Plan) -> TrainingArguments:
    given = dict(recipe.training_arguments)
    for name in ("num_train_epochs", "gradient_accumulation_steps", "per_device_train_batch_size"):
        given.pop(name, None)  # the plan was made with them
    given.pop("enable_jit_checkpoint", None)  # StopOnSignal does it, and so that a run can go on
    given["output_dir"] = str(user_path(given["output_dir"]))
    defaults = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "save_steps": given.get("eval_steps", 0.2),
        "save_total_limit": max(2, recipe.training.average_checkpoints),
        "report_to": "none",
        "ddp_find_unused_parameters": False,
        "use_cpu": available_accelerator() is None,
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


def choose_weights(
    recipe: Recipe, objective: Objective, trainer: Trainer, model: PreTrainedModel, output: Path
) -> dict | None:
    """Averages the last checkpoints, if the recipe says so; leaves and saves the better weights on validation.

    `model` is the trainer's, or a whole copy of it.
    """
    count = recipe.training.average_checkpoints
    if not count:
        return None
    checkpoints = training.last_checkpoints(output, count)
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = {"last": objective.score(model, "validation").as_dict()}
    training.load_weights(model, training.average_weights(checkpoints))
    scores["average"] = objective.score(model, "validation").as_dict()
    gain = scores["average"][objective.main_score] - scores["last"][objective.main_score]
    kept = "average" if (gain > 0 if objective.higher_is_better else gain < 0) else "last"
    if kept == "last":
        training.load_weights(model, last)
    elif model is trainer.model:
        trainer.save_model(str(output))
    elif is_main():
        model.save_pretrained(output)
    return {
        "checkpoints": [int(path.name.rpartition("-")[2]) for path in checkpoints],
        "score": objective.main_score,
        "validation": scores,
        "kept": kept,
    }


def measure(
    recipe: Recipe,
    objective: Objective,
    trainer: Trainer,
    model: PreTrainedModel,
    averaging: dict | None,
    progress: Any,
) -> dict:
    """What summary and card say of the run; the scores are measured by all processes together."""
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
        "peak_memory_bytes": training.peak_memory(),
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


def resume_command(recipe: Recipe) -> str:
    """What to type to go on with this run."""
    launcher = "hfseq"
    if world_size() > 1:
        launcher = f"torchrun --nproc_per_node {os.environ.get('LOCAL_WORLD_SIZE', world_size())} -m hfseq"
    return " ".join(
        [f"{launcher} pretrain", recipe_word(recipe), *map(shlex.quote, recipe.overrides), "--resume"]
    )


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
