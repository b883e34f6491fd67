"""g2pM: our tagger against the published one's own NumPy code."""

from __future__ import annotations

import importlib.util
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from hfseq.convert import import_model, import_tokenizer

SENTENCES = 1000


@pytest.fixture(scope="module")
def package() -> Path:
    spec = importlib.util.find_spec("g2pM")
    if spec is None or spec.origin is None:
        pytest.skip("g2pM is not installed: pip install --no-deps g2pM==0.1.2.5")
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def original(package):
    from g2pM import G2pM

    return G2pM()


@pytest.fixture(scope="module")
def model(package):
    return import_model(package, "g2pm")


def sentences(original, number: int) -> list[str]:
    """Texts of up to 40 characters, half of them with several readings, and some unknown ones."""
    generator = random.Random(0)
    known = [character for character in original.char2idx if len(character) == 1][4:]
    ambiguous = [c for c in known if len(original.cedict.get(c, ())) > 1]
    return [
        "".join(
            generator.choice(generator.choice([ambiguous, [*known, "☃"]]))
            for _ in range(generator.randint(1, 40))
        )
        for _ in range(number)
    ]


def test_tags_of_a_thousand_texts_are_the_originals(package, original, model):
    tokenizer, model = import_tokenizer(package, "g2pm"), import_model(package, "g2pm").double()
    texts = sentences(original, SENTENCES)
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    tags = logits.argmax(-1).numpy()
    for row, text in enumerate(texts):
        ids = batch["input_ids"][row][: len(text) + 2].numpy().astype(np.int32)
        assert ids.tolist() == [2, *(original.char2idx.get(c, 1) for c in text), 3]
        expected = original.predict(ids[None], list(range(len(ids))))
        assert tags[row, : len(ids)].tolist() == expected.tolist(), text


def test_logits_are_the_originals(original, model):
    text = sentences(original, 1)[0]
    ids = np.array([[2, *(original.char2idx.get(c, 1) for c in text), 3]], dtype=np.int32)
    heads = []
    layer = original.fc_layer
    original.fc_layer = lambda inputs: heads.append(layer(inputs)) or heads[-1]
    try:
        original.predict(ids, list(range(ids.shape[1])))
    finally:
        original.fc_layer = layer
    with torch.no_grad():
        ours = model(torch.from_numpy(ids).long()).logits[0]
    torch.testing.assert_close(ours.double(), torch.from_numpy(heads[0]).double(), atol=5e-5, rtol=1e-5)


def test_saved_as_a_checkpoint_with_its_readings(package, model, tmp_path):
    model.save_pretrained(tmp_path)
    import_tokenizer(package, "g2pm").save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    batch = AutoTokenizer.from_pretrained(tmp_path)("银行", return_tensors="pt")
    tags = loaded(batch["input_ids"]).logits.argmax(-1)[0]
    assert loaded.config.id2label[int(tags[2])] == "hang2"  # a bank, not to walk (xing2)


def copied(package, folder):
    for name in ("np_ckpt.pkl", "char2idx.pkl", "class2idx.pkl"):
        shutil.copy(package / name, folder)
    return folder


def test_what_is_not_the_model_is_refused(package, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"np_ckpt\.pkl.*do not lie together.*pip install --no-deps g2pM"
    ):
        import_model(tmp_path, "g2pm")
    with pytest.raises(ValueError, match="g2pM is a tagger.*'ForCausalLM'"):
        import_model(package, "g2pm", head="ForCausalLM")
    folder = copied(package, tmp_path)
    weights = pickle.loads((folder / "np_ckpt.pkl").read_bytes())
    bad = {
        "is no weight of": weights | {"lstm2.weight": np.zeros(1)},
        "not the g2pM model": {**weights, "logit_layer.2.bias": np.zeros(3, dtype=np.float32)},
        "lacks classifier.dense.weight": {k: w for k, w in weights.items() if "logit_layer.0" not in k},
        "no table of arrays": [1, 2],
    }
    for words, content in bad.items():
        (folder / "np_ckpt.pkl").write_bytes(pickle.dumps(content, protocol=4))
        with pytest.raises(ValueError, match=words):
            import_model(folder, "g2pm")


def test_a_pickle_that_runs_code_is_refused(package, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trapped",)

    folder = copied(package, tmp_path)
    (folder / "np_ckpt.pkl").write_bytes(pickle.dumps(Trap(), protocol=4))
    with pytest.raises(ValueError, match="can run code"):
        import_model(folder, "g2pm")
    assert not (tmp_path / "trapped").exists()
