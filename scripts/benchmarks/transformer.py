"""The translation lines: training and `generate()` against `MarianMTModel`; on a GPU shares of the matmul peak.

Both sides have the same sizes and the same weights and count real target tokens. Ours takes updates of `PairPlan` on
the whole corpus; the peer has the same ones, or random batches of 32 of the same corpus with as many real tokens in as
many updates: that is what `Seq2SeqTrainer` makes by default, the gradients of several batches added up.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from torch import nn

import hfseq
from hfseq import data
from hfseq.convert import export_model

from .measuring import (
    IGNORE_INDEX,
    LOW,
    Report,
    Settings,
    difference,
    matmul_peak,
    precision,
    take_turns,
    trainer_of,
)
from .text import bible

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TransformerSize:
    """A Transformer and its updates."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    tokens: int
    """Positions in an update, as `PairPlan` counts them."""
    updates: int
    """Updates in one turn: each has pairs of one length, so several."""

    def __str__(self) -> str:
        return f"{self.layers}+{self.layers} x {self.width}, {self.vocabulary} words, {self.tokens} tokens an update"

    def config(self, dropout: float = 0.0, positions: int = 512) -> hfseq.TransformerConfig:
        return hfseq.TransformerConfig(
            vocab_size=self.vocabulary,
            d_model=self.width,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            encoder_ffn_dim=self.inner,
            decoder_ffn_dim=self.inner,
            dropout=dropout,
            label_smoothing=0.0,
            max_position_embeddings=positions,
        )

    def flops(self, rows: int, time: int) -> int:
        """Multiplications and additions, forward and backward, of `rows` pairs whose sides are `time` tokens long; of
        causal attention the half that is not masked."""
        d, f = self.width, self.inner
        encoder = 4 * d * d + 2 * d * f + 2 * time * d
        decoder = 8 * d * d + 2 * d * f + 3 * time * d
        return 3 * 2 * rows * time * (self.layers * (encoder + decoder) + d * self.vocabulary)


TINY = TransformerSize(vocabulary=10048, width=128, layers=4, heads=4, inner=256, tokens=4096, updates=5)
BASE = TransformerSize(vocabulary=37056, width=512, layers=6, heads=8, inner=2048, tokens=16384, updates=5)


def transformer_size(settings: Settings) -> TransformerSize:
    if settings.quick:
        return TransformerSize(vocabulary=320, width=16, layers=2, heads=2, inner=32, tokens=512, updates=2)
    return BASE if settings.device == "cuda" else TINY


def transformer(report: Report) -> None:
    settings = report.settings
    size = transformer_size(settings)
    if settings.device == "cuda":
        for name in ("bf16", "tf32"):
            report.section(gpu_lines, size, name)
        return
    report.section(training_lines, size)
    report.section(generation_lines, size)


def our_model(size: TransformerSize, device: str, dropout: float = 0.0) -> hfseq.TransformerForSeq2SeqLM:
    torch.manual_seed(0)
    return hfseq.TransformerForSeq2SeqLM(size.config(dropout)).to(device).train()


def marian_of(ours: hfseq.TransformerForSeq2SeqLM, dropout: float = 0.0) -> transformers.MarianMTModel:
    """The same function as `MarianMTModel`, with transformers' best attention."""
    with tempfile.TemporaryDirectory() as directory:
        export_model(ours, directory, "marian")
        marian = transformers.MarianMTModel.from_pretrained(
            directory, attn_implementation="sdpa", dropout=dropout
        )
    return marian.to(ours.device).train()


# ---- batches


def translated_sentences(size: TransformerSize, settings: Settings) -> tuple[data.PairArray, str]:
    """Multi30k where it is at hand, else verses and themselves: what matters are the lengths."""
    try:
        sources, targets = data.load_multi30k().texts["train"]
        name = "Multi30k en-de"
    except FileNotFoundError:
        corpus, name = bible(settings)
        sources = targets = [verse for chapter in corpus.train for verse in chapter.split("\n")]
        name = f"{name}, each verse its own translation"
    tokenizer = data.train_tokenizer(
        [*sources, *targets], "bpe", size.vocabulary, lowercase=True, translation=True
    )
    if settings.quick:
        sources, targets = sources[:100], targets[:100]
    corpus = data.PairCorpus.from_pairs(train=list(zip(sources, targets, strict=True)), name="benchmark")
    return data.build_pair_arrays(corpus, tokenizer, cache_dir=tempfile.mkdtemp(prefix="hfseq-benchmark-"))[
        "train"
    ], name


def random_batches(pairs: data.PairArray, tokens: int, rows: int = 32) -> list[Batch]:
    """Random pairs with about so many target tokens, padded to the longest of each batch, as `DataCollatorForSeq2Seq`
    does it."""
    order = np.random.default_rng(1).permutation(len(pairs))
    enough = min(int(np.searchsorted(np.cumsum(pairs.target_lengths[order]), tokens)) + 1, len(pairs))
    return [pairs.batch(order[i : min(i + rows, enough)]) for i in range(0, enough, rows)]


def real_tokens(batches: list[Batch]) -> int:
    return sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in batches)


def loss_of(model: nn.Module) -> Callable[..., torch.Tensor]:
    return lambda **batch: model(**batch).loss


def accumulating_trainer(
    model: nn.Module, loss: Callable[..., torch.Tensor], batches: list[Batch], updates: int
) -> Callable[[], None]:
    """A function that makes `updates` updates, each of its share of the batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ends = {round((update + 1) * len(batches) / updates) for update in range(updates)}

    def train() -> None:
        for number, batch in enumerate(batches, 1):
            (loss(**batch) * updates / len(batches)).backward()
            if number in ends:
                optimizer.step()
                optimizer.zero_grad()

    return train


def check_equal(report: Report, name: str, ours: nn.Module, marian: nn.Module, batch: Batch) -> None:
    """The same loss, and the same gradients of the embedding and of the first decoder layer's cross-attention."""
    results = []
    for model in (ours, marian):
        loss = model(**batch).loss
        loss.backward()
        layer = model.model.decoder.layers[0]
        query = (layer.cross_attention if model is ours else layer.encoder_attn).q_proj.weight.grad
        results.append((loss.detach(), model.get_input_embeddings().weight.grad.clone(), query.clone()))
        model.zero_grad()
    for part, mine, theirs in zip(("loss", "embedding gradient", "query gradient"), *results, strict=True):
        report.check(f"{name}: {part}", difference(mine, theirs), 1e-3)


# ---- a CPU


def training_lines(report: Report, size: TransformerSize) -> None:
    """The same pairs: our batches on both sides, and the peer's random batches of 32."""
    settings = report.settings
    pairs, source = translated_sentences(size, settings)
    plan = data.PairPlan(pairs, tokens_per_update=size.tokens)
    planned = [plan[i] for i in range(min(size.updates, len(plan)))]
    real = real_tokens(planned)
    usual = random_batches(pairs, real)
    name = f"Transformer training, {size}"
    plain = our_model(size, settings.device)
    check_equal(report, name, plain, marian_of(plain), planned[0])
    models = [our_model(size, settings.device, 0.1), *(marian_of(plain, 0.1) for _ in range(2))]
    random_peer, same_peer = "MarianMTModel, random batches of 32", "MarianMTModel, the same batches"
    runs = {
        "hfseq": trainer_of(models[0], loss_of(models[0]), planned),
        random_peer: accumulating_trainer(models[1], loss_of(models[1]), usual, len(planned)),
        same_peer: trainer_of(models[2], loss_of(models[2]), planned),
    }
    times = take_turns(runs, settings)
    theirs = real_tokens(usual)
    times[random_peer] = times[random_peer].scaled(real / theirs)  # its last pair may be one too many
    share = theirs / sum(batch["labels"].numel() for batch in usual)
    for peer, goal in ((random_peer, 3.0), (same_peer, 1.1)):
        note = f"{source}; {plan.fullness:.0%} of our positions are real"
        if peer == random_peer:
            note += f", {share:.0%} of the peer's targets"
        report.compare(name, peer, "target tokens/s", real, times["hfseq"], times[peer], goal, note)


def generation_lines(report: Report, size: TransformerSize) -> None:
    """32 sources, up to 20 new tokens, equal outputs; padding banned in both ways that a user of Marian has."""
    settings = report.settings
    ours = our_model(size, settings.device).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.5)  # sharper: no two words are as good as equally likely
    marian = marian_of(ours).eval()
    batch = random_batches(
        translated_sentences(size, settings)[0], tokens=10**4, rows=4 if settings.quick else 32
    )[0]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
    new = 4 if settings.quick else 20
    for beams, goal in ((1, 1.3), (5, 1.2)):
        options = {"num_beams": beams, "do_sample": False, "max_new_tokens": new}
        pad = ours.config.pad_token_id
        bans = {"suppress_tokens": [pad]}, {"bad_words_ids": [[pad]]}

        def generate(model: nn.Module, ban: dict, options=options) -> torch.Tensor:
            return model.generate(**inputs, **options, **ban)

        name = f"Transformer generate(), {'greedy' if beams == 1 else f'beam {beams}'}, 32 sentences, {size}"
        mine, *theirs = generate(ours, bans[0]), *(generate(marian, ban) for ban in bans)
        for other, ban in zip(theirs, bans, strict=True):
            same = mine.shape == other.shape
            wrong = float((mine != other).sum()) if same else float("nan")
            report.check(f"{name}, {next(iter(ban))}: different tokens", wrong, 0)
        runs = {"hfseq": functools.partial(generate, ours, bans[0])}
        peers = {f"MarianMTModel.generate, {next(iter(ban))}": ban for ban in bans}
        runs |= {peer: functools.partial(generate, marian, ban) for peer, ban in peers.items()}
        times = take_turns(runs, settings)
        tokens = int((mine[:, 1:] != pad).sum())
        for peer in peers:
            report.compare(name, peer, "tokens/s", tokens, times["hfseq"], times[peer], goal)


# ---- a GPU


def gpu_lines(report: Report, size: TransformerSize, name: str) -> None:
    """The base model on full rows, compiled and not; MFU against the matmul peak."""
    settings = report.settings
    time = 64
    rows = size.tokens // time
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, size.vocabulary, (3, rows, time), generator=generator).to(settings.device)
    batch = {"input_ids": ids[0], "decoder_input_ids": ids[1], "labels": ids[2]}
    with precision(name, settings.device) as autocast:
        peak = matmul_peak(settings, LOW.get(name, torch.float32))
        report.facts[f"matmul peak, {name}, TFLOP/s"] = peak / 1e12
        ours = our_model(size, settings.device)
        marian = marian_of(ours)
        with torch.no_grad(), autocast():
            error = difference(loss_of(ours)(**batch), loss_of(marian)(**batch))
        report.check(f"Transformer training, {name}: loss", error, 1e-2 if name in LOW else 1e-3)
        runs = {}
        for side, model in (("hfseq", ours), ("MarianMTModel", marian)):
            for compiled in (False, True):
                made = torch.compile(model) if compiled else model
                label = f"{side}, compiled" if compiled else side
                runs[label] = trainer_of(model, loss_of(made), [batch], autocast)
        times = take_turns(runs, settings, settings.repeats)
        for ending in ("", ", compiled"):
            mine, theirs = f"hfseq{ending}", f"MarianMTModel{ending}"
            mfu = size.flops(rows, time) / times[mine].median("wall") / peak
            report.facts[f"Transformer training, {name}{ending}: MFU"] = mfu
            line = f"Transformer training, {name}{ending}, [{rows} x {time}], {size}"
            note = f"MFU {mfu:.1%}"
            report.compare(
                line, theirs, "target tokens/s", rows * time, times[mine], times[theirs], None, note
            )
