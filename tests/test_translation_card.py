"""The card of a translation model, and its curve."""

import pytest
import yaml

from hfseq import cards
from hfseq.objectives.translation import Translation


def score(bleu: float) -> dict:
    return {
        "nll": 10.0,
        "tokens": 1234,
        "loss": 1.5,
        "perplexity": 4.48,
        "bleu": bleu,
        "bleu_signature": "nrefs:1|case:mixed|tok:13a",
        "bleu_lowercase": bleu + 10,
        "bleu_lowercase_signature": "nrefs:1|case:lc|tok:13a",
        "chrf": 60.5,
        "chrf_signature": "nc:6",
        "sentences": 1000,
    }


def write_card(directory, facts):
    return cards.write_model_card(directory, facts, Translation.card)


def make_facts(**changes) -> dict:
    facts = {
        "recipe": "transformer-multi30k-en-de",
        "task": "translation",
        "recipe_content": {"data": {"corpus": "multi30k"}, "model": {"model_type": "hfseq_transformer"}},
        "command": "python scripts/pretrain.py scripts/recipes/transformer-multi30k-en-de.yaml",
        "model_class": "TransformerForSeq2SeqLM",
        "parameters": 1000,
        "language": ["en", "de"],
        "train_pairs": 29000,
        "scores": {"validation": score(30.25), "test": score(31.5)},
        "averaging": {
            "checkpoints": [900, 1000],
            "score": "bleu_lowercase",
            "validation": {"last": score(30.25), "average": score(29.75)},
            "kept": "last",
        },
        "prompt": "Two men walk.",
        "translation": "Zwei Männer gehen.",
    }
    return facts | changes


def test_the_card_has_every_score_with_its_signature(tmp_path):
    text = write_card(tmp_path, make_facts()).read_text()
    for line in (
        "| test | **transformer-multi30k-en-de** | - | 31.50 | 41.50 | 60.50 | 4.48 |",
        "| test | 1,000 | 1,234 |",
        r"| sacreBLEU, lower-cased | `nrefs:1\|case:lc\|tok:13a` |",
        "| the last (kept) | 1.5000 | - | 30.25 |",
        "| mean of the last 2 checkpoints | 1.5000 | - | 29.75 |",
        "checkpoints after 900, 1,000 updates",
        "> **Zwei Männer gehen.**",
        "| train pairs | 29,000 |",
        "AutoModelForSeq2SeqLM",
        'tokenizer(["Two men walk."]',
        "They are for research",
    ):
        assert line in text, line


def test_the_front_matter_lists_what_was_measured(tmp_path):
    text = write_card(tmp_path, make_facts()).read_text()
    data = yaml.safe_load(text.split("---\n")[1])
    assert data["pipeline_tag"] == "translation" and data["language"] == ["en", "de"]
    assert data["license"] == "other" and "machine-translation" in data["tags"]
    measured = {m["type"]: m["value"] for m in data["model-index"][0]["results"][1]["metrics"]}
    # Tokenised BLEU was not counted (no sacremoses there), so it is not claimed.
    assert measured == {"bleu": 31.5, "bleu_lowercase": 41.5, "chrf": 60.5, "perplexity": 4.48}


def test_without_averaging_nothing_is_said_of_it(tmp_path):
    assert "Averaged weights" not in write_card(tmp_path, make_facts(averaging=None)).read_text()


@pytest.mark.parametrize(
    ("own", "p_value", "words"),
    [
        (38.0, 0.001, "**It loses to transformer**: 38.00 ± 0.90 against 40.00 ± 1.00 lower-cased BLEU"),
        (41.0, 0.01, "**It beats transformer**: 41.00"),
        (
            40.2,
            0.3,
            "p = 0.300 by a paired bootstrap (Koehn 2004), a difference that the choice of sentences may",
        ),
    ],
)
def test_the_card_begins_with_who_won(tmp_path, own, p_value, words):
    systems = {"transformer": {"bleu": 40.0, "margin": 1.0}}
    systems["pervasive"] = {"bleu": own, "margin": 0.9, "p_value": p_value}
    compared = {"systems": systems, "sentences": 1000, "lowercase": True}
    card = write_card(tmp_path, make_facts(compared=compared)).read_text()
    first = card.split("# transformer-multi30k-en-de\n\n")[1].split("\n")[0]
    assert words in first and ("may explain" in first) == (p_value > 0.05)


def test_the_card_tells_what_each_of_the_compared_has_cost(tmp_path):
    systems = {
        "transformer": {"bleu": 40.0, "margin": 1.0, "parameters": 2_600_000, "tokens_read": 15_700_000},
        "pervasive": {"bleu": 36.0, "margin": 1.0, "p_value": 0.001, "parameters": 2_130_000, "tokens_read": 5_240_000},
    }  # fmt: skip
    compared = {"systems": systems, "sentences": 1000, "lowercase": True}
    card = write_card(tmp_path, make_facts(compared=compared)).read_text()
    assert (
        "2.13M parameters and 5.2M target tokens of training, against 2.60M parameters and 15.7M target tokens."
        in card
    )


def test_a_recipe_may_have_a_note_for_readers(tmp_path):
    facts = make_facts()
    facts["recipe_content"] = {**facts["recipe_content"], "training": {"note": "A small form."}}
    assert "A small form.\n" in write_card(tmp_path, facts).read_text()


def test_a_score_that_is_no_number_is_refused(tmp_path):
    facts = make_facts()
    facts["averaging"]["validation"]["average"]["loss"] = float("nan")
    with pytest.raises(ValueError, match=r"averaging\.validation\.average\.loss = nan"):
        write_card(tmp_path, facts)
