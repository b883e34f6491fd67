"""The lines of the recurrent encoder-decoders: training and decoding against `nn.LSTM` as most people write it.

Both sides are one model, Luong et al. 2015 without input feeding, with the same weights. Ours takes updates of
`PairPlan`; the peer has the same ones, or random batches of 32 of the same corpus with as many real tokens in as many
updates. Its decoder runs over the whole target in one call, or, as in most tutorials, in a loop that attends and
predicts one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import hfseq
from hfseq import data
from hfseq.models.layouts import decoding

from .measuring import IGNORE_INDEX, Report, difference, take_turns, trainer_of
from .transformer import (
    Batch,
    accumulating_trainer,
    loss_of,
    random_batches,
    real_tokens,
    translated_sentences,
)


@dataclass(frozen=True)
class Seq2SeqSize:
    """An encoder-decoder of LSTMs and its updates."""

    vocabulary: int
    embedding: int
    width: int
    """Of the decoder's layers, and of both directions of an encoder's layer together."""
    layers: int
    tokens: int
    """Positions in an update, as `PairPlan` counts them."""
    updates: int
    """Updates in one turn: each has pairs of one length, so several."""

    def __str__(self) -> str:
        return f"{self.layers}+{self.layers} x {self.width}, {self.vocabulary} words"

    def config(self) -> hfseq.LSTMSeq2SeqConfig:
        return hfseq.LSTMSeq2SeqConfig(
            vocab_size=self.vocabulary,
            embedding_size=self.embedding,
            hidden_size=self.width,
            encoder_hidden_size=self.width // 2,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
        )


# That of hfseq/recipes/lstm-multi30k-en-de.yaml, and one whose layers are those of the language models' lines.
RECIPE = Seq2SeqSize(vocabulary=10000, embedding=128, width=256, layers=2, tokens=4096, updates=5)
WIDE = Seq2SeqSize(vocabulary=10000, embedding=512, width=512, layers=2, tokens=4096, updates=5)
QUICK = Seq2SeqSize(vocabulary=320, embedding=12, width=16, layers=2, tokens=512, updates=2)


def recurrent_seq2seq(report: Report) -> None:
    sizes = (QUICK,) if report.settings.quick else (RECIPE, WIDE)
    report.section(training_lines, sizes[0])
    for size in sizes:
        report.section(decoding_line, size, size is sizes[-1])


class NaiveSeq2Seq(nn.Module):
    """The same model of `nn.LSTM`s, with all logits."""

    def __init__(self, size: Seq2SeqSize):
        super().__init__()
        options = {"num_layers": size.layers, "batch_first": True}
        self.embedding = nn.Embedding(size.vocabulary, size.embedding)
        self.encoder = nn.LSTM(size.embedding, size.width // 2, bidirectional=True, **options)
        self.bridge = nn.Linear(size.width, size.layers * size.width)
        self.decoder = nn.LSTM(size.embedding, size.width, **options)
        self.query = nn.Linear(size.width, size.width, bias=False)
        self.combine = nn.Linear(2 * size.width, size.embedding)
        self.output = nn.Linear(size.embedding, size.vocabulary)
        self.output.weight = self.embedding.weight

    def encode(self, input_ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, tuple]:
        """(memory [batch, source time, width], the decoder's first state)"""
        x = pack_padded_sequence(
            self.embedding(input_ids), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        packed, (h, _) = self.encoder(x)
        memory, _ = pad_packed_sequence(packed, batch_first=True, total_length=input_ids.shape[1])
        h = torch.tanh(self.bridge(torch.cat([h[-2], h[-1]], dim=-1)))
        h = h.unflatten(-1, (self.decoder.num_layers, -1)).transpose(0, 1).contiguous()
        return memory, (h, torch.zeros_like(h))

    def decode(self, ids: torch.Tensor, state: tuple, memory: torch.Tensor, mask: torch.Tensor) -> tuple:
        """(logits [batch, time, vocabulary], state)"""
        x, state = self.decoder(self.embedding(ids), state)
        scores = self.query(x) @ memory.transpose(1, 2)  # [batch, time, source time]
        weights = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
        x = torch.tanh(self.combine(torch.cat([x, weights @ memory], dim=-1)))
        return self.output(x), state

    def loss(
        self,
        input_ids: torch.Tensor,
        decoder_input_ids: torch.Tensor,
        labels: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        loop: bool = False,
    ) -> torch.Tensor:
        """loop: one step of the target at a time."""
        mask = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
        memory, state = self.encode(input_ids, mask)
        if loop:
            steps = []
            for ids in decoder_input_ids.split(1, dim=1):
                logits, state = self.decode(ids, state, memory, mask)
                steps.append(logits)
            logits = torch.cat(steps, dim=1)
        else:
            logits, _ = self.decode(decoder_input_ids, state, memory, mask)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)

    def parts(self) -> dict[str, torch.Tensor]:
        """Parameters under the names that `parts_of` gives ours."""
        return dict(self.named_parameters())


def our_model(size: Seq2SeqSize, device: str) -> hfseq.LSTMForSeq2SeqLM:
    torch.manual_seed(0)
    return hfseq.LSTMForSeq2SeqLM(size.config()).to(device).train()


def parts_of(ours: hfseq.LSTMForSeq2SeqLM) -> dict[str, torch.Tensor]:
    encoder, decoder = ours.model.encoder, ours.model.decoder
    modules = {
        "embedding": encoder.embed_tokens, "encoder": encoder.block.rnn, "bridge": encoder.bridge.projection,
        "decoder": decoder.blocks[0].rnn, "query": decoder.attention.query, "combine": decoder.combine,
    }  # fmt: skip
    parts = {f"{name}.{p}": value for name, m in modules.items() for p, value in m.named_parameters()}
    return {**parts, "output.bias": ours.lm_head.bias}


@torch.no_grad()
def naive_of(ours: hfseq.LSTMForSeq2SeqLM, size: Seq2SeqSize) -> NaiveSeq2Seq:
    """The peer, on the same device with the same weights."""
    peer, source = NaiveSeq2Seq(size).to(ours.device), parts_of(ours)
    for name, parameter in peer.parts().items():
        parameter.copy_(source[name])
    return peer.train(ours.training)


def check_equal(
    report: Report, name: str, ours: hfseq.LSTMForSeq2SeqLM, peer: NaiveSeq2Seq, loss: Callable, batch: Batch
) -> None:
    """The same loss and the same gradients of all parameters."""
    results = []
    for parts, value in ((parts_of(ours), loss_of(ours)), (peer.parts(), loss)):
        result = value(**batch)
        names = sorted(parts)
        results.append((result, torch.autograd.grad(result, [parts[n] for n in names])))
    (mine, my_gradients), (theirs, their_gradients) = results
    report.check(f"{name}: loss", difference(mine, theirs), 1e-5)
    worst = max(difference(a, b) for a, b in zip(my_gradients, their_gradients, strict=True))
    report.check(f"{name}: gradients", worst, 1e-4)


def training_lines(report: Report, size: Seq2SeqSize) -> None:
    """The same pairs: our batches on both sides, and the peer's random batches of 32; its decoder in both forms."""
    settings = report.settings
    pairs, source = translated_sentences(size, settings)
    plan = data.PairPlan(pairs, tokens_per_update=size.tokens)
    planned = [plan[i] for i in range(min(size.updates, len(plan)))]
    real = real_tokens(planned)
    usual = random_batches(pairs, real)
    planned, usual = (
        [{k: v.to(settings.device) for k, v in batch.items()} for batch in batches]
        for batches in (planned, usual)
    )
    ours = our_model(size, settings.device)
    name = f"LSTM encoder-decoder training, {size}, {size.tokens} tokens an update"
    runs = {"hfseq": trainer_of(ours, loss_of(ours), planned)}
    goals = {("at once", "random batches of 32"): 3.0, ("loop", "the same batches"): 2.0}
    peers = {}
    for form in ("at once", "loop"):
        for batches in ("random batches of 32", "the same batches"):
            peer = naive_of(ours, size)
            loss = partial(peer.loss, loop=form == "loop")
            label = f"nn.LSTM, decoder {'in a loop' if form == 'loop' else form}, full logits, {batches}"
            if batches == "the same batches":
                check_equal(report, f"{name}, {label}", ours, peer, loss, planned[0])
                runs[label] = trainer_of(peer, loss, planned)
            else:
                runs[label] = accumulating_trainer(peer, loss, usual, len(planned))
            peers[label] = batches, goals.get((form, batches))
    times = take_turns(runs, settings)
    theirs = real_tokens(usual)
    share = theirs / sum(batch["labels"].numel() for batch in usual)
    for label, (batches, goal) in peers.items():
        note = f"{source}; {plan.fullness:.0%} of our positions are real"
        if batches != "the same batches":
            times[label] = times[label].scaled(real / theirs)  # its last pair may be one too many
            note += f", {share:.0%} of the peer's targets"
        report.compare(name, label, "target tokens/s", real, times["hfseq"], times[label], goal, note)


def decoding_line(report: Report, size: Seq2SeqSize, is_claim: bool) -> None:
    """One token at a time, batch 1, from token to logits, the source read before; `generate()` for information."""
    settings = report.settings
    ours = our_model(size, settings.device).eval()
    naive = naive_of(ours, size)
    generator = torch.Generator().manual_seed(0)
    steps = 8 if settings.quick else 64
    source, target = torch.randint(3, size.vocabulary, (2, steps), generator=generator).to(settings.device)
    source, tokens = source[: steps // 2].view(1, -1), target.view(-1, 1, 1)
    mask = torch.ones_like(source).bool()
    with torch.no_grad():
        encoded = ours.get_encoder()(input_ids=source)
        memory, first = naive.encode(source, mask)

    @torch.no_grad()
    @decoding()
    def decode_ours() -> torch.Tensor:
        cache, outputs = None, []
        for token in tokens:
            output = ours(
                encoder_outputs=encoded, decoder_input_ids=token, past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
            outputs.append(output.logits)
        return torch.cat(outputs)

    @torch.no_grad()
    def decode_naive() -> torch.Tensor:
        state, outputs = first, []
        for token in tokens:
            logits, state = naive.decode(token, state, memory, mask)
            outputs.append(logits)
        return torch.cat(outputs)

    def generate() -> torch.Tensor:
        return ours.generate(source, do_sample=False, min_new_tokens=steps, max_new_tokens=steps)

    name = f"LSTM encoder-decoder decoding, batch 1, {size}"
    error = float((decode_ours() - decode_naive()).abs().max())
    report.check(f"{name}: logits", error, 1e-6 if settings.device == "cpu" else 1e-4)
    times = take_turns({"hfseq": decode_ours, "naive": decode_naive, "generate": generate}, settings)
    report.compare(
        name, "nn.LSTM and attention per step", "tokens/s", steps, times["hfseq"], times["naive"],
        2.5 if is_claim else None,
        f"generate(): {steps / times['generate'].median(report.clock):,.0f} tokens/s",
    )  # fmt: skip
