"""BLEU and chrF of translations, each beside the signature that says how it was counted.

A BLEU means nothing without its tokenisation: the same 1,000 captions differ by several points between sacreBLEU on the
raw text and the tokenised, lower-cased text of most papers on Multi30k. So no score is returned without its signature,
and scores with different signatures do not compare.

sacreBLEU (Post 2018) counts; the Moses tokenizer of `tokenized_bleu` is sacremoses'. Both come with
`pip install 'hfseq[metrics]'` and are imported when first used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

SEED = 12345
"""Of the bootstrap's samples: sacreBLEU's default."""


def translation_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float | str | int]:
    """BLEU (tokenised by sacreBLEU's 13a), the same lower-cased, and chrF, of plain, untokenised text.

    Args:
        hypotheses: one translation per sentence; may be empty.
        references: the sentences they are held against, in the same order.

    Returns:
        bleu, bleu_lowercase, chrf (percentages), {name}_signature of each, and sentences, their number.

    Raises:
        ValueError: other numbers of hypotheses than references, or none; ModuleNotFoundError: no sacrebleu.
    """
    _check(hypotheses, references)
    sacrebleu = _import("sacrebleu")
    counted = {
        "bleu": sacrebleu.BLEU(),
        "bleu_lowercase": sacrebleu.BLEU(lowercase=True),
        "chrf": sacrebleu.CHRF(),
    }
    scores: dict[str, float | str | int] = {}
    for name, metric in counted.items():
        scores[name] = float(metric.corpus_score(list(hypotheses), [list(references)]).score)
        scores[f"{name}_signature"] = str(metric.get_signature())
    return {**scores, "sentences": len(references)}


def corpus_bleu(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], **options: Any
) -> dict[str, Any]:
    """sacreBLEU with any number of references, and what it is made of: the form of evaluate's module `sacrebleu`.

    Args:
        hypotheses: one translation per sentence.
        references: of each sentence its references, equally many of all.
        options: of `sacrebleu.BLEU`.

    Returns:
        score and precisions (percentages), counts and totals of the n-grams, bp, sys_len, ref_len.

    Raises:
        ValueError: as in `translation_scores`, or unequal numbers of references; ModuleNotFoundError: no sacrebleu.
    """
    _check(hypotheses, references)
    numbers = {len(texts) for texts in references}
    if len(numbers) != 1 or 0 in numbers:
        raise ValueError(
            f"BLEU needs equally many references for each sentence, at least one; here there are {sorted(numbers)}."
        )
    sacrebleu = _import("sacrebleu")
    streams = [list(stream) for stream in zip(*references, strict=True)]
    found = sacrebleu.BLEU(**options).corpus_score(list(hypotheses), streams)
    names = ("score", "counts", "totals", "precisions", "bp", "sys_len", "ref_len")
    return {name: getattr(found, name) for name in names}


def tokenized_bleu(
    hypotheses: Sequence[str], references: Sequence[str], language: str = "en"
) -> dict[str, float | str]:
    """BLEU as papers on Multi30k count it: both sides lower-cased, punctuation normalised and tokenised by Moses.

    This is the order of the data set's own `lc.norm.tok` files; what comes out is counted as `multi-bleu.perl` counts
    it: BLEU-4 without smoothing, which is 0 where n-grams of one order have no match at all.

    Args:
        hypotheses, references: as in `translation_scores`, untokenised.
        language: of both, for Moses' list of abbreviations ("de", "fr", ...).

    Returns:
        tokenized_bleu (a percentage) and tokenized_bleu_signature.

    Raises:
        ValueError: as in `translation_scores`; ModuleNotFoundError: no sacrebleu or no sacremoses.
    """
    _check(hypotheses, references)
    sacrebleu = _import("sacrebleu")
    prepared = [moses_tokenized(texts, language) for texts in (hypotheses, references)]
    # Forced: it would warn that the text is tokenised.
    metric = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True)
    score = float(metric.corpus_score(prepared[0], [prepared[1]]).score)
    version = importlib.metadata.version("sacremoses")
    how = f"case:lc|tok:moses-{language}(sacremoses {version}: lower-cased, normalised, tokenised)"
    signature = str(metric.get_signature()).replace("case:mixed", how).replace("|tok:none", "")
    return {"tokenized_bleu": score, "tokenized_bleu_signature": signature}


def all_translation_scores(
    hypotheses: Sequence[str], references: Sequence[str], language: str
) -> dict[str, float | str | int]:
    """`translation_scores`, and `tokenized_bleu` where sacremoses is installed: what stands on a card."""
    scores = translation_scores(hypotheses, references)
    return scores | (tokenized_bleu(hypotheses, references, language) if has_moses() else {})


def moses_tokenized(texts: Sequence[str], language: str) -> list[str]:
    """The texts lower-cased, their punctuation normalised, and Moses' tokens separated by spaces."""
    sacremoses = _import("sacremoses")
    normalizer = sacremoses.MosesPunctNormalizer(lang=language)
    tokenizer = sacremoses.MosesTokenizer(lang=language)
    return [
        tokenizer.tokenize(normalizer.normalize(text.lower()), return_str=True, escape=False)
        for text in texts
    ]


def has_moses() -> bool:
    """Whether `tokenized_bleu` can be counted here."""
    return importlib.util.find_spec("sacremoses") is not None


def require_sacrebleu() -> None:
    """Raises ModuleNotFoundError, with the remedy, before hours of training rather than after them."""
    _import("sacrebleu")


def paired_bootstrap(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    samples: int = 1000,
    seed: int = SEED,
    *,
    lowercase: bool = False,
) -> dict[str, dict[str, float]]:
    """Whether BLEU differs by more than the choice of test sentences explains (Koehn 2004).

    Args:
        systems: translations of the same sentences, by the system's name; the first is the baseline.
        references: as in `translation_scores`.
        samples: sets of sentences drawn with replacement.
        seed: of these draws.
        lowercase: whether capitals are the same words.

    Returns:
        {name: {bleu, mean, margin}}: BLEU on all sentences, its mean over the samples and half the width of the 95%
        interval; for all but the baseline p_value too: how likely so large a difference is if there is none.

    Raises:
        ValueError: fewer than two systems, or as in `translation_scores`; ModuleNotFoundError: no sacrebleu.
    """
    if len(systems) < 2:
        raise ValueError(
            f"A comparison needs at least two systems, not {len(systems)}: {', '.join(systems)}."
        )
    for name, hypotheses in systems.items():
        _check(hypotheses, references, f" of {name}")
    sacrebleu = _import("sacrebleu")
    from sacrebleu.significance import PairedTest

    # The library reads its seed from the environment alone.
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        test = PairedTest(
            [(name, list(texts)) for name, texts in systems.items()],
            {"BLEU": sacrebleu.BLEU(lowercase=lowercase, references=[list(references)])},
            references=None,
            test_type="bs",
            n_samples=samples,
        )
        results: Mapping[str, Any] = test()[1]
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before
    compared = {}
    for name, result in zip(systems, results["BLEU"], strict=True):
        compared[name] = {"bleu": float(result.score), "mean": float(result.mean), "margin": float(result.ci)}
        if result.p_value is not None:
            # Of equal outputs the library reports the smallest p there is: no difference exceeds one of 0.
            same = list(systems[name]) == list(next(iter(systems.values())))
            compared[name]["p_value"] = 1.0 if same else float(result.p_value)
    return compared


def _check(hypotheses: Sequence[str], references: Sequence[object], of: str = "") -> None:
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ValueError("Hypotheses and references are lists of sentences, not one text.")
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses{of}, but {len(references)} references: give one of each per sentence, an "
            "empty text where there is no translation."
        )
    if not references:
        raise ValueError("No sentences: nothing to score.")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"BLEU of translations needs {name}: pip install 'hfseq[metrics]' (or {name})"
        ) from error


__all__ = [
    "all_translation_scores",
    "corpus_bleu",
    "has_moses",
    "moses_tokenized",
    "paired_bootstrap",
    "require_sacrebleu",
    "tokenized_bleu",
    "translation_scores",
]
