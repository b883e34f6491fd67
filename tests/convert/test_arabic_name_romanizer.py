"""arabic-name-romanizer: our GRU with attention against its ONNX graphs under onnxruntime."""

from __future__ import annotations

import importlib.util
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hfseq.convert import import_model, import_tokenizer

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'hfseq[convert]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime"
)

NAMES = 200


@pytest.fixture(scope="module")
def package() -> Path:
    spec = importlib.util.find_spec("arabic_name_romanizer")
    if spec is None or spec.origin is None:
        pytest.skip(
            "arabic-name-romanizer is not installed: pip install --no-deps arabic-name-romanizer==0.2.0"
        )
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def graphs(package):
    return [
        onnxruntime.InferenceSession(package / "resources" / f"{side}.onnx")
        for side in ("encoder", "decoder")
    ]


def names(number: int) -> list[str]:
    """Strings of Arabic letters behind a country and a role."""
    generator = random.Random(0)
    letters = [chr(code) for code in (*range(0x0627, 0x063B), *range(0x0641, 0x0649), 0x064A)]
    prefixes = ["<EG><ROLE_SURNAME>", "<UNK_COUNTRY><ROLE_GIVEN>", "<MA><ROLE_UNKNOWN>"]
    return [
        generator.choice(prefixes)
        + "".join(generator.choice(letters) for _ in range(generator.randint(1, 12)))
        for _ in range(number)
    ]


def original(graphs, ids: np.ndarray) -> tuple[list[int], np.ndarray]:
    """What the published graphs write for one source: (ids, log-probabilities of every step)."""
    encoder, decoder = graphs
    memory, mask, hidden = encoder.run(None, {"src": ids, "src_mask": np.zeros(ids.shape, dtype=bool)})
    written, steps = [1], []
    while written[-1] != 2 and len(written) <= 32:
        feed = {"prefix": np.array([written]), "memory": memory, "src_mask": mask, "hidden": hidden}
        scores, hidden = decoder.run(None, feed)
        steps.append(scores[0])
        written.append(int(scores[0].argmax()))
    return written, np.stack(steps)


def test_every_step_of_the_originals_decoding(package, graphs):
    # Sharp attention magnifies rounding: float32 is 1.2e-4 from float64 here, onnxruntime 1.0e-4.
    model, tokenizer = (f(package, "arabic-name-romanizer") for f in (import_model, import_tokenizer))
    model = model.double()
    rows = tokenizer(names(NAMES))["input_ids"]
    theirs = []
    for row in rows:
        assert row[-1] == 2 and min(row[:2]) >= 4 and 3 not in row
        theirs.append(original(graphs, np.array([row])))
    # Ours in one batch: a row does not depend on its neighbours, as the original's would.
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    given = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[:-1]) for ids, _ in theirs], batch_first=True)
    with torch.no_grad():
        scores = model(**batch, decoder_input_ids=given).logits.log_softmax(-1).numpy()
    ours = model.generate(**batch, do_sample=False).tolist()
    for row, (written, steps) in enumerate(theirs):
        np.testing.assert_allclose(scores[row, : len(steps)], steps, rtol=0, atol=3e-4)
        assert ours[row][: len(written)] == written
    assert len({tuple(written) for written, _ in theirs}) > NAMES * 0.9


def test_a_name(package):
    model, tokenizer = (f(package, "arabic-name-romanizer") for f in (import_model, import_tokenizer))
    batch = tokenizer(["<EG><ROLE_GIVEN>محمد", "<EG><ROLE_SURNAME>حسين"], return_tensors="pt", padding=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    written = tokenizer.batch_decode(model.generate(**inputs, num_beams=2), skip_special_tokens=True)
    assert written[0].lower().startswith("m") and written[0].lower().endswith("d")
    assert written[1].lower().startswith("h")


def test_what_is_not_the_model_is_refused(package, tmp_path):
    with pytest.raises(FileNotFoundError, match="do not lie together.*pip install --no-deps arabic"):
        import_model(tmp_path, "arabic-name-romanizer")
    with pytest.raises(ValueError, match="encoder-decoder.*'Model'"):
        import_model(package, "arabic-name-romanizer", head="Model")
    for name in ("encoder.onnx", "decoder.onnx", "vocab.json"):
        shutil.copy(package / "resources" / name, tmp_path)
    shutil.copy(tmp_path / "decoder.onnx", tmp_path / "encoder.onnx")
    with pytest.raises(ValueError, match=r"encoder\.onnx has no GRU"):
        import_model(tmp_path, "arabic-name-romanizer")
    (tmp_path / "encoder.onnx").write_bytes(b"\xff no graph")
    with pytest.raises(ValueError, match="is not an ONNX model"):
        import_model(tmp_path, "arabic-name-romanizer")
    (tmp_path / "vocab.json").write_text("[]")
    with pytest.raises(ValueError, match="no JSON object with a list of tokens"):
        import_tokenizer(tmp_path, "arabic-name-romanizer")
