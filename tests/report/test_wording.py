"""Sentences say what the numbers show: with overlapping intervals, that they show nothing."""

import pytest

from hfseq.report.statistics import Interval
from hfseq.report.wording import change, listed, number, ranked, told


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1234.5, "1,230"), (0.5, "0.500"), (12.34, "12.3"), (123.4, "123"), (1e-7, "1.00e-7"),
        (3.2e9, "3.20e+9"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_a_mean_is_told_with_its_margin_to_the_same_place():
    assert told(Interval(0.9312, 0.0203, 3)) == "0.931 ± 0.020"
    assert told(Interval(2345.0, 12.0, 3)) == "2,340 ± 12"
    assert told(Interval(0.9312, None, 1)) == "0.931"


def test_lists():
    assert (
        listed(["a"]) == "a" and listed(["a", "b"]) == "a and b" and listed(["a", "b", "c"]) == "a, b and c"
    )


def test_the_best_is_named_only_where_the_run_shows_it():
    apart = {"LSTM": Interval(0.9, 0.01, 3), "RNN": Interval(0.5, 0.02, 3)}
    sentences = ranked(apart, higher_is_better=True, what="accuracy")
    assert sentences[0] == "Accuracy: LSTM 0.900 ± 0.010 and RNN 0.500 ± 0.020."
    assert sentences[1] == "LSTM is best: its interval overlaps no other's."
    assert ranked(apart, higher_is_better=False, what="loss")[1].startswith("RNN is best")


def test_overlapping_intervals_show_no_difference():
    values = {"A": Interval(0.9, 0.1, 3), "B": Interval(0.8, 0.1, 3), "C": Interval(0.1, 0.1, 3)}
    sentence = ranked(values, higher_is_better=True, what="accuracy")[1]
    assert "A and B overlap" in sentence and "no difference" in sentence and "one from C" in sentence
    assert "is best" not in sentence


def test_one_run_shows_nothing():
    values = {"A": Interval(0.9, None, 1), "B": Interval(0.1, None, 1)}
    assert "no telling what is chance" in ranked(values, higher_is_better=True, what="accuracy")[1]
    assert ranked({}, higher_is_better=True, what="accuracy") == []


def test_a_change():
    before, after = Interval(0.5, 0.01, 3), Interval(0.7, 0.01, 3)
    assert change("Encoder", before, after, "accuracy", "by it") == (
        "Encoder: accuracy rises from 0.500 ± 0.010 to 0.700 ± 0.010 by it."
    )
    assert "falls" in change("Encoder", after, before, "accuracy", "by it")
    assert "shows no difference" in change("Encoder", before, Interval(0.51, 0.01, 3), "accuracy", "by it")
