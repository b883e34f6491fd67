"""Exact match and F1 of SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018).

Answers are compared in lower case, without punctuation, articles and superfluous white space; F1 is that of the words
(as a multiset) and each question counts its best reference. Where a text has no answer, only "" is right.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case; ASCII punctuation, then the articles a, an, the, then superfluous white space removed."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_scores(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 as percentages, over all questions and apart for those with and without an answer.

    Args:
        references: accepted answers of each question; none where the text has no answer.
        predictions: one answer per question; "" says that there is none.

    Returns:
        exact_match, f1, questions; where some questions have no answer also exact_match_answerable, f1_answerable,
        exact_match_unanswerable.
    """
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} questions have references, {len(predictions)} predictions.")
    if not references:
        raise ValueError("No questions: nothing to score.")
    exact, overlap, answerable = [], [], []
    for answers, claimed in zip(references, predictions, strict=True):
        # An answer such as "the" has no words left, and is then no answer.
        accepted = [answer for answer in answers if normalize_answer(answer)] or [""]
        exact.append(max(float(normalize_answer(answer) == normalize_answer(claimed)) for answer in accepted))
        overlap.append(max(_word_f1(answer, claimed) for answer in accepted))
        answerable.append(accepted != [""])
    scores = {"exact_match": _percent(exact), "f1": _percent(overlap), "questions": len(exact)}
    if not all(answerable):
        with_answer = [i for i, has in enumerate(answerable) if has]
        without = [i for i, has in enumerate(answerable) if not has]
        if with_answer:
            scores["exact_match_answerable"] = _percent([exact[i] for i in with_answer])
            scores["f1_answerable"] = _percent([overlap[i] for i in with_answer])
        scores["exact_match_unanswerable"] = _percent([exact[i] for i in without])
    return scores


def _word_f1(reference: str, claimed: str) -> float:
    true, said = normalize_answer(reference).split(), normalize_answer(claimed).split()
    if not true or not said:
        return float(true == said)
    common = sum((Counter(true) & Counter(said)).values())
    return 2 * common / (len(true) + len(said))


def _percent(values: list[float]) -> float:
    return 100 * sum(values) / len(values)


__all__ = ["answer_scores", "normalize_answer"]
