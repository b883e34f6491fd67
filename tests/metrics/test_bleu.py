"""BLEU and chrF, their signatures, and the paired bootstrap."""

from __future__ import annotations

import importlib.util
import math
import os
import sys

import pytest

from hfseq.metrics import (
    has_moses,
    moses_tokenized,
    paired_bootstrap,
    require_sacrebleu,
    tokenized_bleu,
    translation_scores,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sacrebleu") is None, reason="sacrebleu is not installed: pip install sacrebleu"
)
needs_moses = pytest.mark.skipif(
    not has_moses(), reason="sacremoses is not installed: pip install sacremoses"
)

REFERENCES = [
    "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "Ein Boston Terrier läuft über saftig-grünes Gras vor einem weißen Zaun.",
    "Fünf Leute in Winterjacken und mit Helmen stehen im Schnee.",
]


def test_what_is_right_is_100_and_says_how_it_was_counted():
    scores = translation_scores(REFERENCES, REFERENCES)
    assert scores["bleu"] == pytest.approx(100) and scores["chrf"] == pytest.approx(100)
    assert scores["sentences"] == 3
    assert "case:mixed" in scores["bleu_signature"] and "tok:13a" in scores["bleu_signature"]
    assert "case:lc" in scores["bleu_lowercase_signature"]
    assert "nc:6" in scores["chrf_signature"]


def test_bleu_is_sacrebleus():
    import sacrebleu

    hypotheses = ["Ein Mann mit einem Hut, der etwas anstarrt.", *REFERENCES[1:]]
    scores = translation_scores(hypotheses, REFERENCES)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [REFERENCES]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [REFERENCES]).score)
    assert 50 < scores["bleu"] < 100


def test_capitals_count_in_bleu_and_not_in_the_lower_cased_one():
    scores = translation_scores([text.lower() for text in REFERENCES], REFERENCES)
    assert scores["bleu"] < 60
    assert scores["bleu_lowercase"] == pytest.approx(100)


@needs_moses
def test_moses_tokenizes_lower_cases_and_normalises():
    assert moses_tokenized(["„Halt!“, rief z.B. der Mann-im-Hut."], "de") == [
        '" halt ! " , rief z.b. der mann-im-hut .'
    ]
    assert moses_tokenized(["L'homme d'affaires"], "fr") == ["l' homme d' affaires"]


@needs_moses
def test_tokenized_bleu_is_that_of_the_tokens():
    import sacrebleu

    hypotheses = ["EIN mann mit einem Hut, der etwas anstarrt .", *REFERENCES[1:]]
    scores = tokenized_bleu(hypotheses, REFERENCES, "de")
    expected = sacrebleu.corpus_bleu(
        moses_tokenized(hypotheses, "de"),
        [moses_tokenized(REFERENCES, "de")],
        tokenize="none",
        force=True,
        smooth_method="none",
    )
    assert scores["tokenized_bleu"] == pytest.approx(expected.score)
    signature = scores["tokenized_bleu_signature"]
    assert "case:lc" in signature and "tok:moses-de(sacremoses " in signature
    assert "tok:none" not in signature and "case:mixed" not in signature and "smooth:none" in signature


def multi_bleu(hypotheses: list[str], references: list[str]) -> float:
    """What Moses' multi-bleu.perl prints of tokenised lines, before it rounds: counts of one to four tokens, clipped by
    the reference's, no smoothing, the brevity penalty of the whole text."""
    matched, total, made, wanted = [0] * 4, [0] * 4, 0, 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        words, truth = hypothesis.split(" "), reference.split(" ")
        words, truth = ([w for w in side if w] for side in (words, truth))
        made, wanted = made + len(words), wanted + len(truth)
        for n in range(1, 5):
            there: dict[tuple[str, ...], int] = {}
            for i in range(len(truth) - n + 1):
                gram = tuple(truth[i : i + n])
                there[gram] = there.get(gram, 0) + 1
            for i in range(len(words) - n + 1):
                gram = tuple(words[i : i + n])
                total[n - 1] += 1
                if there.get(gram, 0) > 0:
                    there[gram] -= 1
                    matched[n - 1] += 1
    if not all(matched):
        return 0.0
    mean = sum(math.log(m / t) for m, t in zip(matched, total, strict=True)) / 4
    return 100 * math.exp(mean + min(0.0, 1 - wanted / made))


@needs_moses
@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        (["Ein Mann mit einem Hut, der etwas anstarrt.", *REFERENCES[1:]], REFERENCES),
        (["Ein Mann mit Hut", "", "Fünf Leute stehen im Schnee"], REFERENCES),
        ([f"{text} {text}" for text in REFERENCES], REFERENCES),
        # No four tokens in a row, none at all, no translation as long as four tokens.
        (["ein hund läuft im gras"], ["ein hund läuft auf gras"]),
        (["kein wort davon hier"], ["ein hund läuft auf gras"]),
        (["ein hund"], ["ein hund"]),
        (["", ""], ["ein hund", "zwei hunde"]),
    ],
    ids=["some", "short", "long", "no match of order four", "no match", "too short", "empty"],
)
def test_tokenized_bleu_is_that_of_multi_bleu(hypotheses, references):
    expected = multi_bleu(*(moses_tokenized(side, "de") for side in (hypotheses, references)))
    assert tokenized_bleu(hypotheses, references, "de")["tokenized_bleu"] == pytest.approx(expected)


def test_the_bootstrap_tells_a_difference_from_none():
    references = REFERENCES * 20
    worse = [text.replace("ein", "x").replace("im", "y") for text in references]
    one_off = [references[0][:-1], *references[1:]]
    found = paired_bootstrap(
        {"right": references, "worse": worse, "same": references, "one off": one_off}, references, samples=200
    )
    assert found["right"]["bleu"] == pytest.approx(100) and "p_value" not in found["right"]
    assert found["worse"]["p_value"] < 0.01
    assert found["same"]["p_value"] == 1
    assert found["one off"]["p_value"] > 0.05
    assert found["worse"]["margin"] > 0


def test_the_bootstrap_is_a_function_of_its_seed(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    references = REFERENCES * 5
    systems = {"a": references, "b": [text.replace("ein", "x") for text in references]}
    first, again, other = (paired_bootstrap(systems, references, 50, seed) for seed in (1, 1, 2))
    assert first == again
    assert first["b"]["mean"] != other["b"]["mean"]
    assert os.environ["SACREBLEU_SEED"] == "7"


@pytest.mark.parametrize(
    ("hypotheses", "references", "text"),
    [
        (["a"], ["a", "b"], "1 hypotheses, but 2 references"),
        ([], [], "No sentences"),
        ("a b", ["a b"], "not one text"),
        (["a b"], "a b", "not one text"),
    ],
)
def test_bad_input(hypotheses, references, text):
    with pytest.raises(ValueError, match=text):
        translation_scores(hypotheses, references)
    with pytest.raises(ValueError, match=text):
        tokenized_bleu(hypotheses, references)


def test_a_comparison_needs_two_systems_of_one_length():
    with pytest.raises(ValueError, match="at least two systems, not 1: a"):
        paired_bootstrap({"a": ["x"]}, ["x"])
    with pytest.raises(ValueError, match="2 hypotheses of b, but 1 references"):
        paired_bootstrap({"a": ["x"], "b": ["x", "y"]}, ["x"])


@pytest.mark.parametrize("missing", ["sacrebleu", "sacremoses"])
def test_a_missing_library_is_named_with_the_remedy(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {missing}: pip install 'hfseq\[metrics\]'"):
        require_sacrebleu() if missing == "sacrebleu" else tokenized_bleu(["a"], ["a"])


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    paired_bootstrap({"a": REFERENCES, "b": REFERENCES}, REFERENCES, 10)
    assert "SACREBLEU_SEED" not in os.environ
