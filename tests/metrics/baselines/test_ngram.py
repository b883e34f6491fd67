"""Kneser-Ney: the library against the textbook formula, the event space, the choice of the order, every refusal."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from hfseq.commands import compare
from hfseq.data import TokenArray
from hfseq.metrics import BackoffModel, Estimator, best_kneser_ney, find_estimator, kneser_ney_bits
from hfseq.metrics.baselines import ngram
from hfseq.metrics.baselines.ngram import BEGIN, END, UNKNOWN

END_ID = 0


def make_array(documents: list[list[int]], vocab_size: int, path: str = "toy") -> TokenArray:
    tokens = [END_ID] + [t for document in documents for t in [*document, END_ID]]
    return TokenArray(
        tokens=np.array(tokens, np.uint16),
        offsets=np.cumsum([1] + [len(d) + 1 for d in documents]),
        n_documents=len(documents),
        n_bytes=4 * len(tokens),
        n_words=max(1, len(tokens) // 2),
        vocab_size=vocab_size,
        end_id=END_ID,
        fingerprint="toy",
        path=Path(path),
    )


def zipf_documents(seed: int, count: int, vocab_size: int) -> list[list[int]]:
    """Text with enough n-grams that occur once to four times for closed-form discounts, and with unseen ids."""
    generator = random.Random(seed)
    documents = []
    for _ in range(count):
        document = [1]
        for _ in range(generator.randrange(3, 60)):
            document.append(min(vocab_size - 1, int(generator.paretovariate(0.7)) + document[-1] % 5))
        documents.append(document)
    return documents


VOCAB_SIZE = 150
TRAIN = zipf_documents(1, 40, VOCAB_SIZE)


class Textbook:
    """Modified interpolated Kneser-Ney (Chen and Goodman 1998), one dictionary per order, in floats of 64 bits."""

    def __init__(self, documents: list[list[int]], order: int, vocab_size: int):
        self.order, self.vocab_size = order, vocab_size
        raw = [Counter() for _ in range(order + 1)]
        for document in documents:
            words = [BEGIN, *map(str, document), END]
            for n in range(1, order + 1):
                raw[n].update(g for g in zip(*(words[i:] for i in range(n)), strict=False) if g[-1] != BEGIN)
        self.counts: list[Counter] = [Counter() for _ in range(order)] + [raw[order]]
        for n in range(1, order):
            # Below the highest order: how many different words come before. Nothing comes before a start mark.
            self.counts[n].update(g[1:] for g in raw[n + 1])
            self.counts[n].update({g: count for g, count in raw[n].items() if g[0] == BEGIN})
        self.discounts, self.total, self.reserved = [()], [{}], [{}]
        for counts in self.counts[1:]:
            n1, n2, n3, n4 = (Counter(counts.values())[k] for k in (1, 2, 3, 4))
            y = n1 / (n1 + 2 * n2)
            discounts = (0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
            total, reserved = defaultdict(int), defaultdict(float)
            for gram, count in counts.items():
                total[gram[:-1]] += count
                reserved[gram[:-1]] += discounts[min(count, 3)]
            self.discounts.append(discounts)
            self.total.append(total)
            self.reserved.append(reserved)

    def probability(self, word: str, history: tuple[str, ...]) -> float:
        history = history[max(0, len(history) - self.order + 1) :]
        n = len(history) + 1
        lower = 1 / self.vocab_size if n == 1 else self.probability(word, history[1:])
        if history not in self.total[n]:
            return lower
        count = self.counts[n][(*history, word)]
        kept = count - self.discounts[n][min(count, 3)]
        return (kept + self.reserved[n][history] * lower) / self.total[n][history]


@pytest.fixture(params=["mitlm", "kenlm"])
def estimator(request) -> Estimator:
    try:
        return find_estimator(request.param)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def any_estimator() -> Estimator:
    try:
        return find_estimator()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


def estimate(estimator: Estimator, documents: list[list[int]], order: int, folder: Path) -> BackoffModel:
    """The whole model, not only the n-grams that some text needs."""
    kept = {}

    def keep(cls, path, order, wanted=None):
        kept["model"] = read(path, order)
        return read(path, order, wanted)

    read = BackoffModel.from_arpa
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BackoffModel, "from_arpa", classmethod(keep))
        patch.setenv("TMPDIR", str(folder))
        kneser_ney_bits(make_array(documents, VOCAB_SIZE), {}, order=order, estimator=estimator)
    return kept["model"]


def histories(order: int) -> list[tuple[str, ...]]:
    """None, the start mark, some seen, some half seen, some never seen."""
    generator = random.Random(2)
    found = [(), (BEGIN,), ("149", "148"), ("7", "149"), ("149", "1"), ("3",) * 5]
    for document in generator.sample(TRAIN, 12):
        words = (BEGIN, *map(str, document))
        stop = generator.randrange(1, len(words))
        found.append(words[max(0, stop - order + 1) : stop])
    return found


EVENTS = [*(str(i) for i in range(VOCAB_SIZE) if i != END_ID), END]


@pytest.mark.parametrize("order", [2, 3, 5, 6])
def test_probabilities_are_the_textbook_s_and_sum_to_one(estimator, order, tmp_path):
    model, textbook = estimate(estimator, TRAIN, order, tmp_path), Textbook(TRAIN, order, VOCAB_SIZE)
    assert all(0 < d < k + 1 for ds in textbook.discounts[1:] for k, d in enumerate(ds) if k), (
        "a degenerate toy"
    )
    for history in histories(order):
        ours = np.array([10 ** model.log10_probability([*history, w], len(history)) for w in EVENTS])
        theirs = np.array([textbook.probability(w, history) for w in EVENTS])
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6, err_msg=f"after {history}")
        assert theirs.sum() == pytest.approx(1, abs=1e-12)
        # MITLM prints six decimals of each of up to six logarithms, over 150 events.
        assert ours.sum() == pytest.approx(1, abs=5e-6), f"after {history}"


def test_bits_are_summed_over_all_tokens_and_document_ends(estimator):
    # Ids that the training text lacks, a document that was trained on, an empty one, one of a single token.
    evaluated = [*zipf_documents(5, 6, VOCAB_SIZE), [149, 148, 1, 1, 147], TRAIN[0], [], [2]]
    textbook = Textbook(TRAIN, 4, VOCAB_SIZE)
    expected = 0.0
    for document in evaluated:
        words = (BEGIN, *map(str, document), END)
        expected -= sum(math.log2(textbook.probability(words[i], words[:i])) for i in range(1, len(words)))
    train, array = make_array(TRAIN, VOCAB_SIZE), make_array(evaluated, VOCAB_SIZE)
    bits = kneser_ney_bits(train, {"some": array, "train": train}, order=4, estimator=estimator)
    assert bits["some"] == pytest.approx(expected, rel=1e-6)
    assert bits["train"] / len(train) < bits["some"] / len(array), (
        "what was counted is easier than other text"
    )


def test_the_documents_order_does_not_matter(any_estimator):
    """Histories do not reach into the document before."""
    evaluated = zipf_documents(6, 10, VOCAB_SIZE)
    forth, back = make_array(evaluated, VOCAB_SIZE), make_array(evaluated[::-1], VOCAB_SIZE)
    train = make_array(TRAIN, VOCAB_SIZE)
    bits = kneser_ney_bits(train, {"forth": forth, "back": back}, order=3, estimator=any_estimator)
    reversed_train = make_array(TRAIN[::-1], VOCAB_SIZE)
    again = kneser_ney_bits(reversed_train, {"forth": forth}, order=3, estimator=any_estimator)
    assert bits["forth"] == pytest.approx(bits["back"], rel=1e-12)
    assert bits["forth"] == pytest.approx(again["forth"], rel=1e-6)


@pytest.mark.parametrize(
    "documents", [[[1, 2, 3]] * 5, [[], [4, 5, 4, 5, 4, 5, 4, 5]], [list(range(1, 150))]]
)
def test_corpora_without_closed_form_discounts_still_give_a_distribution(estimator, documents, tmp_path):
    model = estimate(estimator, documents, 3, tmp_path)
    for history in [(), (BEGIN,), ("1",), ("1", "2"), ("4", "5"), ("149", "149")]:
        total = sum(10 ** model.log10_probability([*history, w], len(history)) for w in EVENTS)
        # KenLM keeps one share of the uniform distribution for <unk> when the text has all ids.
        assert total == pytest.approx(1, abs=1e-2 if len(documents[0]) > 100 else 5e-6), f"after {history}"


def test_both_libraries_give_the_same_bits():
    try:
        estimators = [find_estimator("mitlm"), find_estimator("kenlm")]
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    train, array = make_array(TRAIN, VOCAB_SIZE), make_array(zipf_documents(7, 10, VOCAB_SIZE), VOCAB_SIZE)
    one, other = (kneser_ney_bits(train, {"text": array}, order=5, estimator=e)["text"] for e in estimators)
    assert one == pytest.approx(other, rel=1e-6)


def test_the_best_order_is_chosen_on_validation(any_estimator):
    # Validation asks for long histories (it repeats training text), test would choose short ones.
    arrays = {
        "train": make_array(TRAIN, VOCAB_SIZE),
        "validation": make_array(TRAIN[:10], VOCAB_SIZE),
        "test": make_array(zipf_documents(9, 10, VOCAB_SIZE), VOCAB_SIZE),
    }
    baseline = best_kneser_ney(arrays, orders=(2, 3, 4), estimator=any_estimator)
    by_order = {tried["order"]: tried for tried in baseline["orders"]}
    assert min(by_order, key=lambda n: by_order[n]["validation"]) == baseline["order"] == 4
    assert min(by_order, key=lambda n: by_order[n]["test"]) != 4, "a vacuous toy"
    assert baseline["name"] == f"interpolated Kneser-Ney, order 4 ({any_estimator.name})"
    assert baseline["library"] == any_estimator.name

    bits = kneser_ney_bits(arrays["train"], {"test": arrays["test"]}, order=4, estimator=any_estimator)[
        "test"
    ]
    score, array = baseline["test"], arrays["test"]
    assert score["bits_per_byte"] == by_order[4]["test"] == pytest.approx(bits / array.n_bytes)
    assert score["perplexity_per_token"] == pytest.approx(2 ** (bits / (len(array) - 1)))
    assert score["perplexity_per_word"] == pytest.approx(2 ** (bits / array.n_words))
    assert (score["tokens"], score["bytes"]) == (len(array) - 1, array.n_bytes)
    json.dumps(baseline, allow_nan=False)


def test_a_corpus_without_test_split_is_scored_on_validation_alone(any_estimator):
    train = make_array(TRAIN, VOCAB_SIZE)
    baseline = best_kneser_ney({"train": train, "validation": train}, orders=[2], estimator=any_estimator)
    assert "test" not in baseline and list(baseline["orders"][0]) == ["order", "validation", "seconds"]


def test_an_arpa_file_is_read_as_its_definition_says(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text(
        "\\data\\\nngram 1=4\nngram 2=1\nngram 3=1\n\n"
        "\\1-grams:\n-1.0\t<unk>\n-99\t<s>\t-0.1\n-0.5\ta\t-0.2\n-0.7\tb\n\n"
        "\\2-grams:\n-0.3\ta b\t-0.05\n\n\\3-grams:\n-0.125\t<s> a b\n\n\\end\\\n"
    )
    model = BackoffModel.from_arpa(path, 3)
    for words, expected in [
        (["a"], -0.5),
        (["a", "b"], -0.3),
        (["<s>", "a", "b"], -0.125),
        (["b", "a", "b"], -0.3),  # "b a" was never seen: no weight
        (["<s>", "a"], -0.1 - 0.5),
        (["a", "b", "a"], -0.05 + -0.5),  # the weight of "a b"; "b" has none
        (["a", "a"], -0.2 - 0.5),
        (["b", "a", "b", "z"], -0.05 - 1.0),
        (["z", "z", "z", "a", "b"], -0.3),
    ]:
        assert model.log10_probability(words, len(words) - 1) == pytest.approx(expected), words
    assert model.bits([["<s>", "a", "b"]]) == pytest.approx((0.6 + 0.125) / math.log10(2))
    assert set(BackoffModel.from_arpa(path, 3, wanted={"a b", "z", UNKNOWN}).entries) == {"a b", UNKNOWN}


@pytest.mark.parametrize("order", [1, 0, -2])
def test_orders_below_two_are_refused(order):
    with pytest.raises(ValueError, match=f"order = {order}.*at least bigrams"):
        kneser_ney_bits(make_array(TRAIN, VOCAB_SIZE), {}, order=order)


def test_texts_of_another_tokenizer_are_refused():
    train, other = make_array(TRAIN, VOCAB_SIZE), make_array([[1]], VOCAB_SIZE + 1, "elsewhere")
    with pytest.raises(ValueError, match="elsewhere.*vocabulary of 151.*with 150"):
        kneser_ney_bits(train, {"validation": other}, order=3)


def test_ids_outside_the_vocabulary_are_refused():
    train, broken = make_array(TRAIN, VOCAB_SIZE), make_array([[1, 150, 2]], VOCAB_SIZE, "broken")
    with pytest.raises(ValueError, match="broken.*id 150.*ends at 149"):
        kneser_ney_bits(train, {"validation": broken}, order=3)


def test_a_training_text_without_tokens_is_refused():
    with pytest.raises(ValueError, match="nothing can be counted"):
        kneser_ney_bits(make_array([[], []], VOCAB_SIZE), {}, order=3)


def test_missing_splits_and_orders_are_refused():
    train = make_array(TRAIN, VOCAB_SIZE)
    with pytest.raises(ValueError, match=r"No validation split.*\(train, test\)"):
        best_kneser_ney({"train": train, "test": train})
    with pytest.raises(ValueError, match="No orders"):
        best_kneser_ney({"train": train, "validation": train}, orders=[])


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setattr(ngram, "_find_mitlm", lambda: None)
    monkeypatch.setattr(ngram, "_find_kenlm", lambda: None)
    with pytest.raises(ModuleNotFoundError, match=r"mitlm or kenlm.*pip install phonetisaurus==.*lmplz"):
        find_estimator()
    with pytest.raises(ModuleNotFoundError, match=r"\(kenlm\)"):
        find_estimator("kenlm")
    with pytest.raises(ValueError, match=r"'srilm'.*mitlm, kenlm"):
        find_estimator("srilm")


def test_a_failing_estimator_says_what_it_said_and_leaves_nothing(tmp_path, monkeypatch):
    script = tmp_path / "broken"
    script.write_text("#!/bin/sh\necho no space left; exit 3\n")
    script.chmod(0o755)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    broken = Estimator(kind="kenlm", name="Broken", program=str(script))
    with pytest.raises(RuntimeError, match=r"Broken failed on order 3 \(exit status 3\).*\n*no space left"):
        kneser_ney_bits(make_array(TRAIN, VOCAB_SIZE), {}, order=3, estimator=broken)
    assert not list(temporary.iterdir())


def run_script(repository: Path, monkeypatch, *arguments: object) -> None:
    compare.main([str(argument) for argument in arguments])


def test_the_script_compares_on_cached_arrays(repository, tmp_path, any_estimator, monkeypatch, capsys):
    from hfseq.data import build_token_arrays, load_corpus, train_tokenizer

    generator, words = random.Random(0), ["in", "the", "beginning", "was", "word", "and"]
    for side, count in (("train", 300), ("validation", 40), ("test", 40)):
        lines = [" ".join(generator.choices(words, k=9)) for _ in range(count)]
        (tmp_path / f"{side}.txt").write_text("\n\n".join(lines) + "\n")
    files = {f"{side}_file": str(tmp_path / f"{side}.txt") for side in ("train", "validation", "test")}
    corpus = load_corpus(**files)
    tokenizer = train_tokenizer(corpus.train, "bpe", 300)
    directory = build_token_arrays(corpus, tokenizer, tmp_path / "cache")["train"].path.parent

    output = tmp_path / "result.json"
    run_script(repository, monkeypatch, "--arrays", directory, "--orders", 2, 3, "--output", output)
    shown = capsys.readouterr().out
    assert any_estimator.name in shown and "<- best on validation" in shown
    result = json.loads(output.read_text())
    assert [tried["order"] for tried in result["orders"]] == [2, 3]
    # Nine words of 4 bytes and 8 blanks to a document, one of six words each time: at least log2(6) bits a word, and
    # what an n-gram does not know, that documents end after nine words, costs some 5 bits more.
    assert 9 * math.log2(6) / 44 < result["test"]["bits_per_byte"] < 1.3 * 9 * math.log2(6) / 44


def test_the_script_adds_the_baseline_to_a_model_card(
    repository, tmp_path, any_estimator, monkeypatch, capsys
):
    """Twice, so that a second run replaces what the first wrote; then with a score on other text."""
    from hfseq import data

    arrays = {split: make_array(TRAIN, VOCAB_SIZE) for split in ("train", "validation", "test")}
    monkeypatch.setattr(data, "load_corpus", lambda *_, **__: None)
    monkeypatch.setattr(data, "build_token_arrays", lambda *_, **__: arrays)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_: None)
    recipe = {"data": {"corpus": "kjv"}, "model": {"model_type": "hfseq_lstm"}, "training": {}}
    score = {"bits_per_byte": 0.987654, "perplexity_per_token": 3.0, "perplexity_per_word": 9.0}
    score |= {
        "tokens": len(arrays["test"]) - 1,
        "words": arrays["test"].n_words,
        "bytes": arrays["test"].n_bytes,
    }
    facts = {"recipe": "toy", "recipe_content": recipe, "command": "python", "parameters": 7}
    facts |= {"model_class": "LSTMForCausalLM", "scores": {"validation": score, "test": score}}
    facts["baselines"] = [{"name": "a coin", "test": {"bits_per_byte": 8.0}}]
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    summary = tmp_path / "training_summary.json"
    summary.write_text(json.dumps(facts))
    for _ in range(2):
        run_script(repository, monkeypatch, tmp_path, "--orders", 2, 3)
    written = json.loads(summary.read_text())
    assert [b["name"] for b in written["baselines"]] == [
        "a coin",
        f"interpolated Kneser-Ney, order 3 ({any_estimator.name})",
    ]
    assert {key: written[key] for key in facts if key != "baselines"} == {
        k: facts[k] for k in facts if k != "baselines"
    }
    shown = f"{written['baselines'][1]['test']['bits_per_byte']:.4f}"
    card = (tmp_path / "README.md").read_text()
    assert "interpolated Kneser-Ney, order 3" in card and shown in card
    out = capsys.readouterr().out
    assert "0.9877" in out and shown in out

    summary.write_text(json.dumps(facts | {"scores": {"test": score | {"tokens": 5}}}))
    with pytest.raises(SystemExit):
        run_script(repository, monkeypatch, tmp_path, "--orders", 2)
    assert "scored on 5 tokens of test, now there are" in capsys.readouterr().err


def test_the_script_refuses_what_it_cannot_compare(repository, tmp_path, any_estimator, monkeypatch, capsys):
    for words, message in (
        (["--arrays", tmp_path], f"No token arrays in {tmp_path}"),
        ([tmp_path], f"{tmp_path} has no training_summary.json"),
    ):
        with pytest.raises(SystemExit):
            run_script(repository, monkeypatch, *words)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_script(repository, monkeypatch)
    assert "give a model directory or --arrays" in capsys.readouterr().err
