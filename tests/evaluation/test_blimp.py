"""Accuracies, ties and groups by hand; what BLiMP holds; its files' mistakes; equality with lm-evaluation-harness."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hfseq.evaluation.blimp import MinimalPair, judge, published_accuracies, read_minimal_pairs
from hfseq.evaluation.likelihoods import CausalLikelihood


class Known:
    """Stands in for a model: the scores are given."""

    def __init__(self, scores: dict[str, float]):
        self.scores = scores

    def encode(self, texts, places):
        return texts

    def sentence_scores(self, sentences):
        return np.array([self.scores[sentence] for sentence in sentences])


def pairs_of(*rows) -> list[MinimalPair]:
    return [MinimalPair(*row, place=f"row {i}") for i, row in enumerate(rows)]


def test_accuracies_ties_and_groups():
    pairs = pairs_of(
        ("p1", "syntax", "islands", "a", "b"),  # right
        ("p1", "syntax", "islands", "a", "c"),  # wrong
        ("p1", "syntax", "islands", "a", "tied"),
        ("p1", "syntax", "islands", "a", "nearly tied"),
        ("p2", "syntax", "islands", "a", "b"),  # right, and the only one of its paradigm
        ("p3", "morphology", "agreement", "c", "b"),  # right
        ("p3", "morphology", "agreement", "a", "a"),  # twice the same
    )
    scores = {"a": -5.0, "b": -6.0, "c": -4.0, "tied": -5.0, "nearly tied": -5.0 - 1e-6}
    result = judge(Known(scores), pairs).as_dict()
    assert {name: one["accuracy"] for name, one in result["by_paradigm"].items()} == {
        "p1": 25.0, "p2": 100.0, "p3": 50.0,
    }  # fmt: skip
    assert result["by_phenomenon"] == {"islands": 62.5, "agreement": 50.0}
    assert result["by_field"] == {"syntax": 62.5, "morphology": 50.0}
    assert result["accuracy"] == pytest.approx((25 + 100 + 50) / 3)
    assert result["accuracy_with_ties_right"] == pytest.approx((75 + 100 + 100) / 3)
    assert (result["pairs"], result["ties"], result["equal_pairs"]) == (7, 3, 1)
    assert result["by_paradigm"]["p1"] == {"accuracy": 25.0, "pairs": 4, "ties": 2}


def test_a_space_before_each_sentence_where_it_is_asked_for():
    pairs = pairs_of(("p", "f", "ph", "a", "b"))
    assert judge(Known({"a": -1, "b": -2}), pairs).accuracy == 100
    assert judge(Known({" a": -2, " b": -1}), pairs, leading_space=True).accuracy == 0


def test_a_model_that_finds_all_sentences_equal_gets_nothing():
    pairs = pairs_of(("p", "f", "ph", "a", "b"), ("p", "f", "ph", "c", "d"))
    result = judge(Known(dict.fromkeys("abcd", -3.0)), pairs).as_dict()
    assert (result["accuracy"], result["accuracy_with_ties_right"], result["ties"]) == (0, 100, 2)


@pytest.fixture
def packed(shared_data, monkeypatch) -> Path:
    path = shared_data / "blimp" / "blimp.tsv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    monkeypatch.setenv("HFSEQ_DATA", str(shared_data))
    return path


def test_all_of_blimp(packed):
    pairs = read_minimal_pairs()
    assert len(pairs) == 67_000
    assert set(Counter(pair.paradigm for pair in pairs).values()) == {1000}
    phenomena = {pair.paradigm: pair.phenomenon for pair in pairs}
    assert Counter(phenomena.values()) == {
        "anaphor_agreement": 2, "argument_structure": 9, "binding": 7, "control_raising": 5,
        "determiner_noun_agreement": 8, "ellipsis": 2, "filler_gap_dependency": 7, "irregular_forms": 2,
        "island_effects": 8, "npi_licensing": 7, "quantifiers": 4, "subject_verb_agreement": 6,
    }  # fmt: skip
    assert {pair.field for pair in pairs} == {"syntax", "morphology", "semantics", "syntax_semantics"}
    equal = Counter(pair.paradigm for pair in pairs if pair.good == pair.bad)
    assert equal == {"passive_1": 2, "principle_A_case_2": 5}


def test_a_limit_takes_the_first_of_each_paradigm(packed):
    with gzip.open(packed, "rt", encoding="utf-8") as file:
        first = file.readlines()[1].rstrip("\n").split("\t")
    pairs = read_minimal_pairs(limit=2)
    assert len(pairs) == 134 and [pairs[0].paradigm, pairs[0].good, pairs[0].bad] == [first[0], *first[3:]]


def test_published_accuracies_are_those_of_the_paper(packed):
    paradigms = {pair.paradigm for pair in read_minimal_pairs(limit=1)}
    means = {
        system: round(sum(values.values()) / 67, 1)
        for system, values in published_accuracies(paradigms).items()
    }
    assert means == {
        "5-gram": 61.2, "LSTM (Gulordova et al.)": 69.8, "Transformer-XL": 69.6, "GPT-2 large": 83.0,
    }  # fmt: skip
    assert published_accuracies(paradigms - {"causative"}) == {}


HEADING = "paradigm\tfield\tphenomenon\tgood\tbad\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "paradigm\tfield\tgood\tbad\np\tf\ta\tb\n",
            r"phenomenon.*Minimal pairs have the columns paradigm, field",
        ),
        (HEADING + "p\tf\tph\ta\t \n", "line 2: column 'bad' must be text"),
        (HEADING + "p\tf\tph\ta\tb\np\tf\tph\tc\tc\n", "line 3: good and bad are the same sentence, 'c'"),
        (
            HEADING + "p\tf\tph\ta\tb\np\tg\tph\tc\td\n",
            "line 3: paradigm 'p' is of g / ph here, of f / ph above",
        ),
        (HEADING + "p\tf\tph\ta\n", "4 cells, but the heading has 5"),
        (HEADING, "holds no pairs"),
    ],
)
def test_mistakes_in_a_file(tmp_path, content, message):
    file = tmp_path / "pairs.tsv"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_minimal_pairs(file)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="No file"):
        read_minimal_pairs(tmp_path / "pairs.tsv")


def test_pairs_of_the_hub(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("HFSEQ_DATA", raising=False)
    row = {
        "UID": "x",
        "linguistics_term": "t",
        "field": "syntax/semantics",
        "sentence_good": "a",
        "sentence_bad": "b",
    }
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["x", "y"])
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, configuration, split: [row | {"UID": configuration, "one_prefix_method": True}],
    )
    assert read_minimal_pairs() == [
        MinimalPair(name, "syntax_semantics", "t", "a", "b", f"nyu-mll/blimp:{name}, row 1") for name in "xy"
    ]


def test_without_data_and_network_both_remedies_are_told(monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.delenv("HFSEQ_DATA", raising=False)
    with pytest.raises(OSError, match="Set HFSEQ_DATA to the folder that holds blimp/, or connect"):
        read_minimal_pairs()


@pytest.mark.parametrize("name", ["lstm bpe", "gpt2"])
def test_equal_to_lm_evaluation_harness(name, models, packed, tmp_path):
    """500 pairs of ten paradigms, by its own task on the same model: each sentence's score, and the accuracy."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lm-eval")
    import yaml
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    pairs = [pair for i, pair in enumerate(read_minimal_pairs(limit=50)) if i < 500]
    rows = [{"sentence_good": pair.good, "sentence_bad": pair.bad} for pair in pairs]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    template = Path(lm_eval.__file__).parent / "tasks" / "blimp" / "_template_yaml"
    config = yaml.safe_load(template.read_text()) | {
        "task": "pairs", "dataset_path": "json", "dataset_kwargs": {"data_files": str(tmp_path / "pairs.jsonl")},
    }  # fmt: skip
    model, tokenizer = models[name]
    theirs = lm_eval.simple_evaluate(
        HFLM(model, tokenizer=tokenizer, batch_size=64, device="cpu"),
        tasks=[ConfigurableTask(config=config)],
        bootstrap_iters=0,
    )
    samples = sorted(theirs["samples"]["pairs"], key=lambda sample: sample["doc_id"])
    scores = [[response[0][0] for response in sample["resps"]] for sample in samples]
    result = judge(CausalLikelihood(model, tokenizer), pairs, leading_space=True)
    np.testing.assert_allclose(np.stack([result.good, result.bad], 1), scores, rtol=1e-6)
    assert 100 * theirs["results"]["pairs"]["acc,none"] == pytest.approx(
        100 * np.mean(result.right | result.ties)
    )
