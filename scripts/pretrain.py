"""Pretrains a recurrent language model: corpus -> tokenizer -> token arrays -> stock Trainer -> checkpoint and card.

    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml
    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml --hidden_size 256 --output_dir outputs/small
    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml --train_file my.txt --corpus null --output_dir outputs/mine
    torchrun --nproc_per_node 2 scripts/pretrain.py RECIPE.yaml --use_cpu true --ddp_backend gloo

Everything is in the recipe (hfseq/recipe.py documents its fields); `--field value` changes one. What happens to an
output directory that already holds a run is asked, or said with `--resume` or `--overwrite`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

import hfseq
from hfseq import data, training
from hfseq.hub import write_model_card
from hfseq.recipe import Recipe, load_recipe, model_config


def main() -> None:
    recipe, choice = parse_command_line()
    output = Path(recipe.training_arguments["output_dir"])
    is_main = int(os.environ.get("RANK", 0)) == 0
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    resume_from = prepare_output(output, recipe, choice, is_main)

    # Corpus, tokenizer, token arrays: written once, by the process that comes first, read by all.
    tokenizer, arrays = prepare_data(recipe)
    config = make_config(recipe, tokenizer, arrays)
    plan, validation_plan, arguments = make_plans(recipe, arrays, world_size)
    optimizer = make_optimizer(recipe, arguments)
    set_seed(arguments.seed)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.suppress_tokens = data.surplus_ids(tokenizer, config.vocab_size) or None

    progress = training.ReadableProgress(lambda update: plan.segment_length_at(update) * recipe.data.streams)
    callbacks = [training.TrueEpoch(plan), training.StopOnNonFiniteLoss()]
    if recipe.data.random_lengths:
        callbacks.append(training.ScaleRateWithLength(plan))
    if recipe.training.optimizer == "ntasgd":
        callbacks.append(training.AveragedEvaluation())
    callbacks.append(training.CheckpointCallback(streams=recipe.data.streams))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=plan,
        eval_dataset=validation_plan,
        data_collator=data.StreamCollator(),
        processing_class=tokenizer,
        callbacks=callbacks,
        optimizer_cls_and_kwargs=optimizer,
    )
    training.replace_progress(trainer, progress)
    if is_main:
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"{type(model).__name__}, {parameters / 1e6:.2f}M parameters, vocabulary {len(tokenizer)}; "
            f"{plan.n_targets / 1e6:.2f}M training tokens an epoch, {plan.epochs} epochs, {plan.n_updates} updates; "
            f"output in {output}"
        )

    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
    seconds = time.perf_counter() - start
    trainer.save_model(str(output))  # the tokenizer goes with it

    if is_main:
        facts = finish(recipe, trainer, tokenizer, arrays, output, seconds, progress)
        show(facts, trainer.model, tokenizer, recipe, output)


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


def prepare_data(recipe: Recipe) -> tuple[object, dict[str, data.TokenArray]]:
    section = recipe.data
    try:
        corpus = data.load_corpus(
            section.corpus,
            train_file=section.train_file,
            validation_file=section.validation_file,
            test_file=section.test_file,
            text_column=section.text_column,
            validation_share=section.validation_share,
            test_share=section.test_share,
            split_seed=section.split_seed,
            deduplicate=section.deduplicate,
            streaming=section.streaming,
        )
        if section.tokenizer in data.ALGORITHMS:
            tokenizer = data.cached_tokenizer(
                corpus,
                section.tokenizer,
                section.tokenizer_vocab_size,
                lowercase=section.lowercase,
                cache_dir=section.cache_dir,
            )
        else:
            tokenizer = load_tokenizer(section.tokenizer)
        return tokenizer, data.build_token_arrays(corpus, tokenizer, section.cache_dir)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{recipe.path}: {error}")


def load_tokenizer(name: str):
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data.tokenizer {name!r} is none of the algorithms {', '.join(data.ALGORITHMS)}, and no tokenizer "
            f"could be loaded from there: {error}"
        ) from error


def make_config(recipe: Recipe, tokenizer, arrays: dict[str, data.TokenArray]):
    """The model's config, its vocabulary fitted to the tokenizer and checked against both."""
    try:
        config = model_config(recipe, **data.tokenizer_config_fields(tokenizer))
        data.check_vocabulary(tokenizer, config)
        for array in arrays.values():
            data.check_ids(array.tokens, config.vocab_size)
    except ValueError as error:
        sys.exit(str(error))
    return config


def make_plans(
    recipe: Recipe, arrays: dict[str, data.TokenArray], world_size: int
) -> tuple[data.StreamPlan, data.StreamPlan, TrainingArguments]:
    """The batch plan of the whole run and the TrainingArguments that go with it."""
    section, given = recipe.data, dict(recipe.training_arguments)
    epochs = given.pop("num_train_epochs", 3)
    accumulation = given.pop("gradient_accumulation_steps", 1)
    rows = given.pop("per_device_train_batch_size", None)
    if rows is None:
        rows = section.streams // (accumulation * world_size)
    else:
        accumulation = max(1, section.streams // (rows * world_size))
    if rows * accumulation * world_size != section.streams:
        sys.exit(
            f"{recipe.path}: data.streams = {section.streams} must be rows x accumulation x processes, but {rows} x "
            f"{accumulation} x {world_size} = {rows * accumulation * world_size}. Change streams, "
            "per_device_train_batch_size, gradient_accumulation_steps or the number of processes."
        )
    evaluation_rows = max(1, section.evaluation_streams // world_size)
    try:
        plan = data.StreamPlan(
            arrays["train"].tokens,
            streams=section.streams,
            segment_length=section.segment_length,
            epochs=int(epochs),
            random_lengths=section.random_lengths,
            seed=given.get("data_seed") or given.get("seed", 42),
        )
        validation_plan = data.StreamPlan(
            arrays["validation"].tokens,
            streams=evaluation_rows * world_size,
            segment_length=section.segment_length,
        )
    except ValueError as error:
        sys.exit(f"{recipe.path}: {error}")
    defaults = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "save_steps": given.get("eval_steps", 0.2),
        "save_total_limit": 2,
        "report_to": "none",
        "ddp_find_unused_parameters": False,
        "use_cpu": not torch.cuda.is_available(),
    }
    fixed = {
        "num_train_epochs": 1,  # the plan holds all epochs
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "per_device_eval_batch_size": evaluation_rows,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "dataloader_drop_last": False,
    }
    clashing = sorted(set(given) & set(fixed))
    if clashing:
        sys.exit(
            f"{recipe.path}: training.{clashing[0]} is set by the script, from data.streams and the epochs."
        )
    try:
        arguments = TrainingArguments(**{**defaults, **given, **fixed})
    except (TypeError, ValueError) as error:
        sys.exit(f"{recipe.path}: section training: {error}")
    return plan, validation_plan, arguments


def make_optimizer(recipe: Recipe, arguments: TrainingArguments):
    try:
        return training.optimizer_factory(
            recipe.training.optimizer, arguments, **recipe.training.optimizer_arguments
        )
    except ValueError as error:
        sys.exit(f"{recipe.path}: section training: {error}")


def finish(recipe, trainer, tokenizer, arrays, output: Path, seconds: float, progress) -> dict:
    """Measures the model on validation and test text; writes the summary, the loss curve and the card."""
    model = trainer.model
    scores = {
        split: training.score_language_model(
            model, arrays[split], streams=recipe.data.evaluation_streams
        ).as_dict()
        for split in ("validation", "test")
        if split in arrays
    }
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    facts = {
        "recipe": recipe.name,
        "command": " ".join(
            ["python", "scripts/pretrain.py", recipe.path, *map(shlex.quote, recipe.overrides)]
        ),
        "model_class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "train_tokens": len(arrays["train"].tokens),
        "train_bytes": int(arrays["train"].n_bytes),
        "train_documents": int(arrays["train"].n_documents),
        "updates": trainer.state.global_step,
        "epochs": round(float(trainer.state.epoch or 0), 3),
        "training_seconds": round(seconds, 1),
        "tokens_per_second": progress.tokens_per_second and round(progress.tokens_per_second),
        "scores": scores,
        "evaluations": [
            {"step": e["step"], "epoch": e.get("epoch"), "eval_loss": e["eval_loss"]} for e in evaluations
        ],
        "learning_rate_trials": recipe.training.trials,
        "machine": training.describe_machine(),
        "recipe_content": recipe.as_dict(),
    }
    if recipe.training.prompt:
        facts["prompt"] = recipe.training.prompt
        facts["continuation"] = continue_text(model, tokenizer, recipe.training.prompt)
    curve = training.plot_loss_curve(trainer.state.log_history, output / "loss_curve.png", recipe.name)
    facts["loss_curve"] = curve and curve.name
    training.write_json(output / "training_summary.json", facts)
    write_model_card(output, facts)
    return facts


def continue_text(model, tokenizer, prompt: str) -> str:
    set_seed(0)
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    model.eval()
    ids = model.generate(**inputs, max_new_tokens=60, do_sample=True, temperature=0.7, top_p=0.9)
    return tokenizer.decode(ids[0], skip_special_tokens=True)


def show(facts: dict, model, tokenizer, recipe: Recipe, output: Path) -> None:
    print(f"\n{'':12}{'loss':>8}{'ppl/token':>12}{'ppl/word':>12}{'bits/byte':>12}")
    for split, score in facts["scores"].items():
        print(
            f"{split:12}{score['loss']:8.3f}{score['perplexity_per_token']:12.2f}"
            f"{score['perplexity_per_word']:12.2f}{score['bits_per_byte']:12.4f}"
        )
    speed = f", {facts['tokens_per_second']} tokens/s" if facts["tokens_per_second"] else ""
    print(f"trained {facts['epochs']:.2f} epochs in {facts['training_seconds']:.0f} s{speed}")
    if "continuation" in facts:
        print(f"\n{facts['continuation']}\n")
    print(f"model, tokenizer, training_summary.json, loss_curve.png and model card: {output}")
    print(f"try: python scripts/generate.py {output} --prompt 'And it came to pass'")


if __name__ == "__main__":
    print(f"hfseq {hfseq.__version__}", file=sys.stderr)
    main()
