"""Fine-tunes any model with the head: texts, pairs, several labels, numbers, tags, answers, choices.

    python scripts/finetune.py outputs/encoder-wiki-imdb --dataset sst2 --learning_rates 1e-4 3e-4 --seeds 0 1 2
    python scripts/finetune.py outputs/encoder-wiki-imdb --dataset sst2 --from_scratch --output_dir outputs/scratch
    python scripts/finetune.py outputs/awd-lstm-imdb --dataset sst2 --classifier_pooling concat \
        --layer_learning_rate_decay 0.4 --gradual_unfreezing
    python scripts/finetune.py --baseline bag-of-words --dataset sst2
    python scripts/finetune.py MODEL --task sequence-classification --train_file a.tsv --validation_file b.tsv \
        --test_file c.tsv --text_column premise --text_pair_column hypothesis
    python scripts/finetune.py MODEL --task question-answering --train_file train-v1.1.json

Every learning rate is tried with the first seed, the one that is best on validation is run with the others; training
stops when validation stops improving, and the best checkpoint is kept. The test side is looked at once per seed and
chooses nothing. Called again after an interruption, it goes on after the last finished run. `--field value` sets any
other field of TrainingArguments or of the model's config, such as `--weight_decay 0.1 --hidden_dropout_prob 0.1`.
ULMFiT (Howard and Ruder 2018) is --layer_learning_rate_decay with --gradual_unfreezing, for any model whose layers are
numbered.

The output directory holds the model of the seed that is best on validation (ready for `pipeline`), its
`predictions.jsonl`, `finetune_summary.json` with every number, a picture and a card. hfseq/data/tasks.py documents the
files, HFSEQ_DATA names the folder of sst2/ and wnut17/.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import json
import math
import shlex
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from transformers import (
    AutoConfig,
    AutoTokenizer,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import hfseq  # noqa: F401  (registers the model classes)
from hfseq import training
from hfseq.data import tagging, tasks
from hfseq.plots import has_matplotlib
from hfseq.training.fine_tuning import TASK_CLASSES, AnsweringTask, FineTuningTask, RowOptions


def parse_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # --learning_rate is no short form of --learning_rates
        description=__doc__.splitlines()[0],
        epilog="Any other --field value: a field of TrainingArguments or of the model's config.",
    )
    parser.add_argument(
        "model", nargs="?", help="a checkpoint directory or Hub id; with --from_scratch its config"
    )
    source = parser.add_argument_group("data")
    source.add_argument("--dataset", help=f"instead of files: {', '.join(tasks.DATASETS)}")
    source.add_argument("--task", help=", ".join(tasks.TASKS))
    source.add_argument("--train_file")
    source.add_argument("--validation_file", help="default: --validation_share of the training examples")
    source.add_argument("--test_file")
    source.add_argument("--text_column", default="text")
    source.add_argument("--text_pair_column", help="the second text of a pair")
    source.add_argument("--label_column", default="label")
    source.add_argument("--label_separator", default=",", help="between several labels of a text")
    source.add_argument(
        "--labels", nargs="+", help="the classes in order; default: those of the training side"
    )
    source.add_argument("--validation_share", type=float, default=0.1)
    source.add_argument("--split_seed", type=int, default=0)
    source.add_argument("--max_length", type=int, help="tokens per text; default: the model's positions")
    source.add_argument(
        "--doc_stride", type=int, default=128, help="tokens that windows of a long context share"
    )
    parser.add_argument(
        "--labelled_pieces",
        choices=tagging.LABELLED_PIECES,
        help="the pieces of a word that have its tag; default: "
        "first, for recurrent models that read one way all",
    )
    run = parser.add_argument_group("runs")
    run.add_argument("--output_dir", help="default: outputs/MODEL-DATA")
    run.add_argument("--overwrite", action="store_true", help="replace the run that is in output_dir")
    run.add_argument("--tokenizer", help="where the model's directory has none")
    run.add_argument(
        "--from_scratch", action="store_true", help="the model's config, but none of its weights"
    )
    run.add_argument("--baseline", choices=["bag-of-words"], help="logistic regression instead of a model")
    run.add_argument("--seeds", type=int, nargs="+", default=[0])
    run.add_argument("--learning_rates", type=float, nargs="+", default=[3e-4])
    run.add_argument("--num_train_epochs", type=float, default=10)
    run.add_argument("--evaluations_per_epoch", type=int, default=1)
    run.add_argument(
        "--patience", type=int, default=3, help="evaluations without a better score before stopping"
    )
    run.add_argument("--batch_size", type=int, default=32)
    run.add_argument(
        "--layer_learning_rate_decay", type=float, default=1.0, metavar="FACTOR",
        help="each layer's learning rate, times that of the layer above; the head has the full rate",
    )  # fmt: skip
    run.add_argument(
        "--gradual_unfreezing", type=float, nargs="?", const=1.0, metavar="EPOCHS",
        help="train the head alone first, one layer more every so many epochs (default 1)",
    )  # fmt: skip
    run.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the Hub repository"
    )
    known, rest = parser.parse_known_args()
    if bool(known.model) == bool(known.baseline):
        parser.error("give a model or --baseline, not both" if known.model else "give a model, or --baseline")
    if known.evaluations_per_epoch < 1 or known.patience < 1 or known.batch_size < 1:
        parser.error("--evaluations_per_epoch, --patience and --batch_size must be at least 1")
    if known.gradual_unfreezing is not None and known.from_scratch:
        parser.error("--gradual_unfreezing keeps pretrained layers as they are: --from_scratch has none")
    known.fields = {}
    for option, value in zip(rest[::2], [*rest[1::2], None], strict=False):
        if not option.startswith("--") or value is None:
            parser.error(f"expected --field value, found {option!r}{'' if value else ' without a value'}")
        known.fields[option[2:]] = number(yaml.safe_load(value))
    if known.baseline and known.fields:
        parser.error(f"--{next(iter(known.fields))} means nothing to a baseline")
    return known


def number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 (no dot) as text; nobody means text by it."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def sort_fields(fields: dict[str, Any], config) -> tuple[dict[str, Any], dict[str, Any]]:
    """(for TrainingArguments, for the config)."""
    of_training = {f.name for f in dataclasses.fields(TrainingArguments) if f.init}
    fixed = {"output_dir", "learning_rate", "seed", "metric_for_best_model", "load_best_model_at_end"}
    fixed |= {"per_device_train_batch_size", "eval_steps", "remove_unused_columns"}
    for name in fields:
        if name in fixed:
            sys.exit(f"--{name} is set by the script; see --help for what sets it.")
        if name not in of_training and not hasattr(config, name):
            near = difflib.get_close_matches(name, [*of_training, *config.to_dict()], n=2, cutoff=0.5)
            sys.exit(f"Unknown option --{name}.{f' Did you mean {chr(32).join(near)}?' if near else ''}")
    return (
        {name: value for name, value in fields.items() if name in of_training},
        {name: value for name, value in fields.items() if name not in of_training},
    )


# ------------------------------------------------------------------------------------------------------ training


def main() -> None:
    options = parse_command_line()
    transformers.logging.set_verbosity_error()  # what it says of missing heads, make_model checks
    transformers.logging.disable_progress_bar()
    try:
        data = tasks.load_task(
            options.task,
            options.dataset,
            train_file=options.train_file,
            validation_file=options.validation_file,
            test_file=options.test_file,
            columns=tasks.Columns(
                options.text_column, options.text_pair_column, options.label_column, options.label_separator
            ),
            labels=options.labels,
            validation_share=options.validation_share,
            split_seed=options.split_seed,
        )
    except (ValueError, OSError, ImportError) as error:
        sys.exit(str(error))
    task = TASK_CLASSES[data.task](data)
    output = prepare_output(options, data)
    print(
        f"{data.name} ({data.task}): "
        + ", ".join(f"{len(examples):,} {side}" for side, examples in data.sides.items())
        + (f"; {len(data.labels)} labels" if data.labels else "")
    )
    facts = run_baseline(options, task, output) if options.baseline else run_model(options, task, output)
    finish(options, task, facts, output)


def prepare_output(options, data: tasks.TaskData) -> Path:
    name = options.baseline or Path(options.model.rstrip("/")).name + (
        "-scratch" if options.from_scratch else ""
    )
    output = Path(options.output_dir or f"outputs/{name}-{data.name.replace(', ', '-')}")
    if (output / "finetune_summary.json").exists() and not options.overwrite:
        sys.exit(f"{output} holds a finished run: say --overwrite, or choose another --output_dir.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "finetune_summary.json").unlink(missing_ok=True)
    except OSError as error:
        sys.exit(f"Cannot write to output_dir {output}: {error}. Choose another with --output_dir.")
    return output


def run_model(options, task: FineTuningTask, output: Path) -> dict[str, Any]:
    """Tries the learning rates, runs the seeds; the best model stays in `output`."""
    data = task.data
    config, tokenizer, max_length = load_parts(options, task)
    arguments, config_fields = sort_fields(options.fields, config)
    config_fields |= task.config_fields()
    reads_one_way = not {**config.to_dict(), **config_fields}.get("bidirectional", True)
    pieces = options.labelled_pieces or ("all" if reads_one_way else "first")
    row_options = RowOptions(max_length, options.doc_stride, pieces)
    rows, encoding = {}, {}
    for side, examples in data.sides.items():
        try:
            rows[side], encoding[side] = task.encode(examples, tokenizer, row_options)
        except ValueError as error:
            sys.exit(str(error))
        # Neighbours of one length need no padding; each row knows its example.
        if side != "train":
            rows[side].sort(key=lambda row: len(row["input_ids"]))
        said = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in encoding[side].items() if n)
        print(
            f"{side}: {len(rows[side]):,} rows of up to {max_length or 'any number of'} tokens{said and '; ' + said}"
        )

    progress = Progress(output, options, data)

    def train(rate: float, seed: int, kept: dict | None) -> tuple[dict, dict | None]:
        run = progress.finished(rate, seed)
        if run is None:
            run = train_once(options, task, tokenizer, config_fields, arguments, rows, rate, seed, output)
            kept = keep_best(kept, run, output)
            progress.add(run, kept)
        return run, kept

    kept, trials, runs = progress.kept, [], {}
    for rate in options.learning_rates:
        run, kept = train(rate, options.seeds[0], kept)
        trials.append(
            {key: run[key] for key in ("learning_rate", "seed", "validation", "epochs", "diverged")}
        )
        runs[rate] = run
    converged = [run for run in runs.values() if not run["diverged"]]
    if not converged:
        sys.exit(f"Every run diverged; try lower --learning_rates than {min(options.learning_rates):g}.")
    final = [max(converged, key=validation_score)]
    for seed in options.seeds[1:]:
        run, kept = train(final[0]["learning_rate"], seed, kept)
        final.append(run)
    predictions = kept["predictions"]
    return {
        "model": options.model,
        "model_class": kept["model_class"],
        "parameters": kept["parameters"],
        "initialization": "from scratch" if options.from_scratch else "pretrained",
        "max_length": max_length,
        "labelled_pieces": pieces if data.task == "token-classification" else None,
        "encoding": encoding,
        "learning_rate": kept["learning_rate"],
        "learning_rate_trials": trials,
        "kept_seed": kept["seed"],
        "runs": [{k: v for k, v in run.items() if k not in ("predictions", "folder")} for run in final],
        "training_arguments": {
            "num_train_epochs": options.num_train_epochs,
            "batch_size": options.batch_size,
            "evaluations_per_epoch": options.evaluations_per_epoch,
            "patience": options.patience,
            "layer_learning_rate_decay": options.layer_learning_rate_decay,
            "gradual_unfreezing": options.gradual_unfreezing,
            **options.fields,
        },
        "predictions": predictions,
    }


def load_parts(options, task):
    """The config, the tokenizer and the number of tokens in a row."""
    remote = {"trust_remote_code": options.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(options.model, **remote)
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer or options.model, **remote)
    except (OSError, ValueError) as error:
        sys.exit(f"Cannot load config and tokenizer of {options.model} (--tokenizer names another): {error}")
    known = getattr(transformers, task.auto_class)._model_mapping.keys()
    if type(config) not in known and task.auto_class not in (getattr(config, "auto_map", None) or {}):
        sys.exit(
            f"{options.model} is a {config.model_type}, which has no head for {task.data.task} ({task.auto_class})."
        )
    if max(tokenizer.get_vocab().values()) >= config.vocab_size:
        sys.exit(
            f"The tokenizer has {len(tokenizer)} ids, {options.model} only {config.vocab_size}: not made for it."
        )
    if tokenizer.pad_token is None:
        sys.exit(
            f"The tokenizer of {options.model} has no padding token, so texts cannot be batched. Add one to it."
        )
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    positions = min((limit for limit in limits if limit and limit < 10**9), default=None)
    if options.max_length and positions and options.max_length > positions:
        sys.exit(f"--max_length {options.max_length} is beyond the {positions} positions of {options.model}.")
    return config, tokenizer, options.max_length or positions


def make_model(options, task, config_fields: dict[str, Any]):
    """The model with a new head, on its pretrained weights or new ones."""
    auto_class = getattr(transformers, task.auto_class)
    remote = {"trust_remote_code": options.trust_remote_code}
    try:
        if options.from_scratch:
            config = AutoConfig.from_pretrained(options.model, **config_fields, **remote)
            return auto_class.from_config(config, **remote)
        model, info = auto_class.from_pretrained(
            options.model, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32,
            **config_fields, **remote,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"Cannot load {options.model} for {task.data.task}: {error}")
    for name, stored, wanted in sorted(info["mismatched_keys"]):
        sys.exit(
            f"{options.model} stores {name} as {list(stored)}, but the model that was asked for has {list(wanted)}: "
            "leave out the options that change its shape, or train without its weights (--from_scratch)."
        )
    # A checkpoint whose names do not fit would silently be a model from scratch.
    missing = {name for name in info["missing_keys"] if name.startswith(f"{model.base_model_prefix}.")}
    body = [name for name, _ in model.named_parameters() if name.startswith(f"{model.base_model_prefix}.")]
    missing = {name for name in missing if ".pooler." not in name}
    if missing:
        sys.exit(
            f"{options.model} lacks {len(missing)} of the {len(body)} weights of the body of {type(model).__name__} "
            f"(such as {min(missing)}): it holds another model. --from_scratch trains without its weights."
        )
    return model


def train_once(
    options, task, tokenizer, config_fields, given, rows, rate, seed, output: Path
) -> dict[str, Any]:
    """One run: what it scored; its best checkpoint is in run["folder"]."""
    set_seed(seed)
    model = make_model(options, task, config_fields)
    folder = output / f"run-{rate:g}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    sides = {side: model_inputs(model, examples) for side, examples in rows.items()}
    updates = math.ceil(
        len(rows["train"]) / options.batch_size / int(given.get("gradient_accumulation_steps", 1))
    )
    defaults = {
        "warmup_steps": 0.06,
        "weight_decay": 0.01,
        "per_device_eval_batch_size": 2 * options.batch_size,
        "train_sampling_strategy": "group_by_length",
        "logging_steps": max(1, updates // 10),
        "use_cpu": not torch.cuda.is_available(),
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
        "save_only_model": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{task.metric}",
        "greater_is_better": True,
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
    }
    try:
        arguments = TrainingArguments(**{**defaults, **given, **fixed})
    except (TypeError, ValueError) as error:
        sys.exit(f"Training arguments: {error}")
    validation = task.data.sides["validation"]
    stopping = EarlyStoppingCallback(options.patience)
    trainer = InOrder(
        model=model,
        args=arguments,
        train_dataset=sides["train"],
        eval_dataset=sides["validation"],
        data_collator=task.collator(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda p: task.score(
            validation, task.decode(rows["validation"], validation, logits_of(task, p.predictions))
        ),
        preprocess_logits_for_metrics=task.preprocess_logits,
        callbacks=[stopping, training.StopOnNonFiniteLoss()],
    )
    try:
        if options.layer_learning_rate_decay != 1:
            trainer.optimizer = training.layerwise_optimizer(trainer, options.layer_learning_rate_decay)
        if options.gradual_unfreezing is not None:
            trainer.add_callback(training.GradualUnfreezing(model, options.gradual_unfreezing, stopping))
    except ValueError as error:
        sys.exit(str(error))
    training.replace_progress(trainer, OneLine(task.metric, f"lr {rate:g} seed {seed}"))
    run = {"learning_rate": rate, "seed": seed, "model_class": type(model).__name__, "diverged": False}
    run |= {"parameters": sum(p.numel() for p in model.parameters()), "folder": folder}
    start = time.perf_counter()
    try:
        trainer.train()
    except FloatingPointError as error:
        print(error)
        shutil.rmtree(folder, ignore_errors=True)
        return run | {"diverged": True, "validation": None, "epochs": None}
    run["training_seconds"] = round(time.perf_counter() - start, 1)
    history = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    run |= {"updates": trainer.state.global_step, "epochs": round(float(trainer.state.epoch), 2)}
    run["best_update"] = max(history, key=lambda e: e[f"eval_{task.metric}"])["step"]
    run["evaluations"] = [
        {"update": e["step"], "loss": e["eval_loss"], task.metric: e[f"eval_{task.metric}"]} for e in history
    ]
    # From here on the best checkpoint is loaded. Predicted once more, so that the score is that of what is saved.
    trainer.compute_metrics = None
    run["predictions"] = {}
    for side in [side for side in sides if side != "train"]:
        examples = task.data.sides[side]
        output_of = logits_of(task, trainer.predict(sides[side]).predictions)
        run["predictions"][side] = task.decode(rows[side], examples, output_of)
        run[side] = task.score(examples, run["predictions"][side]) if is_labelled(examples) else None
    shutil.rmtree(folder)
    trainer.save_model(str(folder))
    (folder / "training_args.bin").unlink(missing_ok=True)
    said = [f"{side} {task.metric} {run[side][task.metric]:.4f}" for side in run["predictions"] if run[side]]
    print(f"lr {rate:g} seed {seed}: {', '.join(said)}", flush=True)
    return run


def model_inputs(model, rows: list[dict]) -> list[dict]:
    """The columns of each row that this model takes."""
    takes = set(inspect.signature(model.forward).parameters)
    if getattr(model.config, "type_vocab_size", 2) < 2:
        takes.discard("token_type_ids")
    return [{name: value for name, value in row.items() if name in takes} for row in rows]


def logits_of(task, predictions):
    """Without what else a model's output holds (hidden states, a cache); question answering has two kinds."""
    if isinstance(predictions, tuple) and not isinstance(task, AnsweringTask):
        return predictions[0]
    return predictions


def is_labelled(examples) -> bool:
    for attribute in ("label", "tags", "answers"):
        if hasattr(examples[0], attribute):
            return any(getattr(e, attribute) is not None and getattr(e, attribute) != () for e in examples)
    return False


PROGRESS = "finetune_progress.json"


def validation_score(run: dict) -> float:
    return next(iter(run["validation"].values()))


class Progress:
    """The runs that are finished, in a file: a comparison that was interrupted goes on with the next run.

    Args:
        output: where the file is; what it holds counts if all options are the same, or there are more seeds now.

    Attributes:
        kept: the run whose weights are in `output`, or None.
    """

    def __init__(self, output: Path, options, data: tasks.TaskData):
        apart = ("output_dir", "overwrite", "seeds")
        settings = {name: value for name, value in vars(options).items() if name not in apart}
        settings["examples"] = {side: len(examples) for side, examples in data.sides.items()}
        self.path, self.settings = output / PROGRESS, json.loads(json.dumps(settings))
        self.runs, self.kept = [], None
        if options.overwrite or not self.path.exists():
            return
        before = json.loads(self.path.read_text(encoding="utf-8"))
        if before["settings"] == self.settings and {run["seed"] for run in before["runs"]} <= set(
            options.seeds
        ):
            self.runs = before["runs"]
            self.kept = None if before["kept"] is None else self.runs[before["kept"]]
            print(f"{self.path}: goes on after {len(self.runs)} finished runs (--overwrite begins anew)")

    def finished(self, rate: float, seed: int) -> dict | None:
        return next((run for run in self.runs if (run["learning_rate"], run["seed"]) == (rate, seed)), None)

    def add(self, run: dict, kept: dict | None) -> None:
        self.runs.append(run)
        self.kept = kept
        content = {
            "settings": self.settings,
            "runs": [{name: value for name, value in run.items() if name != "folder"} for run in self.runs],
            "kept": next((i for i, run in enumerate(self.runs) if run is kept), None),
        }
        training.write_json(self.path, content)


def keep_best(kept: dict | None, run: dict, output: Path) -> dict | None:
    """The better run on validation; its files move to `output`, the other's folder goes."""
    if run["diverged"]:
        return kept
    if kept is not None and validation_score(run) <= validation_score(kept):
        shutil.rmtree(run["folder"])
        return kept
    for file in run["folder"].iterdir():
        shutil.move(file, output / file.name)
    run["folder"].rmdir()
    return run


class InOrder(Trainer):
    """Evaluates and predicts in the order of the examples. With group_by_length Trainer would shuffle them there too,
    and predictions would not be those of the examples beside them."""

    def _get_eval_sampler(self, eval_dataset):
        return torch.utils.data.SequentialSampler(eval_dataset)


class OneLine(TrainerCallback):
    """A line per evaluation."""

    def __init__(self, metric: str, name: str):
        self.metric, self.name, self.loss = metric, name, math.nan

    def on_log(self, args, state, control, logs, **kwargs) -> None:
        self.loss = logs.get("loss", self.loss)
        if f"eval_{self.metric}" in logs and state.is_world_process_zero:
            print(
                f"{self.name}  epoch {state.epoch:.2f}/{state.num_train_epochs}  training loss {self.loss:.4f}  "
                f"validation loss {logs['eval_loss']:.4f}  {self.metric} {logs[f'eval_{self.metric}']:.4f}",
                file=sys.stderr, flush=True,
            )  # fmt: skip


def run_baseline(options, task, output: Path) -> dict[str, Any]:
    """Logistic regression on the same sides."""
    from hfseq.metrics.baselines import linear

    try:
        found = linear.bag_of_words(task.data)
    except (ValueError, ImportError) as error:
        sys.exit(str(error))
    predictions = {side: [{"prediction": p} for p in found.predictions[side]] for side in found.predictions}
    run = {"seed": None, "training_seconds": found.seconds}
    for side, claimed in predictions.items():
        examples = task.data.sides[side]
        run[side] = task.score(examples, claimed) if is_labelled(examples) else None
    return {
        "model": options.baseline,
        "model_class": found.description,
        "parameters": found.parameters,
        "initialization": "convex: no initialisation, no seed",
        "regularization_trials": found.trials,
        "runs": [run],
        "predictions": predictions,
    }


# ------------------------------------------------------------------------------------------------- what is left


def finish(options, task, facts: dict[str, Any], output: Path) -> None:
    data, predictions = task.data, facts.pop("predictions")
    side = "test" if "test" in data.sides else "validation"
    examples, claimed = data.sides[side], predictions[side]
    with open(output / "predictions.jsonl", "w", encoding="utf-8") as file:
        for example, prediction in zip(examples, claimed, strict=True):
            record = {**task.record(example), **prediction, "place": example.place}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    scores = {}
    for name in ("validation", "test"):
        values = [run[name] for run in facts["runs"] if run.get(name)]
        if values:
            scores[name] = {metric: spread([v[metric] for v in values]) for metric in values[0]}
    facts = {
        "name": output.name,
        "command": " ".join(["python", "scripts/finetune.py", *map(shlex.quote, sys.argv[1:])]),
        "task": data.task,
        "data": data.name,
        "examples": {name: len(examples) for name, examples in data.sides.items()},
        "split": data.split,
        "terms": data.terms,
        "labels": data.labels,
        "metric": task.metric,
        "scores": scores,
        **facts,
        "predictions_of": side,
        "machine": training.describe_machine(),
    }
    if is_labelled(examples):
        facts["classes"] = task.classes(examples, claimed)
        title = f"{output.name}: {data.name}, {side}"
        picture = task.picture(examples, claimed, output / "report.png", title) if has_matplotlib() else None
        facts["picture"] = picture and picture.name
    training.write_json(output / "finetune_summary.json", facts)
    training.write_task_card(output, facts)
    (output / PROGRESS).unlink(missing_ok=True)
    for name, values in scores.items():
        print(f"{name}: " + ", ".join(f"{m} {s['mean']:.4f} ± {s['std']:.4f}" for m, s in values.items()))
    print(f"written to {output}")


def spread(values: list[float]) -> dict[str, Any]:
    """Mean and sample standard deviation (0 for a single run)."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "runs": values}


if __name__ == "__main__":
    main()
