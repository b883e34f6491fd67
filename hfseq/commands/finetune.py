"""Fine-tune any model with the head: texts, pairs, several labels, numbers, tags, answers, choices.

    hfseq finetune encoder-sst2
    hfseq finetune outputs/encoder-wiki-imdb --dataset sst2 --learning_rates 1e-4 3e-4 --seeds 0 1 2
    hfseq finetune outputs/encoder-wiki-imdb --dataset sst2 --from_scratch --output_dir outputs/scratch
    hfseq finetune outputs/awd-lstm-imdb --dataset sst2 --classifier_pooling concat \\
        --layer_learning_rate_decay 0.4 --gradual_unfreezing --lr_scheduler_type slanted_triangular
    hfseq finetune --baseline bag-of-words --dataset sst2
    hfseq finetune MODEL --task sequence-classification --train_file a.tsv --validation_file b.tsv \\
        --test_file c.tsv --text_column premise --text_pair_column hypothesis
    hfseq finetune MODEL --task question-answering --train_file train-v1.1.json
    torchrun --nproc_per_node 2 -m hfseq finetune encoder-sst2

Takes a recipe (the name of one that comes with hfseq, or a .yaml) or a model; `--field value` sets any field of the
recipe's sections: `data` (what is read), `task` (its type and fields), `model` (where it starts, and the fields of its
config) and `training` (the fields of TrainingArguments, learning rates, seeds, patience).

Every learning rate is tried with the first seed; the one whose validation score is best, by the task's own metric, is
run with the others. Training stops when that score stops improving, and the best checkpoint is kept. The test side is
looked at once per seed and chooses nothing. Called again after an interruption, it goes on after the last finished run.
The numbers are those of one process under any number of them.

ULMFiT (Howard and Ruder 2018) is --layer_learning_rate_decay with --gradual_unfreezing and --lr_scheduler_type
slanted_triangular, for any model whose layers are numbered.

The output directory holds the model of the seed that is best on validation (ready for `pipeline`), its recipe,
`predictions.jsonl`, `finetune_summary.json` with every number, a picture and a card. HFSEQ_DATA names the folder of
sst2/ and wnut17/.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import logging
import math
import shlex
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import transformers
import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    SchedulerType,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

import hfseq  # noqa: F401  (registers the model classes)

from .. import training
from ..accelerators import available_accelerator
from ..data.files import write_lines
from ..hints import nearest_hint
from ..loading import load_config
from ..paths import user_path
from ..plots import has_matplotlib
from ..recipe import (
    Recipe,
    Section,
    check_sections,
    find_recipe,
    packaged_recipes,
    read_number,
    read_sections,
)
from ..tasks import DATASETS, TASKS, LabelledData, Task, load_data
from ..tasks.base import Prediction, Row
from ..tasks.card import write_task_card
from ..tasks.padding import settle_padding
from ..tasks.starting_point import StartingModel, load_parts, make_model
from ..tasks.trainer import TaskTrainer
from ..training.arguments import check_values, training_arguments
from ..training.processes import decide, is_main, process_options, start_processes
from .console import CommandParser, mistakes_told
from .outputs import check_output_directory, check_output_file

Run = dict[str, Any]
Number = TypeVar("Number", int, float)

SUMMARY, PROGRESS, PREDICTIONS = "finetune_summary.json", "finetune_progress.json", "predictions.jsonl"
SLANTED = "slanted_triangular"
SAMPLINGS = ("group_by_length", "random", "sequential")
# Options of the command line that take several words, and those that may stand alone.
SEVERAL = ("learning_rates", "seeds", "labels", "label_columns")
ALONE = {"from_scratch": "true", "trust_remote_code": "true", "gradual_unfreezing": "1.0"}
# What the command sets itself, and what is said in its place.
SET_HERE = {
    "learning_rate": "learning_rates",
    "seed": "seeds",
    "per_device_train_batch_size": "batch_size",
    "eval_steps": "evaluations_per_epoch",
    "eval_strategy": "evaluations_per_epoch",
    "save_strategy": "the best checkpoint is kept",
    "metric_for_best_model": "the task has its own",
    "load_best_model_at_end": "it always is",
    "remove_unused_columns": "the task's rows have their own",
}


@dataclass
class FineTuning:
    """The `training` section of a fine-tuning recipe, beside the fields of TrainingArguments."""

    output_dir: str | None = None
    """By default outputs/RECIPE or outputs/MODEL-DATA."""
    learning_rates: list[float] | float = field(default_factory=lambda: [3e-4])
    """Each is tried with the first seed."""
    seeds: list[int] | int = field(default_factory=lambda: [0])
    """The best rate is run with each."""
    num_train_epochs: float = 10.0
    """At most."""
    evaluations_per_epoch: int = 1
    patience: int = 3
    """Evaluations without a better score before a run stops."""
    batch_size: int = 32
    """Rows of a batch over all processes; times gradient_accumulation_steps they are an update."""
    layer_learning_rate_decay: float = 1.0
    """Each layer's learning rate, times that of the layer above; the head has the full rate."""
    gradual_unfreezing: float | None = None
    """Train the head alone first, one layer more every so many epochs."""
    lr_scheduler_type: str = "linear"
    """One of TrainingArguments, or slanted_triangular: ULMFiT's."""
    lr_scheduler_kwargs: dict[str, Any] | None = None
    """More arguments of the schedule; of slanted_triangular cut_fraction (0.1) and ratio (32)."""

    def __post_init__(self) -> None:
        self.learning_rates = _numbers(self.learning_rates, "learning_rates")
        for rate in self.learning_rates:
            if not 0 < rate < math.inf:
                raise ValueError(f"learning_rates must be numbers above 0, not {rate!r}.")
        self.seeds = _numbers(self.seeds, "seeds")
        for seed in self.seeds:
            if not isinstance(seed, int) or not 0 <= seed < 2**32:
                raise ValueError(f"seeds must be whole numbers from 0 to {2**32 - 1}, not {seed!r}.")
        for name in ("evaluations_per_epoch", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 < self.num_train_epochs < math.inf:
            raise ValueError(f"num_train_epochs must be above 0, not {self.num_train_epochs}.")
        if not 0 < self.layer_learning_rate_decay <= 1:
            raise ValueError(
                f"layer_learning_rate_decay must be above 0 and at most 1, not {self.layer_learning_rate_decay}: 1 is "
                "one rate for all."
            )
        if self.gradual_unfreezing is not None and not 0 < self.gradual_unfreezing < math.inf:
            raise ValueError(
                f"gradual_unfreezing takes epochs per layer above 0, not {self.gradual_unfreezing}."
            )
        if self.output_dir is not None:
            self.output_dir = str(user_path(self.output_dir))
        schedules = [SLANTED, *(kind.value for kind in SchedulerType)]
        if self.lr_scheduler_type not in schedules:
            raise ValueError(
                f"unknown lr_scheduler_type {self.lr_scheduler_type!r}."
                f"{nearest_hint(self.lr_scheduler_type, schedules)} Known: {', '.join(schedules)}."
            )
        if self.lr_scheduler_type == SLANTED:
            for key in self.lr_scheduler_kwargs or {}:
                if key not in ("cut_fraction", "ratio"):
                    raise ValueError(
                        f"{SLANTED} has no {key!r} in lr_scheduler_kwargs: cut_fraction and ratio."
                    )


def several(values: list[Number] | Number) -> list[Number]:
    """A list, of one number too."""
    return values if isinstance(values, list) else [values]


def _numbers(values: Any, name: str) -> list:
    """A list of different numbers, from one or several; a word of the command line may be one."""
    values = [
        read_number(yaml.safe_load(value) if isinstance(value, str) else value) for value in several(values)
    ]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} must be numbers, not {value!r:.60}.")
    if not values:
        raise ValueError(f"{name} is empty: give at least one.")
    return list(dict.fromkeys(values))


# ------------------------------------------------------------------------------------------------------ the recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe_or_model",
        nargs="?",
        help="a recipe (encoder-sst2, my.yaml), or a checkpoint directory or Hub id",
    )
    parser.add_argument("--task", help=", ".join(TASKS))
    parser.add_argument("--dataset", help=f"instead of files: {', '.join(DATASETS)}")
    parser.add_argument("--baseline", help="bag-of-words: a linear model instead of a model")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is in output_dir")


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("finetune", __doc__)
    add_arguments(parser)
    argv = sys.argv[1:] if argv is None else argv
    # The recipe or model comes first, or is left out; argparse would take an unknown option's value for it.
    left_out = [""] if argv and argv[0].startswith("-") else []
    known, rest = parser.parse_known_args([*left_out, *argv])
    transformers.logging.disable_progress_bar()
    with mistakes_told(parser):
        recipe = load_recipe(known, rest)
        check_values(recipe.others["training"])
        if training.is_shared_out(recipe.others["training"]):
            raise ValueError(
                "fine-tuning goes back to its best checkpoint, which does not work with FSDP or DeepSpeed: start it by "
                "DDP (torchrun -m hfseq finetune ..., or accelerate's scripts/launch/ddp.yaml)"
            )
        start_processes(**process_options(recipe.others["training"]))
        if not is_main():
            logging.getLogger("hfseq").setLevel(logging.ERROR)
        run(recipe, known.overwrite, shlex.join(["hfseq", "finetune", *argv]))


def load_recipe(known: argparse.Namespace, rest: list[str]) -> Recipe:
    """The recipe that the command line names or is.

    Raises:
        ValueError: what does not fit, by its name; FileNotFoundError: no such recipe.
    """
    target = known.recipe_or_model or None
    raw: dict[str, dict[str, Any]] = {}
    name, path = "", "finetune"
    if target is not None and is_recipe(target):
        file = find_recipe(target)
        raw, name, path = read_sections(file), file.stem, str(file)
    elif target is not None:
        raw["model"] = {"path": target}
    given = {"task": ("task", "type"), "dataset": ("data", "dataset"), "baseline": ("model", "baseline")}
    for option, (section, key) in given.items():
        if (value := getattr(known, option)) is not None:
            raw.setdefault(section, {})[key] = value
    return check_sections(raw, option_words(rest), _sections, name, path)


def is_recipe(target: str) -> bool:
    """Whether a word means a recipe: a .yaml, or a packaged name that is no directory here."""
    if target.endswith((".yaml", ".yml")):
        return True
    return target in packaged_recipes() and not user_path(target).exists()


def option_words(words: list[str]) -> list[str]:
    """`--seeds 0 1 2` and `--from_scratch` as `--option=value`, the form of all recipes."""
    found: list[str] = []
    words = list(words)
    while words:
        word = words.pop(0)
        option = word.removeprefix("--").rpartition(".")[2]
        if not word.startswith("--") or "=" in word:
            found.append(word)
            continue
        values = []
        while words and not words[0].startswith("--"):
            values.append(words.pop(0))
            if option not in SEVERAL:
                break
        if option in SEVERAL and values and not values[0].startswith("["):
            found.append(f"{word}={json.dumps(values)}")
        elif values or option in ALONE:
            found.append(f"{word}={values[0] if values else ALONE[option]}")
        else:
            found.append(word)
    return found


def _sections(raw: dict[str, dict[str, Any]], path: str) -> dict[str, Section]:
    """What the sections of this recipe may hold: the task and the model decide."""
    dataset = raw.get("data", {}).get("dataset")
    name = raw.get("task", {}).get("type") or (DATASETS[dataset].task if dataset in DATASETS else None)
    if name not in TASKS:
        if dataset is not None and name is None:
            LabelledData(dataset=dataset)  # says what is wrong with it
        hint = nearest_hint(str(name), TASKS) if name else ""
        raise ValueError(
            f"{path}: {f'unknown task {name!r}.' if name else 'which task?'}{hint} Known: {', '.join(TASKS)}."
        )
    raw.setdefault("task", {})["type"] = name
    task = TASKS[name]
    start = raw.get("model", {})
    names: frozenset[str] = frozenset()
    owner = "a baseline"
    if start.get("path") is not None:
        model = str(user_path(start["path"]))
        try:
            config = load_config(model, trust_remote_code=bool(start.get("trust_remote_code")))
        except (OSError, ValueError) as error:
            raise ValueError(f"Cannot load the config of {model}: {error}") from error
        names = frozenset({*config.to_dict(), *(f.name for f in dataclasses.fields(config))})
        owner = f"model_type {config.model_type}"
    given = {f.name for f in dataclasses.fields(FineTuning)}
    arguments = {f.name for f in dataclasses.fields(TrainingArguments) if f.init} - given - set(SET_HERE)
    others = {
        f.name: f"the task {other.name}"
        for other in TASKS.values()
        for f in dataclasses.fields(other.options_class)
    }
    return {
        "data": Section(LabelledData),
        "task": Section(task.options_class, frozenset({"type"}), f"task {name}", elsewhere=others),
        "model": Section(StartingModel, names, owner),
        "training": Section(
            FineTuning,
            frozenset(arguments),
            elsewhere={key: f"TrainingArguments that is set here ({how})" for key, how in SET_HERE.items()},
            texts=frozenset({"run_name", "hub_model_id"}),
        ),
    }


# ------------------------------------------------------------------------------------------------------- the runs


def run(recipe: Recipe, overwrite: bool, command: str) -> None:
    """From a recipe to an output directory."""
    start: StartingModel = recipe.sections["model"]
    options: FineTuning = recipe.sections["training"]
    if start.baseline and recipe.others["training"]:
        raise ValueError(f"--{next(iter(recipe.others['training']))} means nothing to a baseline.")
    if options.gradual_unfreezing is not None and start.from_scratch:
        raise ValueError("--gradual_unfreezing keeps pretrained layers as they are: --from_scratch has none.")
    task_class = TASKS[recipe.others["task"]["type"]]
    if recipe.others["training"].get("label_smoothing_factor") and not task_class.can_smooth:
        raise ValueError(f"--label_smoothing_factor means nothing to {task_class.name}: leave it out.")
    data = load_data(task_class, recipe.sections["data"], recipe.sections["task"])
    task = task_class(data, recipe.sections["task"])
    name = recipe.name or f"{start.name}-{data.name.replace(', ', '-')}"
    output = Path(options.output_dir or f"outputs/{name}")
    decide(lambda: prepare_output(output, overwrite))
    say(
        f"{data.name} ({data.task}): "
        + ", ".join(f"{len(examples):,} {side}" for side, examples in data.sides.items())
        + (f"; {len(data.labels)} labels" if data.labels else "")
    )
    for warning in data.warnings:
        say(f"Note: {warning}")
    facts = run_baseline(task) if start.baseline else run_model(recipe, task, output, overwrite)
    if is_main():
        (output / "recipe.yaml").write_text(written(recipe), encoding="utf-8")
        finish(task, {"command": command, **facts}, output)


def say(text: str) -> None:
    """Prints it once, whatever the number of processes."""
    if is_main():
        print(text, flush=True)


def written(recipe: Recipe) -> str:
    """The recipe as YAML, command line included."""
    content = {
        name: {k: v for k, v in values.items() if v is not None} for name, values in recipe.as_dict().items()
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def prepare_output(output: Path, overwrite: bool) -> None:
    if (output / SUMMARY).exists() and not overwrite:
        raise ValueError(f"{output} holds a finished run: say --overwrite, or choose another --output_dir.")
    check_output_directory(output, "--output_dir")
    output.mkdir(parents=True, exist_ok=True)
    for name in (PREDICTIONS, "README.md", "report.png", "recipe.yaml"):
        check_output_file(output / name, "--output_dir:")
    (output / SUMMARY).unlink(missing_ok=True)


def run_model(recipe: Recipe, task: Task, output: Path, overwrite: bool) -> dict[str, Any]:
    """Tries the learning rates, runs the seeds; the best model stays in `output`."""
    start: StartingModel = recipe.sections["model"]
    options: FineTuning = recipe.sections["training"]
    config, tokenizer, max_length = load_parts(start, task)
    for key, value in recipe.others["model"].items():
        try:
            setattr(config, key, value)
        except (StrictDataclassError, TypeError, ValueError) as error:
            raise ValueError(f"model.{key} {value!r:.60}: {' '.join(str(error).split())}") from error
    task.prepare(tokenizer, config)
    rows: dict[str, list[Row]] = {}
    encoding = {}
    for side, examples in task.data.sides.items():
        rows[side], encoding[side] = task.encode(examples, tokenizer, max_length)
        # Neighbours of one length need no padding; each row knows its example.
        if side != "train":
            rows[side].sort(key=lambda row: len(row["input_ids"]))
        said = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in encoding[side].items() if n)
        say(
            f"{side}: {len(rows[side]):,} rows of up to {max_length or 'any number of'} tokens{said and '; ' + said}"
        )

    progress = Progress(output, recipe, task, overwrite)

    rates, seeds = several(options.learning_rates), several(options.seeds)

    def train(rate: float, seed: int) -> Run:
        done = progress.finished(rate, seed)
        if done is None:
            done = train_once(recipe, task, tokenizer, rows, rate, seed, output)
            progress.add(done, keep_best(task, progress.kept, done, output))
        return done

    trials, runs = [], {}
    for rate in rates:
        runs[rate] = train(rate, seeds[0])
        keys = ("learning_rate", "seed", "validation", "epochs", "diverged")
        trials.append({key: runs[rate][key] for key in keys})
    converged = [done for done in runs.values() if not done["diverged"]]
    if not converged or progress.kept is None:  # the one goes with the other
        raise ValueError(f"Every run diverged; try lower --learning_rates than {min(rates):g}.")
    final = [max(converged, key=lambda done: validation_score(task, done))]
    for seed in seeds[1:]:
        final.append(train(final[0]["learning_rate"], seed))
    kept = progress.kept
    return {
        "model": start.path,
        "model_class": kept["model_class"],
        "parameters": kept["parameters"],
        "initialization": "from scratch" if start.from_scratch else "pretrained",
        "drawn": None if start.from_scratch else kept["drawn"],
        "padding_side": kept["padding_side"],
        "max_length": max_length,
        "labelled_pieces": getattr(task, "pieces", None),
        "encoding": encoding,
        "learning_rate": final[0]["learning_rate"],
        "learning_rate_trials": trials,
        "kept_seed": kept["seed"],
        "runs": [{k: v for k, v in done.items() if k not in ("predictions", "folder")} for done in final],
        "training_arguments": {
            **{
                k: v
                for k, v in dataclasses.asdict(options).items()
                if k not in ("output_dir", "seeds", "learning_rates")
            },
            **recipe.others["training"],
            **recipe.others["model"],
        },
        "predictions": kept["predictions"],
    }


def train_once(
    recipe: Recipe,
    task: Task,
    tokenizer: Any,
    rows: dict[str, list[Row]],
    rate: float,
    seed: int,
    output: Path,
) -> Run:
    """One run: what it scored; its best checkpoint is in run["folder"]."""
    options: FineTuning = recipe.sections["training"]
    given = recipe.others["training"]
    folder = output / f"run-{rate:g}-{seed}"
    decide(lambda: shutil.rmtree(folder, ignore_errors=True))
    accumulated = given.get("gradient_accumulation_steps", 1)
    updates = math.ceil(len(rows["train"]) / options.batch_size / accumulated)
    arguments = make_arguments(options, given, task, folder, rate, seed, updates)
    set_seed(seed)
    model, drawn = make_model(recipe.sections["model"], task, recipe.others["model"])
    model.to(arguments.device)
    inputs = {side: model_inputs(model, tokenizer, side_rows) for side, side_rows in rows.items()}
    side = settle_padding(model, tokenizer, task, inputs["train"])
    stopping = EarlyStoppingCallback(options.patience)
    trainer = TaskTrainer(
        task=task,
        rows=rows,
        inputs=inputs,
        tokenizer=tokenizer,
        batch_size=options.batch_size,
        slanted=(options.lr_scheduler_kwargs or {}) if options.lr_scheduler_type == SLANTED else None,
        model=model,
        args=arguments,
        callbacks=[stopping, training.StopOnNonFiniteLoss()],
    )
    if options.layer_learning_rate_decay != 1:
        trainer.optimizer = training.layerwise_optimizer(trainer, options.layer_learning_rate_decay)
    if options.gradual_unfreezing is not None:
        trainer.add_callback(training.GradualUnfreezing(model, options.gradual_unfreezing, stopping))
    training.check_strategy(trainer, "adamw")
    training.replace_progress(trainer, OneLine(task.metric, f"lr {rate:g} seed {seed}"))
    done: Run = {"learning_rate": rate, "seed": seed, "model_class": type(model).__name__, "diverged": False}
    done |= {"parameters": sum(p.numel() for p in model.parameters()), "drawn": drawn, "padding_side": side}
    done["folder"] = folder
    began = time.perf_counter()
    try:
        trainer.train()
    except FloatingPointError as error:
        say(str(error))
        decide(lambda: shutil.rmtree(folder, ignore_errors=True))
        return done | {"diverged": True, "validation": None, "epochs": None}
    done["training_seconds"] = round(time.perf_counter() - began, 1)
    history = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    done |= {"updates": trainer.state.global_step, "epochs": round(float(trainer.state.epoch), 2)}
    done["best_update"] = max(history, key=lambda entry: entry[f"eval_{task.metric}"])["step"]
    done["evaluations"] = [
        {"update": e["step"], "loss": e["eval_loss"], task.metric: e[f"eval_{task.metric}"]} for e in history
    ]
    # The best checkpoint is loaded now. It predicts once more, so that the score is that of what is saved.
    done["predictions"] = {}
    for name in [name for name in rows if name != "train"]:
        examples = task.data.sides[name]
        done["predictions"][name] = trainer.predictions(name)
        done[name] = task.score(examples, done["predictions"][name]) if task.is_labelled(examples) else None
    decide(lambda: shutil.rmtree(folder))
    training.save_model(trainer, folder)
    decide(lambda: (folder / "training_args.bin").unlink(missing_ok=True))
    said = [
        f"{name} {task.metric} {done[name][task.metric]:.4f}" for name in done["predictions"] if done[name]
    ]
    say(f"lr {rate:g} seed {seed}: {', '.join(said)}")
    return done


def make_arguments(
    options: FineTuning, given: dict[str, Any], task: Task, folder: Path, rate: float, seed: int, updates: int
) -> TrainingArguments:
    """What the stock Trainer is told: our defaults, what the recipe gives, what this command decides.

    Raises:
        ValueError: an argument that TrainingArguments refuses.
    """
    defaults = {
        "warmup_steps": 0.06,
        "weight_decay": 0.01,
        "per_device_eval_batch_size": 2 * options.batch_size,
        "train_sampling_strategy": "group_by_length",
        "logging_steps": max(1, updates // 10),
        "use_cpu": available_accelerator() is None,
        "ddp_find_unused_parameters": options.gradual_unfreezing is not None,
        "report_to": "none",
    }
    fixed = {
        "output_dir": str(folder),
        "learning_rate": rate,
        "seed": seed,
        "num_train_epochs": options.num_train_epochs,
        "per_device_train_batch_size": options.batch_size,
        "eval_strategy": "steps",
        "eval_steps": max(1, math.ceil(updates / options.evaluations_per_epoch)),
        "save_strategy": "best",
        "save_total_limit": 1,
        # Trainer loads the best checkpoint of a sharded run from its parts.
        "save_only_model": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{task.metric}",
        "greater_is_better": True,
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
    }
    if options.lr_scheduler_type != SLANTED:
        fixed["lr_scheduler_type"] = options.lr_scheduler_type
        fixed["lr_scheduler_kwargs"] = options.lr_scheduler_kwargs or {}
    arguments = training_arguments({**defaults, **given, **fixed})
    if arguments.train_sampling_strategy not in SAMPLINGS:
        raise ValueError(f"train_sampling_strategy is one of {', '.join(SAMPLINGS)} here.")
    return arguments


def model_inputs(model: PreTrainedModel, tokenizer: Any, rows: list[Row]) -> list[Row]:
    """The columns of each row that this model takes.

    Segments only where the tokenizer gives them to whoever calls it: GPT-2 adds the embedding of token 0 for segment 0,
    and a pipeline, which passes none, would find another model than was trained.
    """
    takes = set(inspect.signature(model.forward).parameters)
    has_segments = "token_type_ids" in tokenizer.model_input_names
    if not has_segments or getattr(model.config, "type_vocab_size", 2) < 2:
        takes.discard("token_type_ids")
    return [{name: value for name, value in row.items() if name in takes} for row in rows]


def validation_score(task: Task, done: Run) -> float:
    """The number that chooses between runs: the task's own metric."""
    score = done["validation"][task.metric]
    return score if math.isfinite(score) else -math.inf


class Progress:
    """The runs that are finished, in a file: a comparison that was interrupted goes on with the next run.

    Args:
        output: where the file is; what it holds counts if the recipe is the same, or there are more seeds now.

    Attributes:
        kept: the run whose weights are in `output`, or None.
    """

    def __init__(self, output: Path, recipe: Recipe, task: Task, overwrite: bool):
        settings = recipe.as_dict()
        settings["training"] = {
            k: v for k, v in settings["training"].items() if k not in ("output_dir", "seeds")
        }
        settings["examples"] = {side: len(examples) for side, examples in task.data.sides.items()}
        self.path, self.settings = output / PROGRESS, json.loads(json.dumps(settings))
        self.runs: list[Run] = []
        self.kept: Run | None = None
        before = decide(lambda: self._read(overwrite))
        seeds = set(recipe.sections["training"].seeds)
        if before and before["settings"] == self.settings and {r["seed"] for r in before["runs"]} <= seeds:
            self.runs = before["runs"]
            self.kept = None if before["kept"] is None else self.runs[before["kept"]]
            say(f"{self.path}: goes on after {len(self.runs)} finished runs (--overwrite begins anew)")

    def _read(self, overwrite: bool) -> dict[str, Any] | None:
        if overwrite or not self.path.exists():
            return None
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:  # damaged: what it knew is trained again
            return None

    def finished(self, rate: float, seed: int) -> Run | None:
        return next(
            (done for done in self.runs if (done["learning_rate"], done["seed"]) == (rate, seed)), None
        )

    def add(self, done: Run, kept: Run | None) -> None:
        self.runs.append(done)
        self.kept = kept
        content = {
            "settings": self.settings,
            "runs": [{name: value for name, value in r.items() if name != "folder"} for r in self.runs],
            "kept": next((i for i, r in enumerate(self.runs) if r is kept), None),
        }
        decide(lambda: training.write_json(self.path, content) and None)


def keep_best(task: Task, kept: Run | None, done: Run, output: Path) -> Run | None:
    """The better run on validation; its files move to `output`, the other's folder goes."""
    if done["diverged"]:
        return kept
    folder = done["folder"]
    if kept is not None and validation_score(task, done) <= validation_score(task, kept):
        decide(lambda: shutil.rmtree(folder))
        return kept

    def move() -> None:
        for file in folder.iterdir():
            shutil.move(file, output / file.name)
        folder.rmdir()

    decide(move)
    return done


class OneLine(TrainerCallback):
    """A line per evaluation."""

    def __init__(self, metric: str, name: str):
        self.metric, self.name, self.loss = metric, name, math.nan

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: object,
    ) -> None:
        self.loss = logs.get("loss", self.loss)
        if f"eval_{self.metric}" in logs and state.is_world_process_zero:
            print(
                f"{self.name}  epoch {state.epoch:.2f}/{state.num_train_epochs}  training loss {self.loss:.4f}  "
                f"validation loss {logs['eval_loss']:.4f}  {self.metric} {logs[f'eval_{self.metric}']:.4f}",
                file=sys.stderr, flush=True,
            )  # fmt: skip


def run_baseline(task: Task) -> dict[str, Any]:
    """The task's linear model on the same sides."""
    found = task.baseline()
    done: Run = {"seed": None, "training_seconds": found.seconds}
    for side, claimed in found.predictions.items():
        examples = task.data.sides[side]
        done[side] = task.score(examples, claimed) if task.is_labelled(examples) else None
    return {
        "model": "bag-of-words",
        "model_class": found.description,
        "parameters": found.parameters,
        "initialization": "convex: no initialisation, no seed",
        "regularization_trials": found.trials,
        "runs": [done],
        "predictions": found.predictions,
    }


# ------------------------------------------------------------------------------------------------- what is left


def finish(task: Task, facts: dict[str, Any], output: Path) -> None:
    """Writes predictions, summary, picture and card."""
    data = task.data
    predictions: dict[str, list[Prediction]] = facts.pop("predictions")
    side = "test" if "test" in data.sides else "validation"
    examples, claimed = data.sides[side], predictions[side]
    write_lines(
        output / PREDICTIONS,
        (
            json.dumps({**task.record(example), **prediction, "place": example.place}, ensure_ascii=False)
            for example, prediction in zip(examples, claimed, strict=True)
        ),
    )
    scores = {}
    for name in ("validation", "test"):
        values = [done[name] for done in facts["runs"] if done.get(name)]
        if values:
            scores[name] = {metric: spread([v[metric] for v in values]) for metric in values[0]}
    facts = {
        "name": output.name,
        "task": data.task,
        "data": data.name,
        "examples": {name: len(examples) for name, examples in data.sides.items()},
        "split": data.split,
        "terms": data.terms,
        "warnings": data.warnings,
        "labels": data.labels,
        "metric": task.metric,
        "pipeline": task.pipeline,
        "pipeline_arguments": task.usage(),
        "auto_class": task.auto_class,
        "scores": scores,
        **facts,
        "predictions_of": side,
        "machine": training.describe_machine(),
    }
    if task.is_labelled(examples):
        facts["classes"] = task.classes(examples, claimed)
        if has_matplotlib():
            picture = task.picture(
                examples, claimed, output / "report.png", f"{output.name}: {data.name}, {side}"
            )
            facts["picture"] = picture and picture.name
    training.write_json(output / SUMMARY, facts)
    write_task_card(output, facts)
    (output / PROGRESS).unlink(missing_ok=True)
    for name, spreads in scores.items():
        print(f"{name}: " + ", ".join(f"{m} {s['mean']:.4f} ± {s['std']:.4f}" for m, s in spreads.items()))
    print(f"written to {output}")


def spread(values: list[float]) -> dict[str, Any]:
    """Mean and sample standard deviation (0 for a single run)."""
    if not all(map(math.isfinite, values)):  # such as the correlation of an answer that is always the same
        return {"mean": math.nan, "std": math.nan, "runs": values}
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "runs": values}


if __name__ == "__main__":
    main()
