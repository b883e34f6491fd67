"""The lines of Pervasive Attention as its authors released it: training against the same networks, plainly written.

The peers hold the grid of both word vectors and whole kernels that a mask multiplies; they have channels last, so that
1x1 convolutions are linear layers, and torch's own norms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

import hfseq
from hfseq.models.pervasive_published import scaled_with_positions

from .measuring import IGNORE_INDEX, Report, difference, take_turns, trainer_of
from .pervasive import PervasiveSize
from .transformer import loss_of


@dataclass(frozen=True)
class PublishedSize(PervasiveSize):
    """One of the authors' networks and its batches."""

    form: str
    kernel: int

    def __str__(self) -> str:
        return f"{self.form}, {super().__str__()}"

    def config(self) -> hfseq.PervasiveConfig:
        return hfseq.PervasiveConfig(
            form=self.form,
            vocab_size=self.vocabulary,
            embedding_size=self.embedding,
            hidden_size=self.embedding,
            intermediate_size=4 * self.embedding,
            num_hidden_layers=self.layers,
            growth_size=self.growth,
            kernel_size=self.kernel,
            aggregation="gated_max" if self.form == "resnet_2020" else "max",
        )


DENSENET = PublishedSize(10048, 128, 24, 32, rows=10, source=14, target=16, form="densenet_2018", kernel=5)
RESNET = PublishedSize(10048, 256, 14, 32, rows=4, source=14, target=16, form="resnet_2020", kernel=11)
QUICK = tuple(PublishedSize(50, 8, 2, 4, 4, 6, 5, form, 3) for form in ("densenet_2018", "resnet_2020"))


class MaskedConv(nn.Conv2d):
    """A whole kernel, its lower half multiplied by zero; [batch, target, source, channels]."""

    def __init__(self, ours: hfseq.models.grid.CausalGridConv):
        out, inner, rows, size = ours.shape
        has_bias = ours.bias is not None
        super().__init__(inner * ours.groups, out, size, padding=size // 2, groups=ours.groups, bias=has_bias)
        live = torch.zeros(size, size)
        live[:rows] = 1
        self.register_buffer("live", live)
        with torch.no_grad():
            self.weight[:, :, :rows].copy_(ours.weight.view(ours.shape))
            if has_bias:
                self.bias.copy_(ours.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(
            x.permute(0, 3, 1, 2),
            self.weight * self.live,
            self.bias,
            padding=self.padding,
            groups=self.groups,
        )
        return x.permute(0, 2, 3, 1)


class Norm(nn.BatchNorm1d):
    """Batch norm of [batch, target, source, channels], and a ReLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x.flatten(0, 2)), inplace=True).view(x.shape)


class PlainPublished(nn.Module):
    """Either network with the weights of ours."""

    def __init__(self, ours: hfseq.PervasiveForSeq2SeqLM):
        super().__init__()
        grid, self.form = ours.model.decoder.grid, ours.config.form
        self.first_position = ours.config.first_position
        self.embedding = nn.Embedding.from_pretrained(
            ours.model.encoder.embed_tokens.weight.detach().clone(), freeze=False, padding_idx=0
        )
        self.first = linear_of(torch.cat([grid.source.weight, grid.target.weight], dim=1), grid.target.bias)
        self.blocks = nn.ModuleList()
        for layer in grid.layers:
            if self.form == "densenet_2018":
                read, width = layer.bottleneck.in_features, layer.bottleneck.out_features
                parts = [Norm(read), linear_of(layer.bottleneck.weight), Norm(width), MaskedConv(layer.conv)]
            else:
                up, down = (linear_of(part.weight, part.bias) for part in (layer.up, layer.down))
                mix = linear_of(layer.mix.weight, layer.mix.bias)
                parts = [nn.Sequential(mix, MaskedConv(layer.conv)), nn.Sequential(up, nn.ReLU(), down)]
            self.blocks.append(
                nn.Sequential(*parts) if self.form == "densenet_2018" else nn.ModuleList(parts)
            )
        if self.form == "densenet_2018":
            self.last = nn.Sequential(
                Norm(grid.transition.in_features), linear_of(grid.transition.weight), Norm(grid.output_size)
            )
        else:
            value, gate = grid.aggregation.value, grid.aggregation.gate
            self.last = linear_of(torch.cat([value.weight, gate.weight]), torch.cat([value.bias, gate.bias]))
        self.projection = linear_of(ours.projection.weight, ours.projection.bias)
        self.output = linear_of(ours.lm_head.weight, ours.lm_head.bias)
        self.output.weight = self.embedding.weight
        self.to(ours.device)

    def logits(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        """[batch, time, vocabulary]"""
        source, target = self.embedding(input_ids), self.embedding(ids)
        if self.form == "resnet_2020":
            source = scaled_with_positions(source, self.first_position, attention_mask)
            target = scaled_with_positions(target, self.first_position)
        shape = (len(ids), ids.shape[1], input_ids.shape[1], source.shape[-1])
        x = torch.cat([source.unsqueeze(1).expand(shape), target.unsqueeze(2).expand(shape)], dim=-1)
        x = self.first(x)
        if self.form == "densenet_2018":
            for block in self.blocks:
                x = torch.cat([x, block(x)], dim=-1)
            x = self.last(x)
        else:
            padding, outputs = attention_mask[:, None, :, None] == 0, x
            for conv, feed_forward in self.blocks:
                x = 0.5**0.5 * (x + conv(x).masked_fill(padding, 0))
                x = 0.5**0.5 * (x + feed_forward(x))
                outputs = outputs + x
            x = F.glu(self.last(outputs / (len(self.blocks) + 1)), dim=-1)
        return self.output(self.projection(x.amax(2)))

    def loss(self, input_ids, attention_mask, decoder_input_ids, labels) -> torch.Tensor:
        logits = self.logits(input_ids, attention_mask, decoder_input_ids)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)


def linear_of(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """A linear layer with a copy of these."""
    layer = nn.Linear(*weight.t().shape, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def published_training_line(report: Report, size: PublishedSize) -> None:
    """The same batches on both sides."""
    settings = report.settings
    batches = size.batches(1, settings.device)
    torch.manual_seed(0)
    ours = hfseq.PervasiveForSeq2SeqLM(size.config()).to(settings.device).train()
    plain, results, name = PlainPublished(ours), [], f"Pervasive training, {size}"
    for model in (ours.double(), plain.double()):  # roundings grow from batch norm to batch norm
        loss = (ours(**batches[0]).loss) if model is ours else plain.loss(**batches[0])
        loss.backward()
        table = model.get_input_embeddings() if model is ours else model.embedding
        results.append((loss.detach(), table.weight.grad.clone()))
        model.zero_grad()
    for part, mine, theirs in zip(("loss", "embedding"), *results, strict=True):
        report.check(f"{name}: {part}", difference(mine, theirs), 1e-6)
    ours.float()
    plain.float()
    runs = {
        "ours": trainer_of(ours, loss_of(ours), batches),
        "plain": trainer_of(plain, plain.loss, batches),
    }
    times = take_turns(runs, settings)
    tokens = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in batches)
    peer = "plain masked convolutions"
    report.compare(name, peer, "tokens/s", tokens, times["ours"], times["plain"])
