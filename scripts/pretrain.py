"""Pretrains a language model: corpus -> tokenizer -> token arrays -> stock Trainer -> checkpoint and card.

    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml
    python scripts/pretrain.py scripts/recipes/encoder-kjv.yaml
    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml --hidden_size 256 --output_dir outputs/small
    python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml --train_file my.txt --corpus null --output_dir outputs/mine
    torchrun --nproc_per_node 2 scripts/pretrain.py RECIPE.yaml --use_cpu true --ddp_backend gloo

Everything is in the recipe (hfseq/recipe.py documents its fields); `--field value` changes one. What happens to an
output directory that already holds a run is asked, or said with `--resume` or `--overwrite`.

A recurrent model learns to predict the next token on contiguous streams (`stream_run`), an encoder to fill in masked
tokens (`masked_run`); the rest is the same for both.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    pipeline,
    set_seed,
)

import hfseq
from hfseq import data, training
from hfseq.cards import TASKS, write_model_card
from hfseq.recipe import Recipe, load_recipe, model_config


@dataclass
class Run:
    """What differs between the kinds of pretraining."""

    task: str
    """As the card names it: a key of hfseq.cards.TASKS."""
    auto_class: type
    plan: object
    """The batch plan of the whole run; `validation_plan`: of an evaluation."""
    validation_plan: object
    collator: Callable
    sizes: dict[str, object]
    """TrainingArguments that follow from the plan."""
    tokens_at: Callable[[int], int]
    """Tokens of an update, for the progress bar."""
    score: Callable
    """(model, token array) -> a score with `as_dict`."""
    callbacks: list[TrainerCallback] = field(default_factory=list)
    streams: int | None = None
    """Text streams whose state is carried and saved."""


def main() -> None:
    recipe, choice = parse_command_line()
    output = Path(recipe.training_arguments["output_dir"])
    is_main = int(os.environ.get("RANK", 0)) == 0
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    resume_from = prepare_output(output, recipe, choice, is_main)

    # Corpus, tokenizer, token arrays: written once, by the process that comes first, read by all.
    masked = recipe.model_type == "hfseq_encoder"
    tokenizer, arrays = prepare_data(recipe, masked)
    config = make_config(recipe, tokenizer, arrays)
    try:
        run = (masked_run if masked else stream_run)(recipe, config, tokenizer, arrays, world_size)
    except ValueError as error:
        sys.exit(f"{recipe.path}: {error}")
    arguments = make_arguments(recipe, run)
    optimizer = make_optimizer(recipe, arguments)
    set_seed(arguments.seed)
    model = run.auto_class.from_config(config)
    if model.can_generate():
        model.generation_config.suppress_tokens = data.surplus_ids(tokenizer, config.vocab_size) or None

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
            f"{(len(arrays['train']) - 1) / 1e6:.2f}M training tokens an epoch, {run.plan.epochs:g} epochs, "
            f"{run.plan.n_updates} updates; output in {output}"
        )

    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
    seconds = time.perf_counter() - start
    trainer.save_model(str(output))  # the tokenizer goes with it

    if is_main:
        facts = finish(recipe, run, trainer, tokenizer, arrays, output, seconds, progress)
        show(facts, recipe, output)


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


def prepare_data(recipe: Recipe, masked: bool) -> tuple[object, dict[str, data.TokenArray]]:
    section = recipe.data
    try:
        corpus = data.load_corpus(
            section.corpus,
            train_file=section.train_file,
            validation_file=section.validation_file,
            test_file=section.test_file,
            text_column=section.text_column,
            txt_document=section.txt_document,
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
                masked=masked,
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


def stream_run(recipe: Recipe, config, tokenizer, arrays, world_size: int) -> Run:
    """Next tokens on contiguous streams, the state carried from segment to segment."""
    section, given = recipe.data, recipe.training_arguments
    accumulation = given.get("gradient_accumulation_steps", 1)
    rows = given.get("per_device_train_batch_size")
    if rows is None:
        rows = section.streams // (accumulation * world_size)
    else:
        accumulation = max(1, section.streams // (rows * world_size))
    if rows * accumulation * world_size != section.streams:
        raise ValueError(
            f"data.streams = {section.streams} must be rows x accumulation x processes, but {rows} x "
            f"{accumulation} x {world_size} = {rows * accumulation * world_size}. Change streams, "
            "per_device_train_batch_size, gradient_accumulation_steps or the number of processes."
        )
    evaluation_rows = max(1, section.evaluation_streams // world_size)
    plan = data.StreamPlan(
        arrays["train"].tokens,
        streams=section.streams,
        segment_length=section.segment_length,
        epochs=int(given.get("num_train_epochs", 3)),
        random_lengths=section.random_lengths,
        seed=given.get("data_seed") or given.get("seed", 42),
    )
    validation_plan = data.StreamPlan(
        arrays["validation"].tokens,
        streams=evaluation_rows * world_size,
        segment_length=section.segment_length,
    )
    return Run(
        task="text-generation",
        auto_class=AutoModelForCausalLM,
        plan=plan,
        validation_plan=validation_plan,
        collator=data.StreamCollator(),
        sizes={
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": accumulation,
            "per_device_eval_batch_size": evaluation_rows,
        },
        tokens_at=lambda update: plan.segment_length_at(update) * section.streams,
        score=lambda model, array: training.score_language_model(
            model, array, streams=section.evaluation_streams
        ),
        callbacks=[training.ScaleRateWithLength(plan)] if section.random_lengths else [],
        streams=section.streams,
    )


def masked_run(recipe: Recipe, config, tokenizer, arrays, world_size: int) -> Run:
    """Masked tokens (and, with pairs of texts, BERT's or ALBERT's second task)."""
    section, given = recipe.data, recipe.training_arguments
    accumulation = given.get("gradient_accumulation_steps", 1)
    vocabulary = data.MaskingVocabulary.from_tokenizer(tokenizer)
    plan = data.MaskedPlan(
        arrays["train"],
        vocabulary,
        row_length=section.row_length,
        tokens_per_update=section.tokens_per_update,
        epochs=given.get("num_train_epochs", 3),
        micro_batches=accumulation * world_size,
        packing=section.packing,
        long_documents=section.long_documents,
        masking=data.Masking(
            rate=section.mask_rate,
            strategy=section.mask_strategy,
            replacement=section.mask_replacement,
            rate_end=section.mask_rate_end,
        ),
        seed=given.get("data_seed") or given.get("seed", 42),
    )
    if plan.longest_row > config.max_position_embeddings:
        raise ValueError(
            f"data.row_length {plan.longest_row} is longer than model.max_position_embeddings "
            f"{config.max_position_embeddings}: raise that, or shorten the rows."
        )
    pairs = section.packing in ("nsp", "sop")
    if pairs and config.type_vocab_size < 2:
        raise ValueError(
            f"data.packing {section.packing} has rows of two texts, but model.type_vocab_size is "
            f"{config.type_vocab_size}: set it to 2."
        )
    prompt = recipe.training.prompt
    if prompt and tokenizer.mask_token not in prompt:
        raise ValueError(f"training.prompt {prompt!r} has no {tokenizer.mask_token} to fill in.")
    tokenizer.model_max_length = config.max_position_embeddings

    def evaluation_plan(array: data.TokenArray) -> data.MaskedPlan:
        return data.MaskedPlan.evaluation(
            array,
            vocabulary,
            row_length=section.row_length,
            tokens_per_batch=max(4096, plan.longest_row),
            processes=world_size,
            packing=section.packing,
            long_documents=section.long_documents,
        )

    return Run(
        task="fill-mask",
        auto_class=AutoModelForPreTraining if pairs else AutoModelForMaskedLM,
        plan=plan,
        validation_plan=evaluation_plan(arrays["validation"]),
        collator=data.WholeBatchCollator(),
        # An item of the plan is a whole micro-batch.
        sizes={
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": accumulation,
            "per_device_eval_batch_size": 1,
        },
        tokens_at=plan.tokens_at,
        score=lambda model, array: training.score_masked_language_model(model, evaluation_plan(array)),
    )


def make_arguments(recipe: Recipe, run: Run) -> TrainingArguments:
    given = dict(recipe.training_arguments)
    for name in ("num_train_epochs", "gradient_accumulation_steps", "per_device_train_batch_size"):
        given.pop(name, None)  # the plan was made with them
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


def make_optimizer(recipe: Recipe, arguments: TrainingArguments):
    try:
        return training.optimizer_factory(
            recipe.training.optimizer, arguments, **recipe.training.optimizer_arguments
        )
    except ValueError as error:
        sys.exit(f"{recipe.path}: section training: {error}")


def finish(recipe, run, trainer, tokenizer, arrays, output: Path, seconds: float, progress) -> dict:
    """Measures the model on validation and test text; writes the summary, the loss curve and the card."""
    model = trainer.model
    scores = {
        split: run.score(model, arrays[split]).as_dict()
        for split in ("validation", "test")
        if split in arrays
    }
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
        if run.task == "fill-mask":
            facts["guesses"] = fill_in(model, tokenizer, recipe.training.prompt)
        else:
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


def fill_in(model, tokenizer, prompt: str) -> list[dict[str, object]]:
    """The five likeliest tokens in place of the prompt's mask ("[MASK]" or whatever the tokenizer's is)."""
    model.eval()
    if not hasattr(model, "next_sentence"):
        fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, device=model.device)
        return [
            {"token": guess["token_str"].strip(), "probability": round(guess["score"], 3)}
            for guess in fill(prompt)
        ]
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        logits = model(**inputs).prediction_logits[inputs["input_ids"] == tokenizer.mask_token_id][0]
    best = logits.softmax(-1).topk(5)
    return [
        {"token": tokenizer.decode([i]).strip(), "probability": round(p, 3)}
        for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def show(facts: dict, recipe: Recipe, output: Path) -> None:
    metrics = TASKS[facts["task"]].metrics
    print(f"\n{'':12}{'loss':>8}" + "".join(f"{name:>30}" for name, _ in metrics.values()))
    for split, score in facts["scores"].items():
        cells = "".join(f"{score[key]:>30{shape}}" for key, (_, shape) in metrics.items())
        print(f"{split:12}{score['loss']:8.3f}{cells}")
    speed = f", {facts['tokens_per_second']} tokens/s" if facts["tokens_per_second"] else ""
    print(f"trained {facts['epochs']:.2f} epochs in {facts['training_seconds']:.0f} s{speed}")
    if "continuation" in facts:
        print(f"\n{facts['continuation']}\n")
    if "guesses" in facts:
        guesses = ", ".join(f"{guess['token']} ({guess['probability']})" for guess in facts["guesses"])
        print(f"\n{facts['prompt']}\n  {guesses}\n")
    print(f"model, tokenizer, training_summary.json, loss_curve.png and model card: {output}")
    if facts["task"] == "text-generation":
        print(f"try: python scripts/generate.py {output} --prompt 'And it came to pass'")


if __name__ == "__main__":
    print(f"hfseq {hfseq.__version__}", file=sys.stderr)
    main()
