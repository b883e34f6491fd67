"""The lines of Pervasive Attention: training against plain masked convolutions, decoding against recomputation.

The peer is the same network with the same weights as one would write it: the grid of both word vectors concatenated,
the channels of all layers concatenated for each, square kernels multiplied by a mask, all logits. It has what costs
nothing to write: channels last (1x1 convolutions are then linear layers), and word vectors normalised before they are
spread over the grid.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from torch import nn

import hfseq

from .measuring import (
    IGNORE_INDEX,
    Line,
    Report,
    Settings,
    busiest_kernels,
    difference,
    peak_memory,
    precision,
    take_turns,
    trainer_of,
)
from .transformer import Batch, loss_of


@dataclass(frozen=True)
class PervasiveSize:
    """A dense network and its batches."""

    vocabulary: int
    embedding: int
    layers: int
    growth: int
    rows: int
    source: int
    target: int

    def __str__(self) -> str:
        return f"{self.layers} layers, {self.rows} pairs of {self.source} and {self.target} words"

    def config(self) -> hfseq.PervasiveConfig:
        return hfseq.PervasiveConfig(
            vocab_size=self.vocabulary,
            embedding_size=self.embedding,
            num_hidden_layers=self.layers,
            growth_size=self.growth,
        )

    def batches(self, count: int, device: str) -> list[Batch]:
        """Random pairs; each source of every fourth pair is two words shorter."""
        generator = torch.Generator().manual_seed(0)
        made = []
        for _ in range(count):
            ids = torch.randint(3, self.vocabulary, (self.rows, self.source), generator=generator)
            labels = torch.randint(3, self.vocabulary, (self.rows, self.target), generator=generator)
            given = torch.cat([torch.ones_like(labels[:, :1]), labels[:, :-1]], dim=1)
            mask = torch.ones_like(ids)
            mask[::4, -2:] = 0
            batch = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": given, "labels": labels}
            made.append({name: value.to(device) for name, value in batch.items()})
        return made


SMALL = PervasiveSize(vocabulary=10048, embedding=128, layers=10, growth=32, rows=40, source=14, target=16)
PAPER = PervasiveSize(vocabulary=10048, embedding=128, layers=24, growth=32, rows=20, source=14, target=16)
QUICK = PervasiveSize(vocabulary=50, embedding=8, layers=3, growth=4, rows=4, source=6, target=5)


def pervasive(report: Report) -> None:
    from . import pervasive_published as published  # its sizes and batches are those here

    settings = report.settings
    if settings.device == "cuda":
        for length in (8,) if settings.quick else (16, 32, 64, 128):
            report.section(gpu_lines, length)
        return
    sizes = [QUICK] if settings.quick else [SMALL, PAPER]
    for size, goal in zip(sizes, (1.6, 1.35), strict=False):
        report.section(training_line, size, goal)
    for size in published.QUICK if settings.quick else (published.DENSENET, published.RESNET):
        report.section(published.published_training_line, size)
    report.section(memory_line, sizes[0])
    report.section(decoding_line, sizes[0])


class PlainPervasive(nn.Module):
    """The dense form with norm="layer" and a maximum, plainly."""

    def __init__(self, ours: hfseq.PervasiveForSeq2SeqLM):
        super().__init__()
        config, grid = ours.config, ours.model.decoder.grid
        size, self.reach = config.embedding_size, config.kernel_size // 2
        self.embedding = nn.Embedding(config.vocab_size, size)
        self.source_norm, self.target_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.bottlenecks, self.convs = nn.ModuleList(), nn.ModuleList()
        self.bottleneck_norms, self.output_norms = nn.ModuleList(), nn.ModuleList()
        for i in range(config.num_hidden_layers):
            width, read = config.bottleneck_size, 2 * size + i * config.growth_size
            self.bottlenecks.append(nn.Linear(read, width, bias=False))
            self.convs.append(
                nn.Conv2d(width, config.growth_size, config.kernel_size, padding=self.reach, bias=False)
            )
            self.bottleneck_norms.append(nn.LayerNorm(width))
            self.output_norms.append(nn.LayerNorm(config.growth_size))
        self.projection = nn.Linear(grid.output_size, size)
        self.output = nn.Linear(size, config.vocab_size)
        self.output.weight = self.embedding.weight
        live = torch.ones(config.kernel_size, config.kernel_size)
        live[self.reach + 1 :] = 0
        self.register_buffer("live", live)
        self.copy_weights(ours)
        self.to(ours.device)

    @torch.no_grad()
    def copy_weights(self, ours: hfseq.PervasiveForSeq2SeqLM) -> None:
        """Those of ours, in this model's shapes."""
        grid = ours.model.decoder.grid
        self.embedding.weight.copy_(ours.model.encoder.embed_tokens.weight)
        for name in ("source_norm", "target_norm"):
            getattr(self, name).load_state_dict(getattr(grid, name).state_dict())
        for i, layer in enumerate(grid.layers):
            shares = [grid.source_shares[i].linear, grid.target_shares[i].linear]
            parts = [*shares, *([layer.features] if i else [])]
            self.bottlenecks[i].weight.copy_(torch.cat([part.weight for part in parts], dim=1))
            self.convs[i].weight[:, :, : self.reach + 1].copy_(layer.conv.weight.view(layer.conv.shape))
            self.bottleneck_norms[i].load_state_dict(layer.bottleneck_norm.state_dict())
            self.output_norms[i].load_state_dict(layer.output_norm.state_dict())
        self.projection.load_state_dict(ours.projection.state_dict())
        self.output.bias.copy_(ours.lm_head.bias)

    def logits(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        """[batch, time, vocabulary]"""
        mask = attention_mask[:, None, :, None].bool()
        source, target = self.source_norm(self.embedding(input_ids)), self.target_norm(self.embedding(ids))
        size, shape = source.shape[-1], (len(ids), ids.shape[1], input_ids.shape[1], source.shape[-1])
        x = torch.cat([source.unsqueeze(1).expand(shape), target.unsqueeze(2).expand(shape)], dim=-1)
        for i, conv in enumerate(self.convs):
            read = F.relu(self.bottleneck_norms[i](self.bottlenecks[i](x))) * mask
            new = F.conv2d(read.permute(0, 3, 1, 2), conv.weight * self.live, padding=self.reach)
            x = torch.cat([x, F.relu(self.output_norms[i](new.permute(0, 2, 3, 1)))], dim=-1)
        pooled = x.masked_fill(~mask, torch.finfo(x.dtype).min).amax(2)  # [batch, time, channels]
        pooled = torch.cat([pooled[..., 2 * size :], pooled[..., : 2 * size]], dim=-1)  # as ours has them
        return self.output(self.projection(pooled))

    def loss(self, input_ids, attention_mask, decoder_input_ids, labels) -> torch.Tensor:
        logits = self.logits(input_ids, attention_mask, decoder_input_ids)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)


def our_model(size: PervasiveSize, device: str) -> hfseq.PervasiveForSeq2SeqLM:
    torch.manual_seed(0)
    return hfseq.PervasiveForSeq2SeqLM(size.config()).to(device).train()


def check_equal(report: Report, name: str, ours, plain: PlainPervasive, batch: Batch) -> None:
    """The same loss, and the same gradients of the embedding, the first kernel and the last 1x1 convolution."""
    results = []
    for model, loss in ((ours, ours(**batch).loss), (plain, plain.loss(**batch))):
        loss.backward()
        if model is ours:
            layers = ours.model.decoder.grid.layers
            first = layers[0].conv.weight.grad.view(layers[0].conv.shape)
            last, table = layers[-1].features.weight.grad, ours.get_input_embeddings().weight.grad
        else:
            first = plain.convs[0].weight.grad[:, :, : plain.reach + 1]
            last = plain.bottlenecks[-1].weight.grad[:, 2 * plain.embedding.embedding_dim :]
            table = plain.embedding.weight.grad
        results.append((loss.detach(), table.clone(), first.clone(), last.clone()))
        model.zero_grad()
    for part, mine, theirs in zip(("loss", "embedding", "first kernel", "last 1x1"), *results, strict=True):
        report.check(f"{name}: {part}", difference(mine, theirs), 1e-3)


def training_line(report: Report, size: PervasiveSize, goal: float) -> None:
    """The same batches on both sides."""
    settings = report.settings
    batches = size.batches(1, settings.device)
    ours = our_model(size, settings.device)
    plain = PlainPervasive(ours)
    name = f"Pervasive training, {size}"
    check_equal(report, name, ours, plain, batches[0])
    runs = {
        "ours": trainer_of(ours, loss_of(ours), batches),
        "plain": trainer_of(plain, plain.loss, batches),
    }
    times = take_turns(runs, settings)
    tokens = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in batches)
    report.compare(name, "plain masked convolutions", "tokens/s", tokens, times["ours"], times["plain"], goal)


def training_memory(side: str, size: PervasiveSize, settings: Settings) -> int:
    """Bytes by which two updates raise the peak, model and optimiser included."""
    torch.set_num_threads(settings.threads)
    batches = size.batches(2, settings.device)
    before = peak_memory(settings.device, reset=True)
    model = our_model(size, settings.device)
    loss = loss_of(model)
    if side == "plain":
        model = PlainPervasive(model)
        loss = model.loss
    trainer_of(model, loss, batches)()
    return peak_memory(settings.device) - before


def memory_line(report: Report, size: PervasiveSize) -> None:
    peaks = {}
    for side in ("ours", "plain"):
        if report.settings.device == "cuda":
            peaks[side] = training_memory(side, size, report.settings)
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh_process:
            peaks[side] = fresh_process.submit(training_memory, side, size, report.settings).result()
    report.add(
        Line(
            f"Pervasive training memory, {size}",
            "plain masked convolutions",
            peaks["ours"] / 1e6,
            peaks["plain"] / 1e6,
            "MB",
            peaks["ours"] / max(peaks["plain"], 1),
            0.75,
            at_least=False,
        )
    )


def decoding_line(report: Report, size: PervasiveSize) -> None:
    """Greedy decoding of 28 tokens for 4 sources of as many words, with and without the cache."""
    size = size if report.settings.quick else replace(size, rows=4, source=28, target=28)
    model = our_model(size, report.settings.device).eval()
    batch = size.batches(1, report.settings.device)[0]
    inputs = {name: batch[name][:4] for name in ("input_ids", "attention_mask")}
    steps = 4 if report.settings.quick else 28
    options = {"min_new_tokens": steps, "max_new_tokens": steps, "do_sample": False}
    with torch.no_grad():
        given = batch["decoder_input_ids"][:4]
        rows = {"decoder_input_ids": given, **inputs}
        expected = model(**rows, use_cache=False).logits
        cache = hfseq.models.modeling_pervasive.GridCache()
        stepwise = [
            model(**{**rows, "decoder_input_ids": step}, past_key_values=cache, use_cache=True).logits
            for step in given.split(1, dim=1)
        ]
    report.check("Pervasive decoding: logits", difference(torch.cat(stepwise, dim=1), expected), 1e-4)
    runs = {
        name: partial(model.generate, **inputs, **options, use_cache=name == "cache")
        for name in ("cache", "none")
    }
    times = take_turns(runs, report.settings)
    name = f"Pervasive decoding, {steps} steps of 4 rows, {size.source} source words"
    amount = 4 * steps
    report.compare(name, "recomputation", "tokens/s", amount, times["cache"], times["none"], 4.0)


def gpu_lines(report: Report, length: int) -> None:
    """Training in bf16 and tf32 at one length, against the plain form and against ours compiled."""
    settings = report.settings
    rows = max(1, 65536 // length**2)
    size = PervasiveSize(10048, 128, 2 if settings.quick else 24, 32, rows, length, length)
    batches = size.batches(2, settings.device)
    for kind in ("bf16", "tf32"):
        with precision(kind, settings.device) as autocast:
            ours = our_model(size, settings.device)
            plain, compiled = PlainPervasive(ours), torch.compile(our_model(size, settings.device))
            runs = {
                "ours": trainer_of(ours, loss_of(ours), batches, autocast),
                "plain": trainer_of(plain, plain.loss, batches, autocast),
                "compiled": trainer_of(compiled, loss_of(compiled), batches, autocast),
            }
            times = take_turns(runs, settings)
            name = f"Pervasive training, {size}, {kind}"
            tokens = 2 * rows * length
            for peer in ("plain", "compiled"):
                report.compare(name, peer, "tokens/s", tokens, times["ours"], times[peer])
            if settings.device == "cuda":
                report.facts[f"{name}: busiest kernels"] = busiest_kernels(runs["ours"])
