"""What is learnt, by which commands, and how a checkpoint is scored: one class a task.

Both sides get the same text, cut into the same tokens by a tokenizer that is there before the clock starts; the peer's
tokenised text is cached by a first run of one update, ours by the preparation. The peer's schedule is its script's own.
Its batch and warm-up are those usual for training from scratch, its learning rate is the best of `rates`.
"""

from __future__ import annotations

import json
import math
import re
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from transformers import MarianConfig, MarianMTModel

from hfseq import data
from hfseq.loading import load_model
from hfseq.objectives import load_recipe, objective_of

from .racing import Contender

LOOKS = 12
"""Checkpoints of a run."""


@dataclass(frozen=True)
class Run:
    """One training of one side."""

    side: str
    rate: float
    updates: int
    options: tuple[str, ...] = ()
    """More of the command's options, such as --bf16."""


class Task(ABC):
    """A comparison.

    Args:
        peer: the peer's script, or its folder.
        work: where texts, runs and results go.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    lower_is_better: ClassVar[bool] = True
    recipe: ClassVar[str]
    """Of ours; its data, tokenizer and validation side are the peer's too."""
    ours: ClassVar[str]
    """Names of the sides."""
    theirs: ClassVar[str]
    rates: ClassVar[tuple[float, ...]]
    their_updates: ClassVar[int]
    our_updates: ClassVar[int]
    targets: ClassVar[tuple[float, ...]] = ()
    """Scores to reach; none: the peer's best."""
    epochs: ClassVar[float] = 1
    """At least as many of ours as its updates need."""

    def __init__(self, peer: Path, work: Path):
        self.peer, self.work = peer, work

    @cached_property
    def objective(self) -> Any:
        """Ours, its corpus, tokenizer and arrays ready."""
        objective = objective_of(load_recipe(self.recipe))
        objective.prepare()
        return objective

    @property
    def our_rate(self) -> float:
        """The recipe's."""
        return float(self.objective.recipe.training_arguments["learning_rate"])

    def prepare(self) -> None:
        """Writes what the peer reads."""
        self.objective.tokenizer.save_pretrained(self.work / "tokenizer")

    def our_contender(self, run: Run, output: Path) -> Contender:
        """`hfseq pretrain`."""
        every = max(1, run.updates // LOOKS)
        command = [
            sys.executable, "-m", "hfseq", "pretrain", self.recipe, "--output_dir", str(output), "--overwrite",
            "--max_steps", str(run.updates), "--num_train_epochs", str(self.epochs), "--learning_rate", str(run.rate),
            "--eval_strategy", "no", "--save_steps", str(every), "--save_total_limit", str(2 * LOOKS), *run.options,
        ]  # fmt: skip
        return Contender(run.side, command, self.work, checkpoints=output)

    @abstractmethod
    def their_contender(self, run: Run, output: Path) -> Contender:
        """The peer's script."""

    def warm_up(self, output: Path) -> Contender | None:
        """A run of the peer's that fills its caches."""
        return self.their_contender(Run(self.theirs, self.rates[0], 1), output)

    def score(self, checkpoint: Path) -> float:
        """On the whole validation side, the same way for both."""
        model = load_model(self.objective.auto_class, checkpoint)
        return self._score_of(self.objective.score(model, "validation"))

    def _score_of(self, score: Any) -> float:
        return float(score.as_dict()["loss"])

    def trainer_options(self, run: Run, output: Path) -> list[str]:
        """Of transformers' example scripts: what they all take."""
        every = max(1, run.updates // LOOKS)
        return [
            "--do_train", "--output_dir", str(output), "--max_steps", str(run.updates), "--learning_rate",
            str(run.rate), "--warmup_steps", str(max(1, run.updates // 20)), "--save_strategy", "steps", "--save_steps",
            str(every), "--save_only_model", "--report_to", "none", "--use_cpu", "--cache_dir",
            str(self.work / "datasets"), *run.options,
        ]  # fmt: skip


class WordLanguageModel(Task):
    """The LSTM of pytorch/examples on token ids as its words."""

    name = "lstm"
    title = "LSTM language model, Wikipedia summaries"
    unit = "bits per byte"
    recipe = "lstm-wiki"
    ours, theirs = "hfseq", "pytorch/examples word_language_model"
    rates = (5.0, 10.0, 20.0)
    their_updates = 6
    """Epochs, of which the script thinks."""
    our_updates = 435
    sizes: ClassVar[dict[str, int]] = {"--emsize": 220, "--nhid": 220, "--nlayers": 2}

    def prepare(self) -> None:
        super().prepare()
        folder = self.work / "ids"
        folder.mkdir(exist_ok=True)
        for side, name in (("train", "train"), ("validation", "valid"), ("validation", "test")):
            array = self.objective.arrays[side]
            with (folder / f"{name}.txt").open("w", encoding="utf-8") as file:
                # The script puts an end of its own at each line's end.
                for number in range(array.n_documents):
                    file.write(" ".join(map(str, array.document(number))) + "\n")

    def their_contender(self, run: Run, output: Path) -> Contender:
        output.mkdir(parents=True, exist_ok=True)
        sizes = [str(part) for pair in self.sizes.items() for part in pair]
        command = [
            sys.executable, "-u", str(self.peer / "main.py"), "--data", str(self.work / "ids"), "--tied", *sizes,
            "--epochs", str(run.updates), "--lr", str(run.rate), "--save", str(output / "model.pt"),
        ]  # fmt: skip
        return Contender(run.side, command, self.peer, printed=self._printed)

    def warm_up(self, output: Path) -> Contender | None:
        return None  # it has no cache

    def _printed(self, line: str) -> float | None:
        """The script prints the mean loss of a token to two places, and its exponential, which says more, too."""
        found = re.search(r"end of epoch.*valid ppl\s+([\d.]+)", line)
        if found is None:
            return None
        validation = self.objective.arrays["validation"]
        return math.log(float(found[1])) / math.log(2) * len(validation.tokens) / validation.n_bytes

    def _score_of(self, score: Any) -> float:
        return float(score.as_dict()["bits_per_byte"])


class _TrainerScript(Task):
    """A script of transformers' examples that reads JSON lines and writes `checkpoint-N`."""

    recipe: ClassVar[str]
    model_type: ClassVar[str]
    sizes: ClassVar[dict[str, Any]]
    row_option: ClassVar[str]

    def prepare(self) -> None:
        super().prepare()
        corpus = self.objective.load(data.load_corpus)
        for side in ("train", "validation"):
            with (self.work / f"{side}.json").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps({"text": text}) + "\n" for text in getattr(corpus, side))

    def their_contender(self, run: Run, output: Path) -> Contender:
        sizes = ",".join(f"{name}={value}" for name, value in {**self.sizes, **self._tokens()}.items())
        command = [
            sys.executable, str(self.peer), "--model_type", self.model_type, "--config_overrides", sizes,
            "--tokenizer_name", str(self.work / "tokenizer"), "--train_file", str(self.work / "train.json"),
            "--validation_file", str(self.work / "validation.json"), self.row_option, "128",
            "--per_device_train_batch_size", "32", "--weight_decay", "0.01", *self.trainer_options(run, output),
        ]  # fmt: skip
        return Contender(run.side, command, self.work, checkpoints=output)

    @abstractmethod
    def _tokens(self) -> dict[str, int]:
        """The fields of the config that follow from the tokenizer."""


class MaskedLanguageModel(_TrainerScript):
    """run_mlm.py with BERT."""

    name = "masked"
    title = "Masked language model, small-english"
    unit = "loss of a masked token"
    recipe = "encoder-small-english"
    ours, theirs = "hfseq encoder", "transformers run_mlm.py, BERT"
    rates = (3e-4, 1e-3, 3e-3)
    their_updates, our_updates = 1200, 600
    model_type = "bert"
    row_option = "--max_seq_length"
    sizes: ClassVar[dict[str, int]] = {
        "hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 5, "intermediate_size": 1280,
        "max_position_embeddings": 128,
    }  # fmt: skip

    def _tokens(self) -> dict[str, int]:
        tokenizer = self.objective.tokenizer
        return {"vocab_size": data.padded_vocab_size(tokenizer), "pad_token_id": tokenizer.pad_token_id}


class CausalLanguageModel(_TrainerScript):
    """run_clm.py with GPT-2."""

    name = "causal"
    title = "Causal language model, small-english"
    unit = "bits per byte"
    recipe = "gpt2-small-english"
    ours, theirs = "hfseq, GPT-2", "transformers run_clm.py, GPT-2"
    rates = (3e-4, 1e-3, 3e-3)
    their_updates, our_updates = 1200, 600
    model_type = "gpt2"
    row_option = "--block_size"
    sizes: ClassVar[dict[str, int]] = {"n_embd": 320, "n_layer": 6, "n_head": 5, "n_positions": 128}

    def _tokens(self) -> dict[str, int]:
        end = self.objective.tokenizer.eos_token_id
        size = data.padded_vocab_size(self.objective.tokenizer)
        return {"vocab_size": size, "bos_token_id": end, "eos_token_id": end}

    def _score_of(self, score: Any) -> float:
        return float(score.as_dict()["bits_per_byte"])


class TranslationModel(Task):
    """run_translation.py with Marian's architecture, its weights new."""

    name = "translation"
    title = "Translation, Multi30k English to German"
    unit = "tokenised BLEU, validation"
    lower_is_better = False
    recipe = "transformer-multi30k-en-de"
    ours, theirs = "hfseq Transformer", "transformers run_translation.py, Marian"
    rates = (5e-4, 1e-3, 2e-3)
    their_updates, our_updates = 8000, 2000
    targets = (30.0, 38.0)
    epochs = 36

    def prepare(self) -> None:
        super().prepare()
        for side in ("train", "validation"):
            with (self.work / f"{side}.json").open("w", encoding="utf-8") as file:
                for source, target in zip(*self.objective.load(data.load_pairs).texts[side], strict=True):
                    pair = {"translation": {"en": source.lower(), "de": target.lower()}}
                    file.write(json.dumps(pair) + "\n")
        tokenizer = self.objective.tokenizer
        sizes = {
            f"{side}_{name}": value
            for side in ("encoder", "decoder")
            for name, value in {"layers": 4, "attention_heads": 4, "ffn_dim": 256}.items()
        }
        config = MarianConfig(
            d_model=128, dropout=0.25, max_position_embeddings=256, vocab_size=data.padded_vocab_size(tokenizer),
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
            decoder_start_token_id=tokenizer.pad_token_id, forced_eos_token_id=None, activation_function="relu",
            scale_embedding=True, **sizes,
        )  # fmt: skip
        new = self.work / "marian"
        MarianMTModel(config).save_pretrained(new)
        tokenizer.save_pretrained(new)

    def their_contender(self, run: Run, output: Path) -> Contender:
        command = [
            sys.executable, str(self.peer), "--model_name_or_path", str(self.work / "marian"), "--source_lang", "en",
            "--target_lang", "de", "--train_file", str(self.work / "train.json"), "--per_device_train_batch_size",
            "128", "--label_smoothing_factor", "0.1", "--lr_scheduler_type", "inverse_sqrt",
            *self.trainer_options(run, output),
        ]  # fmt: skip
        return Contender(run.side, command, self.work, checkpoints=output)

    def _score_of(self, score: Any) -> float:
        return float(score.as_dict()["tokenized_bleu"])


TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (WordLanguageModel, MaskedLanguageModel, CausalLanguageModel, TranslationModel)
}
