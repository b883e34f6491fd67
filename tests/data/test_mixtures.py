"""Corpora of several sources: what is cleaned away, how lines become documents, and how many words there are."""

from __future__ import annotations

import importlib.metadata

import pytest

from hfseq.data import Corpus, load_corpus
from hfseq.data.mixtures import MIXTURES, cleaned, joined_lines
from hfseq.data.packages import PACKAGES


@pytest.fixture(scope="module")
def small_english() -> Corpus:
    for part in MIXTURES["small-english"].parts:
        name = PACKAGES[part].distribution
        if not any(found.name == name for found in importlib.metadata.distributions()):
            pytest.skip(f"{name} is not installed (extra demo)")
    return load_corpus("small-english")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a<br /><br />b  c", "a\nb c"),
        ("<em>I</em> think <STRONG>so</STRONG>&amp;so &lt;3", "I think so&so <3"),
        ("our <insert word here> is < 3 & > 2", "our <insert word here> is < 3 & > 2"),
        ("see https://a.b/c?d and www.x.org now", "see and now"),
        ("a\u00a0b\u200b\x07\r\nc\t\td \n\n \n", "a b\nc d"),
        (" ", ""),
    ],
)
def test_cleaning(text, clean):
    assert cleaned(text) == clean
    assert cleaned(clean) == clean


def test_lines_become_documents():
    words = "w " * 60
    lines = ["title", None, words, words, "", "next", "", "", words + "\n", *["x"] * 2000]
    found = list(joined_lines(lines))
    assert found[0] == f"title\n\n{words}\n{words}"
    assert found[1].startswith(f"next\n\n{words}\nx\nx")
    assert [len(text.split()) for text in found] == [121, 1000, 1000, 61]
    assert " ".join(found).split() == " ".join(line or "" for line in lines).split()
    assert list(joined_lines(["", None, " "])) == []


def test_small_english_has_three_parts_and_at_most_ten_million_words(small_english):
    parts = small_english.composition()
    assert parts == {  # the card's numbers
        "imdb": {"documents": 24_902, "words": 5_768_449},
        "wiki": {"documents": 10_033, "words": 793_475},
        "chitchat": {"documents": 6_232, "words": 2_476_710},
    }
    assert sum(part["words"] for part in parts.values()) <= 10_000_000


def test_small_english_is_clean_and_without_repetitions(small_english):
    seen: set[str] = set()
    for number, (_, document) in enumerate(small_english):
        if number % 10 == 0:
            assert document == cleaned(document)
        words = " ".join(document.split())
        assert words not in seen
        seen.add(words)


def test_babylm_is_read_from_the_hub_and_its_lines_joined(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="Hub data sets need datasets")
    asked = []
    builder = type("Builder", (), {"hash": "1a2b"})
    lines = [f"line {i} says so" for i in range(4000)]
    lines[500] = ""

    def load(name, configuration=None, streaming=False):
        asked.append((name, configuration, streaming))
        data = datasets.Dataset.from_dict({"text": lines})
        return {"train": data.to_iterable_dataset() if streaming else data}

    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *names: builder)
    monkeypatch.setattr(datasets, "load_dataset", load)
    for streaming in (False, True):
        corpus = load_corpus("babylm", streaming=streaming, validation_share=0.2, test_share=0.2)
        assert asked[-1] == ("BabyLM-community/BabyLM-2026-Strict-Small", None, streaming)
        documents = [document for _, document in corpus]
        assert sorted("\n".join(documents).split("\n")) == sorted(line for line in lines if line)
        assert max(len(document.split()) for document in documents) == 1000
        assert corpus.name == "babylm" and set(corpus.composition()) == {"babylm"}
    load_corpus("babylm-strict")
    assert asked[-1][0] == "BabyLM-community/BabyLM-2026-Strict"
    with pytest.raises(ValueError, match="Unknown corpus 'babylmm'. Did you mean 'babylm'"):
        load_corpus("babylmm")
