"""g2p-en: our encoder-decoder against the published one's own NumPy code."""

from __future__ import annotations

import importlib.util
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from hfseq.convert import import_model, import_tokenizer
from hfseq.convert.g2p_en import PHONEMES, import_target_tokenizer

WORDS = 1000


@pytest.fixture(scope="module")
def package() -> Path:
    spec = importlib.util.find_spec("g2p_en")
    if spec is None or spec.origin is None:
        pytest.skip("g2p-en is not installed: pip install --no-deps g2p-en==2.1.0")
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def original(package):
    """Its class, without the dictionaries that it looks words up in before it asks the network."""
    source = (package / "g2p.py").read_text(encoding="utf-8")
    begin = source.index("class G2p(object):")
    body = source[begin : source.index("if __name__")]
    names = types.ModuleType("original_g2p")
    names.__dict__.update(
        np=np, os=__import__("os"), dirname=str(package), unicode=str,
        cmudict=types.SimpleNamespace(dict=dict), construct_homograph_dictionary=dict,
    )  # fmt: skip
    exec(compile(body, str(package / "g2p.py"), "exec"), names.__dict__)
    return names.G2p()


def words(number: int) -> list[str]:
    """Made of syllables, as words that are in no dictionary are."""
    generator = random.Random(0)
    onsets = [
        "b",
        "ch",
        "d",
        "gr",
        "h",
        "j",
        "kl",
        "m",
        "n",
        "ph",
        "qu",
        "r",
        "str",
        "th",
        "v",
        "w",
        "x",
        "y",
        "z",
        "",
    ]
    nuclei, codas = (
        ["a", "e", "i", "o", "u", "ai", "ea", "ou", "y"],
        ["", "n", "ck", "st", "rd", "l", "sh", "é"],
    )
    return [
        "".join(
            generator.choice(part) for _ in range(generator.randint(1, 5)) for part in (onsets, nuclei, codas)
        )
        for _ in range(number)
    ]


def test_the_phonemes_are_the_originals(original):
    assert original.phonemes == PHONEMES


def test_phonemes_of_a_thousand_words_are_the_originals(package, original):
    model, tokenizer = import_model(package, "g2p-en").double(), import_tokenizer(package, "g2p-en")
    texts = words(WORDS)
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    for row, text in zip(batch["input_ids"], texts, strict=True):
        expected = [original.g2idx.get(letter, 1) for letter in [*text, "</s>"]]
        assert row.tolist()[: len(expected)] == expected
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    written = model.generate(**inputs, do_sample=False)
    phonemes = import_target_tokenizer(package).batch_decode(written, skip_special_tokens=True)
    lengths = set()
    for text, ours in zip(texts, phonemes, strict=True):
        theirs = [phoneme for phoneme in original.predict(text) if phoneme not in ("<pad>", "<unk>", "<s>")]
        assert ours.split() == theirs, text
        lengths.add(len(theirs))
    assert len(lengths) > 8


def test_saved_as_a_checkpoint(package, tmp_path):
    model = import_model(package, "g2p-en")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    ids = import_tokenizer(package, "g2p-en")("activationist", return_tensors="pt")["input_ids"]
    assert torch.equal(loaded.generate(ids), model.generate(ids))


def test_what_is_not_the_model_is_refused(package, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No checkpoint20\.npz.*pip install --no-deps g2p-en"):
        import_model(tmp_path, "g2p-en")
    with pytest.raises(ValueError, match="encoder-decoder.*'ForCausalLM'"):
        import_model(package, "g2p-en", head="ForCausalLM")
    file = tmp_path / "checkpoint20.npz"
    with np.load(package / "checkpoint20.npz") as arrays:
        weights = dict(arrays)
    np.savez(file, **{name: w for name, w in weights.items() if name != "fc_b"})
    with pytest.raises(ValueError, match="not the g2p-en model: it differs in fc_b"):
        import_model(tmp_path, "g2p-en")
    np.savez(file, **(weights | {"dec_emb": weights["dec_emb"][:-1]}))
    with pytest.raises(ValueError, match="29 letters and 73 phonemes"):
        import_model(tmp_path, "g2p-en")
    file.write_bytes(b"no arrays")
    with pytest.raises(ValueError, match="not a whole file of NumPy arrays"):
        import_model(tmp_path, "g2p-en")


def test_nothing_of_the_package_was_imported():
    assert "g2p_en" not in sys.modules
