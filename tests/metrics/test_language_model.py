"""Units of a loss: against hand-computed values, and every refusal."""

from __future__ import annotations

import ast
import math

import pytest

from hfseq.metrics import bits_per_byte, perplexity_per_token, perplexity_per_word


def test_a_uniform_guess_has_the_size_of_the_vocabulary_as_perplexity():
    tokens, vocabulary = 100, 64
    nll = tokens * math.log(vocabulary)
    assert perplexity_per_token(nll, tokens) == pytest.approx(64)
    # 6 bits a token, two bytes and half a word to a token.
    assert bits_per_byte(nll, 200) == pytest.approx(3)
    assert perplexity_per_word(nll, 50) == pytest.approx(64**2)


def test_units_agree_with_each_other():
    nll, words, size = 1234.5, 300, 1600
    assert bits_per_byte(nll, size) * size == pytest.approx(
        words * math.log2(perplexity_per_word(nll, words))
    )


def test_a_perfect_model_and_a_hopeless_one():
    assert (perplexity_per_token(0.0, 5), bits_per_byte(0.0, 5)) == (1, 0)
    assert perplexity_per_word(1e6, 10) == math.inf
    assert perplexity_per_token(math.inf, 10) == math.inf


@pytest.mark.parametrize("measure", [perplexity_per_token, perplexity_per_word, bits_per_byte])
@pytest.mark.parametrize("nll", [-0.1, math.nan, -math.inf])
def test_an_impossible_loss_is_refused(measure, nll):
    with pytest.raises(ValueError, match="never negative or NaN"):
        measure(nll, 10)


@pytest.mark.parametrize("count", [0, -3, math.nan])
def test_an_empty_text_is_refused(count):
    for measure, unit in (
        (perplexity_per_token, "tokens"),
        (perplexity_per_word, "words"),
        (bits_per_byte, "bytes"),
    ):
        with pytest.raises(ValueError, match=f"{unit} = {count}"):
            measure(1.0, count)


def test_metrics_import_nothing_heavy_and_nothing_of_training(repository):
    for path in (repository / "hfseq" / "metrics").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {part for name in names for part in name.split(".")}
            assert not roots & {
                "training",
                "datasets",
                "evaluate",
                "torch",
                "transformers",
                "phonetisaurus",
            }, path
