"""From text to token arrays, and from token arrays to batches."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hfseq import data

from .measuring import Report, Settings, take_turns

SMALLEST_BPE = 258
"""256 bytes, end of text, padding."""


def data_lines(report: Report) -> None:
    """From text to token arrays, and from token arrays to batches."""
    import datasets

    datasets.disable_progress_bars()
    corpus, source = bible(report.settings)
    tokenizer = data.train_tokenizer(corpus.train, "bpe", SMALLEST_BPE if report.settings.quick else 4096)
    report.section(tokenising_lines, corpus, source, tokenizer)
    report.section(batching_lines, corpus, tokenizer)


def tokenising_lines(report: Report, corpus: data.Corpus, source: str, tokenizer) -> None:
    """All documents to files of ids: `build_token_arrays` against `datasets.map`."""
    import datasets

    table = datasets.Dataset.from_dict({"text": [document for _, document in corpus]})
    with tempfile.TemporaryDirectory() as directory:
        number = itertools.count()

        def ours() -> dict[str, data.TokenArray]:
            return data.build_token_arrays(corpus, tokenizer, Path(directory, f"ours-{next(number)}"))

        def theirs(**options) -> datasets.Dataset:
            return table.map(
                lambda rows: tokenizer(rows["text"], **options),
                batched=True,
                remove_columns=["text"],
                cache_file_name=str(Path(directory, f"theirs-{next(number)}.arrow")),
                load_from_cache_file=False,
            )

        arrays = ours()
        documents = {side: map(array.document, range(array.n_documents)) for side, array in arrays.items()}
        ids = theirs()["input_ids"]
        different = sum(
            next(documents[side]).tolist() != row for (side, _), row in zip(corpus, ids, strict=True)
        )
        report.check("tokenising: documents with other ids", different, 0)

        peers = {
            "datasets.map(batched=True)": theirs,
            "datasets.map(batched=True), ids only": partial(
                theirs, return_attention_mask=False, return_token_type_ids=False
            ),
        }
        times = take_turns({"hfseq": ours, **peers}, report.settings)
    tokens = sum(len(array) for array in arrays.values())
    for name in peers:
        goal = 1.5 if name.endswith("(batched=True)") else None
        report.compare("tokenising", name, "tokens/s", tokens, times["hfseq"], times[name], goal, source)


def batching_lines(report: Report, corpus: data.Corpus, tokenizer) -> None:
    """Streams against transformers' collators over `group_texts` blocks, through the same DataLoader."""
    import datasets
    from torch.utils.data import DataLoader
    from transformers import DataCollatorForLanguageModeling, default_data_collator

    rows, length, number = (4, 16, 4) if report.settings.quick else (32, 128, 50)
    ids = tokenizer(list(itertools.islice(corpus.train, 2000)))["input_ids"]
    tokens = np.concatenate([np.array(i, dtype=np.uint16) for i in ids])[: number * rows * length + 1]
    plan = data.StreamPlan(tokens, streams=rows, segment_length=length)
    blocks = tokens[:-1].reshape(-1, length).tolist()
    both = datasets.Dataset.from_dict({"input_ids": blocks, "labels": blocks})
    only_ids = datasets.Dataset.from_dict({"input_ids": blocks})

    def batches(dataset, collate) -> list[torch.Tensor]:
        loader = DataLoader(dataset, batch_size=rows, collate_fn=collate)
        return [batch["input_ids"] for batch in loader]

    runs = {
        "hfseq": partial(batches, plan, data.StreamCollator()),
        "default_data_collator": partial(batches, both, default_data_collator),
        "default_data_collator, torch format": partial(
            batches, both.with_format("torch"), default_data_collator
        ),
        "DataCollatorForLanguageModeling": partial(
            batches, only_ids, DataCollatorForLanguageModeling(tokenizer, mlm=False)
        ),
    }
    text = torch.from_numpy(tokens[:-1].astype(np.int64))
    for name, run in runs.items():
        read = torch.cat(run(), dim=1 if name == "hfseq" else 0).flatten()
        report.check(f"batching, {name}: tokens out of place", int((read != text).sum()), 0)
    times = take_turns(runs, report.settings)
    peers = list(runs)[1:]
    fastest = min(peers, key=lambda name: times[name].median(report.clock))
    for name in peers:
        goal = 10.0 if name == fastest else None
        line = f"batching [{rows} x {length}]"
        report.compare(line, name, "batches/s", number, times["hfseq"], times[name], goal)


def bible(settings: Settings) -> tuple[data.Corpus, str]:
    """The King James Bible, chapters of verses; where it is not installed (or for --quick) verses of random words."""
    if not settings.quick:
        with contextlib.suppress(ModuleNotFoundError):
            return data.load_corpus("kjv"), "King James Bible"
    # As there: 25.5 words to a verse, lognormal (3.14, 0.45), of many thousand words that follow Zipf's law.
    random = np.random.default_rng(0)
    number = 300 if settings.quick else 28000
    letters = np.array(list("aeiounstrlhdm"))
    words = ["".join(random.choice(letters, size=random.integers(2, 9))) for _ in range(12000)]
    share = 1 / np.arange(1, len(words) + 1)
    lengths = np.clip(random.lognormal(3.14, 0.45, size=number), 2, 90).astype(int)
    drawn = np.split(
        random.choice(len(words), size=lengths.sum(), p=share / share.sum()), np.cumsum(lengths)[:-1]
    )
    verses = [" ".join(words[i] for i in verse) for verse in drawn]
    chapters = ["\n".join(verses[i : i + 26]) for i in range(0, number, 26)]
    corpus = data.Corpus.from_documents(chapters, validation_share=0.0, test_share=0.0, name="random words")
    return corpus, "random words, verses as long as in the King James Bible"
