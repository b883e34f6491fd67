"""The masked-LM lines: training and memory against `BertForMaskedLM`; on a GPU shares of the matmul peak.

Both sides have the same sizes and the same weights, see the same sentences with the same masks, and count real tokens.
Ours has several sentences per row and logits where there are labels; the peer pads a random batch of those sentences to
the longest (what Trainer does by default), or reads the same contiguous blocks (`group_texts` of the example scripts).
"""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
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
    Line,
    Report,
    Settings,
    difference,
    matmul_peak,
    peak_memory,
    precision,
    take_turns,
    trainer_of,
)
from .text import bible

Batch = dict[str, object]


@dataclass(frozen=True)
class EncoderSize:
    """An encoder and its updates."""

    vocabulary: int
    width: int
    layers: int
    rows: int
    time: int
    mask_rate: float = 0.15

    def __str__(self) -> str:
        return f"{self.layers} x {self.width}, {self.vocabulary} words, [{self.rows} x {self.time}]"

    @property
    def heads(self) -> int:
        return max(1, self.width // 64)

    @property
    def tokens(self) -> int:
        return self.rows * self.time

    def config(self, dropout: float = 0.0) -> hfseq.EncoderConfig:
        return hfseq.EncoderConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            max_position_embeddings=max(512, self.time),
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )

    def flops(self) -> int:
        """Multiplications and additions of one update of BERT on full rows, forward and backward, with logits for the
        labelled positions alone. What our last layer leaves out counts as done: MFU is of the work to do."""
        per_layer = 12 * self.width**2 + 2 * self.time * self.width
        head = self.mask_rate * (self.width**2 + self.width * self.vocabulary)
        return int(3 * 2 * self.tokens * (self.layers * per_layer + head))


def encoder_size(settings: Settings, vocabulary: int) -> EncoderSize:
    if settings.quick:
        return EncoderSize(vocabulary=vocabulary // 32, width=32, layers=2, rows=4, time=32)
    if settings.device == "cuda":
        return EncoderSize(vocabulary=30528, width=768, layers=12, rows=128, time=512)
    return EncoderSize(vocabulary=vocabulary, width=256, layers=4, rows=32, time=128)


def encoder(report: Report) -> None:
    settings = report.settings
    if settings.device == "cuda":
        for name in ("bf16", "tf32"):
            report.section(gpu_lines, encoder_size(settings, 30528), name)
        return
    for vocabulary, padded_goal, block_goal in ((16384, 5.5, 2.0), (30528, 7.0, 2.5)):
        size = encoder_size(settings, vocabulary)
        report.section(padded_lines, size, padded_goal)
        report.section(block_lines, size, block_goal)
        report.section(memory_line, size)


def our_model(size: EncoderSize, device: str) -> hfseq.EncoderForMaskedLM:
    torch.manual_seed(0)
    return hfseq.EncoderForMaskedLM(size.config()).to(device).train()


def bert_of(ours: hfseq.EncoderForMaskedLM, dropout: float = 0.0, **options) -> transformers.BertForMaskedLM:
    """The same function as `BertForMaskedLM`, with transformers' best attention."""
    with tempfile.TemporaryDirectory() as directory:
        export_model(ours, directory, "bert")
        bert = transformers.BertForMaskedLM.from_pretrained(
            directory,
            attn_implementation="sdpa",
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            **options,
        )
    return bert.to(ours.device).train()


# ---- batches


def sentences(size: EncoderSize, settings: Settings) -> tuple[data.TokenArray, data.MaskingVocabulary, str]:
    """Verses, each a document of its own, as tokens."""
    corpus, source = bible(settings)
    verses = [verse for chapter in corpus.train for verse in chapter.split("\n")]
    corpus = data.Corpus.from_documents(train=verses)
    tokenizer = data.train_tokenizer(verses, "bpe", max(size.vocabulary, 300), masked=True)
    # --quick has models of fewer words than a tokenizer must have.
    directory = tempfile.mkdtemp(prefix="hfseq-benchmark-")
    array = data.build_token_arrays(corpus, tokenizer, directory)["train"]
    return array, data.MaskingVocabulary.from_tokenizer(tokenizer), source


def plan_batches(size: EncoderSize, settings: Settings, packing: str, number: int) -> tuple[list[Batch], str]:
    """Updates of `MaskedPlan`, as the model takes them."""
    array, vocabulary, source = sentences(size, settings)
    plan = data.MaskedPlan(
        array,
        vocabulary,
        row_length=size.time,
        tokens_per_update=size.tokens,
        packing=packing,
        masking=data.Masking(rate=size.mask_rate),
    )
    batches = []
    for index in range(number):
        batch = {k: v.to(settings.device) if torch.is_tensor(v) else v for k, v in plan[index].items()}
        if settings.quick:
            for name in ("input_ids", "labels"):
                ids = batch[name]
                batch[name] = torch.where(ids == IGNORE_INDEX, ids, ids % size.vocabulary)
        batches.append(batch)
    return batches, source


def real_tokens(batch: Batch) -> int:
    """Positions that are not padding: those of segments with a label, or of rows without segments."""
    return batch["input_ids"].numel() if "cu_seq_lens_q" not in batch else sum(map(len, texts_of(batch)))


def texts_of(batch: Batch) -> list[torch.Tensor]:
    """The packed texts of a batch as positions in its rows laid in line; segments of padding are left out."""
    borders = batch["cu_seq_lens_q"].unique().tolist()
    labels = batch["labels"].flatten()
    texts = [torch.arange(a, b, device=labels.device) for a, b in itertools.pairwise(borders)]
    return [text for text in texts if bool((labels[text] != IGNORE_INDEX).any())]


def padded(batch: Batch) -> Batch:
    """The same sentences with the same masks, one per row, padded to the longest."""
    texts = texts_of(batch)
    ids, labels = batch["input_ids"].flatten(), batch["labels"].flatten()
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([ids[text] for text in texts], batch_first=True),
        "attention_mask": pad([torch.ones_like(text) for text in texts], batch_first=True),
        "labels": pad([labels[text] for text in texts], batch_first=True, padding_value=IGNORE_INDEX),
    }


def loss_of(model: nn.Module) -> Callable[..., torch.Tensor]:
    return lambda **batch: model(**batch).loss


def check_equal(report: Report, name: str, ours, ours_batch: Batch, bert, bert_batch: Batch) -> None:
    """The same loss, and the same gradients of the embedding and of the first layer's query."""
    results = []
    for model, batch in ((ours, ours_batch), (bert, bert_batch)):
        loss = model(**batch).loss
        loss.backward()
        query = (
            model.model.layers[0].attention.q_proj
            if model is ours
            else model.bert.encoder.layer[0].attention.self.query
        )
        parts = model.get_input_embeddings().weight.grad.clone(), query.weight.grad.clone()
        results.append((loss.detach(), *parts))
        model.zero_grad()
    for part, mine, theirs in zip(("loss", "embedding gradient", "query gradient"), *results, strict=True):
        report.check(f"{name}: {part}", difference(mine, theirs), 1e-3)


# ---- training on a CPU


def padded_lines(report: Report, size: EncoderSize, goal: float) -> None:
    """Variable-length text: packed rows against padded random batches of the same sentences."""
    settings = report.settings
    packed, source = plan_batches(size, settings, "documents", 2)
    unpacked = [padded(batch) for batch in packed]
    ours = our_model(size, settings.device)
    plain, usual = bert_of(ours), bert_of(ours, dropout=0.1)
    name = f"MLM training, variable-length text, {size}"
    check_equal(report, name, ours, packed[0], plain, unpacked[0])
    runs = {
        "hfseq": trainer_of(ours, loss_of(ours), packed[1:]),
        "BertForMaskedLM, padded, its dropout": trainer_of(usual, loss_of(usual), unpacked[1:]),
        "BertForMaskedLM, padded, no dropout": trainer_of(plain, loss_of(plain), unpacked[1:]),
    }
    times = take_turns(runs, settings, settings.repeats)
    real = real_tokens(packed[1])
    share = real / unpacked[1]["input_ids"].numel()
    for peer in list(runs)[1:]:
        its_goal = goal if "its dropout" in peer else None
        note = f"{source}; {share:.0%} of the peer's positions are real"
        report.compare(name, peer, "tokens/s", real, times["hfseq"], times[peer], its_goal, note)


def block_lines(report: Report, size: EncoderSize, goal: float) -> None:
    """The same full rows on both sides."""
    settings = report.settings
    blocks, source = plan_batches(size, settings, "blocks", 2)
    plain_blocks = [{name: batch[name] for name in ("input_ids", "labels")} for batch in blocks]
    ours = our_model(size, settings.device)
    bert = bert_of(ours)
    name = f"MLM training, full rows, {size}"
    check_equal(report, name, ours, blocks[0], bert, plain_blocks[0])
    runs = {
        "hfseq": trainer_of(ours, loss_of(ours), blocks[1:]),
        "BertForMaskedLM, group_texts, no dropout": trainer_of(bert, loss_of(bert), plain_blocks[1:]),
    }
    times = take_turns(runs, settings, settings.repeats)
    speed = size.flops() / times["hfseq"].median(report.clock) / 1e9
    peer = list(runs)[1]
    note = f"{source}; {speed:,.0f} GFLOP/s"
    report.compare(name, peer, "tokens/s", size.tokens, times["hfseq"], times[peer], goal, note)


def memory_line(report: Report, size: EncoderSize) -> None:
    """Parameters, gradients, optimiser, activations: all that a process has beyond its imports."""
    grown = {}
    for side in ("hfseq", "bert"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh_process:
            grown[side] = fresh_process.submit(training_memory, side, size, report.settings).result() / 2**20
    name, peer = f"MLM training memory, full rows, {size}", "BertForMaskedLM, group_texts, no dropout"
    ours, theirs = grown["hfseq"], grown["bert"]
    report.add(Line(name, peer, ours, theirs, "MiB", ours / theirs, 0.6, at_least=False))


def random_blocks(size: EncoderSize, device: str, number: int) -> list[Batch]:
    """Full rows of random tokens with exact masks, where the text does not matter."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(number):
        ids = torch.randint(size.vocabulary, (size.rows, size.time), generator=generator)
        slots = max(1, round(size.mask_rate * size.time))
        places = torch.rand(ids.shape, generator=generator).argsort(1)[:, :slots].sort(1).values
        labels = torch.full_like(ids, IGNORE_INDEX).scatter(1, places, ids.gather(1, places))
        batch = {"input_ids": ids, "labels": labels, "masked_positions": places}
        batches.append({name: value.to(device) for name, value in batch.items()})
    return batches


def training_memory(side: str, size: EncoderSize, settings: Settings) -> int:
    """Bytes by which three updates of a new model raise the peak."""
    torch.set_num_threads(settings.threads)
    batches = random_blocks(size, settings.device, 3)
    before = peak_memory(settings.device, reset=True)
    if side == "hfseq":
        model = our_model(size, settings.device)
    else:
        shape = size.config().to_dict()
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        config = transformers.BertConfig(
            **{name: shape[name] for name in names}, hidden_dropout_prob=0, attention_probs_dropout_prob=0
        )
        model = transformers.BertForMaskedLM(config).to(settings.device).train()
        for batch in batches:
            del batch["masked_positions"]
    trainer_of(model, loss_of(model), batches)()
    return peak_memory(settings.device) - before


# ---- training on a GPU


def gpu_lines(report: Report, size: EncoderSize, name: str) -> None:
    """The BERT-base shape on full rows and on packed sentences, compiled and not; MFU against the matmul peak."""
    settings = report.settings
    blocks = random_blocks(size, settings.device, 2)
    plain_blocks = [{key: batch[key] for key in ("input_ids", "labels")} for batch in blocks]
    with precision(name, settings.device) as autocast:
        peak = matmul_peak(settings, LOW.get(name, torch.float32))
        report.facts[f"matmul peak, {name}, TFLOP/s"] = peak / 1e12
        ours = our_model(size, settings.device)
        bert = bert_of(ours)
        with torch.no_grad(), autocast():
            error = difference(loss_of(ours)(**blocks[0]), loss_of(bert)(**plain_blocks[0]))
        report.check(f"MLM training, {name}: loss", error, 1e-2 if name in LOW else 1e-3)
        memory = {}
        runs = {}
        for side, model, batches in (("hfseq", ours, blocks), ("BertForMaskedLM", bert, plain_blocks)):
            for compiled in (False, True):
                made = torch.compile(model) if compiled else model
                label = f"{side}, compiled" if compiled else side
                runs[label] = trainer_of(model, loss_of(made), batches[1:], autocast)
                peak_memory(settings.device, reset=True)
                runs[label]()
                memory[label] = peak_memory(settings.device) / 2**30
        times = take_turns(runs, settings, settings.repeats)
        report.facts[f"MLM training, {name}: GiB"] = memory
        for ending in ("", ", compiled"):
            mine, theirs = f"hfseq{ending}", f"BertForMaskedLM{ending}"
            mfu = size.flops() / times[mine].median("wall") / peak
            report.facts[f"MLM training, {name}{ending}: MFU"] = mfu
            note = f"MFU {mfu:.1%}, {memory[mine]:.1f} against {memory[theirs]:.1f} GiB"
            line = f"MLM training, {name}{ending}, full rows, {size}"
            report.compare(line, theirs, "tokens/s", size.tokens, times[mine], times[theirs], None, note)
    report.section(gpu_packed_lines, size, name)


def gpu_packed_lines(report: Report, size: EncoderSize, name: str) -> None:
    """Sentences of 8 to 128 tokens: packed rows against padded batches of the same sentences."""
    settings = report.settings
    random = np.random.default_rng(0)
    batch = random_blocks(size, settings.device, 1)[0]
    borders = np.concatenate([[0], np.cumsum(random.integers(8, 129, size=size.tokens // 8))])
    row_ends = np.arange(0, size.tokens + 1, size.time)
    borders = np.unique(np.concatenate([borders[borders < size.tokens], row_ends]))
    cu = torch.from_numpy(borders.astype(np.int32)).to(settings.device)
    longest = int(np.diff(borders).max())
    packed = {
        **batch,
        "cu_seq_lens_q": cu,
        "cu_seq_lens_k": cu,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    ours = our_model(size, settings.device)
    bert = bert_of(ours)
    unpacked = padded(packed)
    with precision(name, settings.device) as autocast:
        with torch.no_grad(), autocast():
            error = difference(loss_of(ours)(**packed), loss_of(bert)(**unpacked))
        report.check(f"MLM training, {name}, packed: loss", error, 1e-2 if name in LOW else 1e-3)
        runs = {
            "hfseq": trainer_of(ours, loss_of(ours), [packed], autocast),
            "BertForMaskedLM, padded": trainer_of(bert, loss_of(bert), [unpacked], autocast),
        }
        times = take_turns(runs, settings, settings.repeats)
    real = real_tokens(packed)
    line, peer = f"MLM training, {name}, sentences of 8-128, {size}", "BertForMaskedLM, padded"
    report.compare(line, peer, "tokens/s", real, times["hfseq"], times[peer])
