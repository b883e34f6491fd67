"""The small translation models that several sections share: trained once for each seed and kept under models/.

They are trained for equally many seconds with Muon at a constant rate. `given` are runs of the user's own (--models).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import data
from ..data.tables import read_json
from ..hub import load_checkpoint
from ..loading import build_model, load_model
from ..models.configuration_pervasive import PervasiveConfig
from ..models.configuration_recurrent_seq2seq import GRUSeq2SeqConfig, LSTMSeq2SeqConfig
from ..models.configuration_transformer import TransformerConfig
from ..training.report import write_json
from .contestants import BLACK, BLUE, GREEN, PURPLE, Style
from .experiment import Context, Result
from .fitting import fit
from .sources import pair_corpus

LOOKS = 8
VALIDATED = 300
"""Pairs of the validation loss."""
VOCABULARY = 4000
TOKENS_PER_UPDATE, CELLS_PER_UPDATE = 2048, 30_000


@dataclass(frozen=True, eq=False)
class Translator:
    """An encoder-decoder."""

    key: str
    label: str
    style: Style
    learning_rate: float
    config: Callable[[int, dict[str, Any]], Any]
    """Of a width and the tokenizer's fields."""
    aligns: bool = True
    """Whether it has attention to look at."""


def _without(width: int, fields: dict[str, Any]) -> Any:
    return LSTMSeq2SeqConfig(
        embedding_size=width, hidden_size=2 * width, encoder_hidden_size=2 * width, encoder_layers=1, decoder_layers=1,
        bidirectional=False, attention=None, output_dropout=0.1, label_smoothing=0.1, **fields,
    )  # fmt: skip


def _bahdanau(width: int, fields: dict[str, Any]) -> Any:
    return GRUSeq2SeqConfig(
        embedding_size=width, hidden_size=2 * width, encoder_hidden_size=width, encoder_layers=1, decoder_layers=1,
        attention="additive", attention_position="first", input_feeding=True, output_dropout=0.1, label_smoothing=0.1,
        **fields,
    )  # fmt: skip


def _transformer(width: int, fields: dict[str, Any]) -> Any:
    return TransformerConfig(
        d_model=width, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width, dropout=0.1, pre_norm=True, label_smoothing=0.1,
        max_position_embeddings=256, **fields,
    )  # fmt: skip


def _pervasive(width: int, fields: dict[str, Any]) -> Any:
    return PervasiveConfig(
        embedding_size=width, num_hidden_layers=4, kernel_size=3, growth_size=max(8, width // 4), aggregation="max",
        output_dropout=0.1, label_smoothing=0.1, **fields,
    )  # fmt: skip


TRANSLATORS = {
    t.key: t
    for t in (
        Translator(
            "lstm", "LSTM without attention", Style(BLUE, "s", (0, (4, 2))), 1e-2, _without, aligns=False
        ),
        Translator(
            "bahdanau", "GRU with attention (Bahdanau)", Style(BLACK, "X", (0, (3, 1, 1, 1))), 1e-2, _bahdanau
        ),
        Translator("transformer", "Transformer", Style(GREEN, "o", "-"), 1e-2, _transformer),
        Translator("pervasive", "Pervasive Attention", Style(PURPLE, "D", (0, (6, 1))), 1e-2, _pervasive),
    )
}


@dataclass
class Pairs:
    """The captions, tokenised."""

    corpus: data.PairCorpus
    tokenizer: PreTrainedTokenizerBase
    arrays: dict[str, data.PairArray]


_READ: dict[Path, Pairs] = {}


def pairs(context: Context) -> Pairs:
    """Read and tokenised once."""
    if context.directory not in _READ:
        corpus = pair_corpus(context)
        size = 400 if context.scale.toy_data else VOCABULARY
        folder = context.directory / "models" / "arrays"
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer, _ = data.cached_pair_tokenizers(corpus, "bpe", size, lowercase=True, cache_dir=folder)
        arrays = data.build_pair_arrays(corpus, tokenizer, cache_dir=folder, processes=1)
        _READ[context.directory] = Pairs(corpus, tokenizer, arrays)
    return _READ[context.directory]


def trained(key: str, seed: int, context: Context) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Result]:
    """The model, its tokenizer and how it was trained; trained now unless it lies under models/.

    Returns:
        in evaluation mode; `Fit`'s numbers with the validation loss at each look, and the number of parameters.
    """
    folder = context.trained(f"translation-{key}-{seed}")
    texts = pairs(context)
    if not (folder / "fit.json").is_file():
        _train(TRANSLATORS[key], seed, context, texts, folder)
    model = load_checkpoint(folder).to(context.device).eval()
    return model, texts.tokenizer, read_json(folder / "fit.json")


def _train(translator: Translator, seed: int, context: Context, texts: Pairs, folder: Path) -> None:
    import torch

    from ..training.evaluation import score_rows

    torch.manual_seed(seed)
    fields = {
        **data.tokenizer_config_fields(texts.tokenizer),
        "decoder_start_token_id": texts.tokenizer.bos_token_id,
    }
    config = translator.config(context.scale.translation_width, fields)
    model = _model_of(config).to(context.device)
    options = {"tokens_per_update": TOKENS_PER_UPDATE, "cells_per_update": CELLS_PER_UPDATE}
    plan = data.PairPlan(texts.arrays["train"], epochs=1000, seed=seed, **options)
    validation = _first(texts.arrays["validation"], VALIDATED)
    held_out = data.PairPlan.evaluation(validation, tokens_per_batch=2048, cells_per_batch=CELLS_PER_UPDATE)

    def batches() -> Iterator[dict[str, Any]]:
        for update in range(len(plan)):
            yield plan[update]

    def look() -> dict[str, float]:
        nll, tokens = score_rows(model, held_out)
        return {"loss": nll / tokens}

    done = fit(
        model, batches(), learning_rate=translator.learning_rate, seconds=context.scale.translation_seconds,
        optimizer="muon", look=look, looks=LOOKS,
        tokens_of=lambda batch: int((batch["labels"] >= 0).sum()),
    )  # fmt: skip
    model.generation_config.suppress_tokens = data.surplus_ids(texts.tokenizer, config.vocab_size) or None
    model.save_pretrained(folder)
    texts.tokenizer.save_pretrained(folder)
    facts = {**vars(done), "parameters": sum(p.numel() for p in model.parameters())}
    write_json(folder / "fit.json", facts)  # last: it says that the weights are whole


def _model_of(config: Any) -> PreTrainedModel:
    from transformers import AutoModelForSeq2SeqLM

    return build_model(AutoModelForSeq2SeqLM, config)


def _first(array: data.PairArray, count: int) -> data.PairArray:
    from dataclasses import replace

    import numpy as np

    return replace(array, chosen=array.documents(np.arange(min(count, len(array)))))


@dataclass(frozen=True)
class GivenRun:
    """A trained run of the user's."""

    path: Path
    name: str
    facts: dict[str, Any]
    """Its training_summary.json, or finetune_summary.json; empty: a checkpoint that says nothing of its training."""

    @property
    def objective(self) -> str:
        """What it was trained for, as its recipe says it."""
        if not self.facts:
            config = read_json(self.path / "config.json")
            return "translation" if config.get("is_encoder_decoder") else "unknown"
        recipe = self.facts.get("recipe_content") or {}
        return str(self.facts.get("objective") or recipe.get("objective", {}).get("type") or "fine-tuning")

    @property
    def has_weights(self) -> bool:
        """A run of which only the summary was kept has none."""
        return any(self.path.glob("*.safetensors"))


def given(context: Context) -> list[GivenRun]:
    """The runs of --models.

    Raises:
        FileNotFoundError: a directory without a summary.
    """
    return [given_run(path) for path in context.models]


def given_translators(context: Context) -> list[GivenRun]:
    """Those of them that can translate: their weights are there."""
    return [run for run in given(context) if run.objective == "translation" and run.has_weights]


def given_run(path: Path) -> GivenRun:
    """A directory that `hfseq pretrain` or `hfseq finetune` wrote, or a checkpoint with its tokenizer.

    Raises:
        FileNotFoundError: it is neither.
    """
    for file in ("training_summary.json", "finetune_summary.json"):
        if (path / file).is_file():
            return GivenRun(path, path.resolve().name, read_json(path / file))
    run = GivenRun(path, path.resolve().name, {})
    if (path / "config.json").is_file() and run.has_weights:
        return run
    raise FileNotFoundError(
        f"--models {path}: it has no training_summary.json, which hfseq pretrain writes at its end, and holds no "
        "checkpoint (config.json, *.safetensors)."
    )


@lru_cache(maxsize=4)
def load_given(run: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and source tokenizer of a run with weights, of any architecture that transformers knows."""
    from transformers import AutoModelForSeq2SeqLM

    return load_model(AutoModelForSeq2SeqLM, run).eval(), data.load_pair_tokenizers(run)[0]


__all__ = [
    "TRANSLATORS",
    "GivenRun",
    "Translator",
    "given",
    "given_run",
    "given_translators",
    "load_given",
    "pairs",
    "trained",
]
