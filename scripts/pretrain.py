"""Trains a model from scratch: corpus -> tokenizer -> token arrays -> stock Trainer -> checkpoint and card.

    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml
    python scripts/pretrain.py scripts/recipes/encoder-kjv.yaml
    python scripts/pretrain.py scripts/recipes/transformer-multi30k-en-de.yaml
    python scripts/pretrain.py scripts/recipes/lstm-colours.yaml
    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml --hidden_size 256 --output_dir outputs/small
    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml --train_file my.txt --corpus null --output_dir outputs/mine
    torchrun --nproc_per_node 2 scripts/pretrain.py RECIPE.yaml --use_cpu true --ddp_backend gloo

Everything is in the recipe (hfseq/recipe.py documents its fields); `--field value` changes one. What happens to an
output directory that already holds a run is asked, or said with `--resume` or `--overwrite`.

A recurrent model learns to predict the next token (with data.feature_columns, of texts that begin with a vector), an
encoder to fill in masked tokens, an encoder-decoder to translate, or to repair text (data.noise). What differs between
them is in hfseq/training (preparation.py, runs.py); this script is what they share.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
from pathlib import Path

import torch
import yaml
from transformers import Trainer, TrainingArguments, set_seed

import hfseq
from hfseq import data, plots, training
from hfseq.cards import TASKS, write_model_card
from hfseq.recipe import Recipe, load_recipe, model_config
from hfseq.training.preparation import PairData, TrainingData, prepare_data
from hfseq.training.runs import Run, denoising_run, feature_run, masked_run, pair_run, stream_run

# What an evaluation's entry in the log keeps for summary and card.
KEPT_METRICS = ("step", "epoch", "eval_loss", "eval_bleu", "eval_bleu_lowercase", "eval_chrf")
RUNS = {
    "text-generation": stream_run,
    "fill-mask": masked_run,
    "translation": pair_run,
    "vector-to-text": feature_run,
    "text2text-generation": denoising_run,
}


def main() -> None:
    recipe, choice = parse_command_line()
    output = Path(recipe.training_arguments["output_dir"])
    is_main = int(os.environ.get("RANK", 0)) == 0
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    resume_from = prepare_output(output, recipe, choice, is_main)

    # Corpus, tokenizer, token arrays: written once, by the process that comes first, read by all.
    try:
        prepared = prepare_data(recipe)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{recipe.path}: {error}")
    tokenizer = prepared.tokenizer
    config = make_config(recipe, prepared)
    try:
        run = RUNS[prepared.task](recipe, config, prepared, world_size)
    except (ValueError, ImportError) as error:
        sys.exit(f"{recipe.path}: {error}")
    arguments = make_arguments(recipe, run)
    check_averaging(recipe, run, arguments)
    optimizer = make_optimizer(recipe, arguments)
    set_seed(arguments.seed)
    model = make_model(recipe, run, config, tokenizer)

    progress = training.ReadableProgress(run.tokens_at)
    callbacks = [training.TrueEpoch(run.plan), training.StopOnNonFiniteLoss(), *run.callbacks]
    if recipe.training.optimizer == "ntasgd":
        callbacks.append(training.AveragedEvaluation())
    callbacks.append(training.CheckpointCallback(streams=run.streams))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=run.plan,
        eval_dataset=run.validation_plan,
        data_collator=run.collator,
        processing_class=tokenizer,
        callbacks=callbacks,
        optimizer_cls_and_kwargs=optimizer,
    )
    training.replace_progress(trainer, progress)
    if is_main:
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"{type(model).__name__}, {parameters / 1e6:.2f}M parameters, vocabulary {len(tokenizer)}; "
            f"{run.amount} an epoch, {run.plan.epochs:g} epochs, {run.plan.n_updates} updates; output in {output}"
        )

    trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
    trainer.save_model(str(output))  # the tokenizer goes with it

    if is_main:
        if isinstance(prepared, PairData):
            data.save_pair_tokenizers(output, tokenizer, prepared.target_tokenizer)
        averaging = choose_weights(recipe, run, trainer, output)
        facts = finish(recipe, run, trainer, tokenizer, averaging, output, progress)
        show(facts, output)


def parse_command_line() -> tuple[Recipe, str | None]:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Any field of the recipe: --field value, or --section.field value.",
    )
    parser.add_argument("recipe", help="a YAML file, such as scripts/recipes/lstm-kjv.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the newest complete checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="delete the run that is in output_dir")
    known, rest = parser.parse_known_args()
    if known.resume and known.overwrite:
        parser.error("--resume and --overwrite exclude each other")
    try:
        recipe = load_recipe(known.recipe, rest)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    recipe.training_arguments.setdefault("output_dir", f"outputs/{recipe.name}")
    return recipe, "resume" if known.resume else "overwrite" if known.overwrite else None


def prepare_output(output: Path, recipe: Recipe, choice: str | None, is_main: bool) -> Path | None:
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
        if is_main and sys.stdin.isatty():
            answer = input(f"{output} holds {state}. [r]esume, [o]verwrite or [q]uit? ").strip().lower()
            choice = {"r": "resume", "o": "overwrite"}.get(answer[:1])
            if choice is None:
                sys.exit("Nothing was changed.")
        elif finished or "RANK" in os.environ:
            sys.exit(f"{output} holds {state}: say --resume or --overwrite, or choose another --output_dir.")
        else:
            choice = "resume"
    if choice == "overwrite":
        if is_main:
            remove_run(output)
        checkpoint = None
    elif choice == "resume" and saved.exists():
        before = yaml.safe_load(saved.read_text(encoding="utf-8"))
        for section in ("data", "model"):
            for key, value in recipe.as_dict()[section].items():
                if before[section].get(key) != value:
                    sys.exit(
                        f"Cannot resume {output}: it was started with {section}.{key} = {before[section].get(key)!r}, "
                        f"now it is {value!r}. Restore the value, or start again with --overwrite."
                    )
        if checkpoint is None and is_main:
            print(f"{output} holds no complete checkpoint: starting from the beginning.")
    elif choice == "resume":
        sys.exit(f"Nothing to resume in {output}.")
    if is_main:
        saved.write_text(
            yaml.safe_dump(recipe.as_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    return checkpoint


def remove_run(output: Path) -> None:
    """Deletes what this script writes, and nothing else that may lie in the directory."""
    for path in output.glob("checkpoint-*"):
        shutil.rmtree(path)
    written = ["recipe.yaml", "training_summary.json", "loss_curve.png", "README.md", "model.safetensors"]
    for name in [*written, "config.json", "generation_config.json", "training_args.bin"]:
        (output / name).unlink(missing_ok=True)


def make_config(recipe: Recipe, prepared: TrainingData):
    """The model's config, its vocabulary fitted to the tokenizer and checked against both."""
    try:
        config = model_config(recipe, **prepared.config_fields())
        prepared.check(config)
    except ValueError as error:
        sys.exit(str(error))
    return config


def make_model(recipe: Recipe, run: Run, config, tokenizer):
    model = run.auto_class.from_config(config)
    if recipe.training.initialize_from:
        try:
            model = training.initialize_from(model, tokenizer, recipe.training.initialize_from)
        except ValueError as error:
            sys.exit(f"{recipe.path}: {error}")
    if model.can_generate():
        model.generation_config.update(**run.generation)
    return model


def make_arguments(recipe: Recipe, run: Run) -> TrainingArguments:
    given = dict(recipe.training_arguments)
    for name in ("num_train_epochs", "gradient_accumulation_steps", "per_device_train_batch_size"):
        given.pop(name, None)  # the plan was made with them
    defaults = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "save_steps": given.get("eval_steps", 0.2),
        "save_total_limit": max(2, recipe.training.average_checkpoints),
        "report_to": "none",
        "ddp_find_unused_parameters": False,
        "use_cpu": not torch.cuda.is_available(),
    }
    fixed = {
        **run.sizes,
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
            f"{recipe.path}: training.{clashing[0]} is set by the script, from the data section and the epochs."
        )
    try:
        return TrainingArguments(**{**defaults, **given, **fixed})
    except (TypeError, ValueError) as error:
        sys.exit(f"{recipe.path}: section training: {error}")


def check_averaging(recipe: Recipe, run: Run, arguments: TrainingArguments) -> None:
    """Says before training, not after it, that there will not be enough checkpoints to average."""
    count = recipe.training.average_checkpoints
    if not count:
        return
    updates = arguments.max_steps if arguments.max_steps > 0 else run.plan.n_updates
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


def make_optimizer(recipe: Recipe, arguments: TrainingArguments):
    try:
        return training.optimizer_factory(
            recipe.training.optimizer, arguments, **recipe.training.optimizer_arguments
        )
    except ValueError as error:
        sys.exit(f"{recipe.path}: section training: {error}")


def choose_weights(recipe: Recipe, run: Run, trainer: Trainer, output: Path) -> dict | None:
    """Averages the last checkpoints, if the recipe says so; leaves and saves the better weights on validation."""
    count = recipe.training.average_checkpoints
    if not count:
        return None
    model = trainer.model
    checkpoints = training.last_checkpoints(output, count)
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = {"last": run.score(model, "validation").as_dict()}
    training.load_weights(model, training.average_weights(checkpoints))
    scores["average"] = run.score(model, "validation").as_dict()
    gain = scores["average"][run.main_score] - scores["last"][run.main_score]
    kept = "average" if (gain > 0 if run.higher_is_better else gain < 0) else "last"
    if kept == "last":
        training.load_weights(model, last)
    else:
        trainer.save_model(str(output))
    return {
        "checkpoints": [int(path.name.rpartition("-")[2]) for path in checkpoints],
        "score": run.main_score,
        "validation": scores,
        "kept": kept,
    }


def finish(recipe, run, trainer, tokenizer, averaging, output: Path, progress) -> dict:
    """Measures the model on validation and test text; writes the summary, the loss curve and the card."""
    model = trainer.model
    # Averaging has measured validation already, with the weights that were kept.
    measured = {"validation": averaging["validation"][averaging["kept"]]} if averaging else {}
    scores = {split: measured.get(split) or run.score(model, split).as_dict() for split in run.held_out}
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    facts = {
        "recipe": recipe.name,
        "task": run.task,
        "command": " ".join(
            ["python", "scripts/pretrain.py", recipe.path, *map(shlex.quote, recipe.overrides)]
        ),
        "model_class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        **run.data_facts,
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
        facts |= {"prompt": recipe.training.prompt, **run.sample(model, recipe.training.prompt)}
    facts["loss_curve"] = None
    if plots.has_matplotlib():
        curve = plots.plot_loss_curve(trainer.state.log_history, output / "loss_curve.png", recipe.name)
        facts["loss_curve"] = curve.name
    training.write_json(output / "training_summary.json", facts)
    write_model_card(output, facts)
    return facts


def show(facts: dict, output: Path) -> None:
    metrics = TASKS[facts["task"]].metrics
    rows = [("", facts["scores"])]
    if facts["averaging"]:
        rows = [
            (f", {name}", {"validation": s}) for name, s in facts["averaging"]["validation"].items()
        ] + rows
    print(f"\n{'':24}{'loss':>8}" + "".join(f"{name:>30}" for name, _ in metrics.values()))
    for what, scores in rows:
        for split, score in scores.items():
            cells = "".join(
                f"{score[key]:>30{shape}}" if key in score else f"{'-':>30}"
                for key, (_, shape) in metrics.items()
            )
            print(f"{split + what:24}{score['loss']:8.3f}{cells}")
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
    if facts["task"] in ("text-generation", "translation"):
        prompt = "And it came to pass" if facts["task"] == "text-generation" else "Two men are walking."
        print(f"try: python scripts/generate.py {output} --prompt '{facts.get('prompt') or prompt}'")


if __name__ == "__main__":
    print(f"hfseq {hfseq.__version__}", file=sys.stderr)
    main()
