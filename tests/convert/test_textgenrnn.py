"""textgenrnn: our LSTM against the published weights, computed by NumPy in Keras's own convention.

The forward below shares nothing with the importer: it undoes the CuDNNLSTM layout the way Keras does (kernels turned
into those of a plain Keras LSTM, biases added up) and runs the textbook equations. That this reading is the right one
is a test of its own: with it the whole published model predicts English at 1.2 bits per character, and with the
blocks read as plain Keras kernels at more than 9.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from hfseq.convert import export_model, import_model, import_tokenizer
from hfseq.convert.textgenrnn import import_model as import_textgenrnn
from hfseq.convert.textgenrnn import read_vocabulary

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'hfseq[convert]'")

WINDOW = 40
TEXT = (
    "What do you think is the best way to learn how to play the guitar when you have no time? "
    "My friend told me about the new president of the United States today."
)


@pytest.fixture(scope="module")
def package() -> Path:
    """The directory of the installed package, found without importing it (its import needs tensorflow)."""
    spec = importlib.util.find_spec("textgenrnn")
    if spec is None or spec.origin is None:
        pytest.skip("textgenrnn is not installed: pip install --no-deps textgenrnn==2.0.0")
    return Path(spec.origin).parent


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class KerasModel:
    """The published network in float64, from the arrays of the file alone."""

    def __init__(self, weights_file: Path):
        self.weights_file = weights_file

    def weight(self, layer: str, name: str) -> np.ndarray:
        with h5py.File(self.weights_file, "r") as file:
            return file[f"{layer}/{layer}/{name}:0"][()].astype(np.float64)

    def lstm(self, x: np.ndarray, layer: str, kernels_are_plain: bool = False) -> np.ndarray:
        """x [rows, time, inputs] -> outputs [rows, time, units]."""
        kernel, recurrent, bias = (
            self.weight(layer, name) for name in ("kernel", "recurrent_kernel", "bias")
        )
        if not kernels_are_plain:
            kernel = np.hstack([k.T.reshape(k.shape, order="F") for k in np.hsplit(kernel, 4)])
        recurrent = np.hstack([k.T for k in np.hsplit(recurrent, 4)])
        bias = sum(np.split(bias, 2))
        h = c = np.zeros((len(x), len(recurrent)))
        outputs = []
        for t in range(x.shape[1]):
            i, f, candidate, o = np.hsplit(x[:, t] @ kernel + h @ recurrent + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        return np.stack(outputs, axis=1)

    def hidden_states(self, ids: np.ndarray, kernels_are_plain: bool = False) -> list[np.ndarray]:
        states = [self.weight("embedding", "embeddings")[ids]]
        for layer in ("rnn_1", "rnn_2"):
            states.append(self.lstm(states[-1], layer, kernels_are_plain))
        return states

    def bits_per_character(
        self, ids: np.ndarray, targets: np.ndarray, kernels_are_plain: bool = False
    ) -> float:
        """Of the whole published model on real text."""
        log_probabilities = self.log_probabilities(ids, kernels_are_plain)
        return -log_probabilities[np.arange(len(targets)), targets].mean() / np.log(2)

    def log_probabilities(self, ids: np.ndarray, kernels_are_plain: bool = False) -> np.ndarray:
        """The whole published model: attention over the window, then softmax."""
        x = np.concatenate(self.hidden_states(ids, kernels_are_plain), axis=-1)
        scores = (x @ self.weight("attention", "attention_W"))[..., 0]
        attention = np.exp(scores - scores.max(axis=1, keepdims=True))
        attention /= attention.sum(axis=1, keepdims=True)
        logits = (x * attention[..., None]).sum(axis=1) @ self.weight("output", "kernel") + self.weight(
            "output", "bias"
        )
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def windows(vocabulary: dict[str, int], text: str) -> tuple[np.ndarray, np.ndarray]:
    """What the original reads before each character of text, [characters, 40] padded with 0 on the left, and its id."""
    ids = [vocabulary["<s>"], *(vocabulary[character] for character in text)]
    rows = [ids[max(0, end - WINDOW) : end] for end in range(1, len(ids))]
    return np.array([[0] * (WINDOW - len(row)) + row for row in rows]), np.array(ids[1:])


# The equality of the models is the float64 run, 3e-14 apart (1e-5 was asked for). In float32 this network is 1.6e-5
# from exact arithmetic on these windows, and so is NumPy's own float32 run (1.4e-5).
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
def test_every_hidden_state_matches_keras_on_real_text(package, dtype, tolerance):
    model = import_model(package, "textgenrnn").to(dtype)
    ids, _ = windows(read_vocabulary(package), TEXT)
    expected = KerasModel(package / "textgenrnn_weights.hdf5").hidden_states(ids)
    with torch.no_grad():
        actual = model(input_ids=torch.from_numpy(ids), output_hidden_states=True)
    assert len(actual.hidden_states) == len(expected) == 3  # embedding, layer 1, layer 2
    for ours, theirs in zip(actual.hidden_states, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(actual.last_hidden_state.numpy(), expected[-1], rtol=0, atol=tolerance)
    # The comparison is not one of zeros with zeros, nor do all windows look alike.
    assert expected[-1].std() > 0.1 and np.ptp(expected[-1][:, -1], axis=0).mean() > 0.1


def test_the_reference_reads_the_layout_as_it_was_trained(package):
    reference = KerasModel(package / "textgenrnn_weights.hdf5")
    ids, targets = windows(read_vocabulary(package), TEXT)
    assert reference.bits_per_character(ids, targets) < 1.5  # measured: 1.18
    assert reference.bits_per_character(ids, targets, kernels_are_plain=True) > 5  # measured: 9.66


def test_the_next_characters_distribution_on_a_thousand_windows(package):
    model = import_model(package, "textgenrnn", head="ForSequenceClassification").double()
    vocabulary = read_vocabulary(package)
    rng = np.random.default_rng(0)
    real, _ = windows(vocabulary, TEXT)
    random = rng.integers(1, len(vocabulary), size=(1000 - len(real), WINDOW))
    for row, padding in zip(random, rng.integers(0, WINDOW, size=len(random)), strict=True):
        row[:padding] = 0
    ids = np.concatenate([real, random])
    expected = KerasModel(package / "textgenrnn_weights.hdf5").log_probabilities(ids)
    with torch.no_grad():
        ours = model(torch.from_numpy(ids)).logits.log_softmax(-1)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-9)
    assert model.config.id2label[int(ours[len(TEXT) - 1].argmax())] == "."


def test_config_and_vocabulary_of_the_published_model(package):
    model = import_model(package, "textgenrnn")
    config = model.config
    assert (config.vocab_size, config.embedding_size, config.hidden_size, config.num_hidden_layers) == (
        465,
        100,
        128,
        2,
    )
    assert not config.tie_word_embeddings and not model.training
    vocabulary = read_vocabulary(package)
    assert len(vocabulary) == 465 and config.pad_token_id == 0
    assert config.bos_token_id == config.eos_token_id == vocabulary["<s>"]


@pytest.mark.parametrize("where", ["package", "sdist", "file"])
def test_every_kind_of_path(package, tmp_path, where):
    path = {"package": package, "sdist": package.parent, "file": package / "textgenrnn_weights.hdf5"}[where]
    model = import_model(path, "textgenrnn")
    with h5py.File(package / "textgenrnn_weights.hdf5", "r") as file:
        embeddings = file["embedding/embedding/embeddings:0"][()]
    np.testing.assert_array_equal(model.embed_tokens.weight.detach().numpy(), embeddings)


def test_tokenizer_encodes_like_the_original_and_comes_back(package, tmp_path):
    tokenizer = import_tokenizer(package, "textgenrnn")
    vocabulary = read_vocabulary(package)
    text = "Il était une fois,   “a  cat” & A DOG…"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == [vocabulary[character] for character in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer("\U0001f9ff", add_special_tokens=False)["input_ids"] == [
        0
    ]  # unknown, as in the original
    tokenizer.save_pretrained(tmp_path)
    import_model(package, "textgenrnn").save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert type(AutoModel.from_pretrained(tmp_path)).__name__ == "LSTMModel"


# What follows needs no package: small files of the same layout, and broken ones.

UNITS, EMBEDDING, CHARACTERS = 6, 5, "<s>abc"


def write_model(directory: Path, *, bias_rows: int = 8, layers: int = 2, vocabulary: int = 5) -> Path:
    rng = np.random.default_rng(0)
    arrays = {"embedding/embedding/embeddings:0": rng.normal(size=(5, EMBEDDING))}
    for number in range(1, layers + 1):
        inputs, name = EMBEDDING if number == 1 else UNITS, f"rnn_{number}/rnn_{number}"
        arrays[f"{name}/kernel:0"] = rng.normal(size=(inputs, 4 * UNITS))
        arrays[f"{name}/recurrent_kernel:0"] = rng.normal(size=(UNITS, 4 * UNITS))
        arrays[f"{name}/bias:0"] = rng.normal(size=bias_rows * UNITS)
    directory.mkdir(exist_ok=True)
    with h5py.File(directory / "textgenrnn_weights.hdf5", "w") as file:
        for name, array in arrays.items():
            file[name] = array.astype(np.float32)
    entries = dict(zip(["<s>", "a", "b", "c", "d"][: vocabulary - 1], range(1, vocabulary), strict=True))
    (directory / "textgenrnn_vocab.json").write_text(json.dumps(entries))
    return directory


def test_input_kernels_that_are_not_square(tmp_path):
    """Embedding and units differ in the published file too, but there a wrong reading might hide in large sizes."""
    directory = write_model(tmp_path)
    ids = np.array([[1, 2, 3, 4, 0, 2], [4, 4, 1, 3, 2, 1]])
    expected = KerasModel(directory / "textgenrnn_weights.hdf5").hidden_states(ids)
    with torch.no_grad():
        actual = import_model(directory, "textgenrnn")(
            torch.from_numpy(ids), output_hidden_states=True
        ).hidden_states
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-5)


def test_unknown_format_names_the_known_ones_and_the_nearest(tmp_path):
    with pytest.raises(
        ValueError, match=r"'textgenrn'.*mean 'textgenrnn'.*Known formats: .*bert, .*textgenrnn"
    ):
        import_model(tmp_path, "textgenrn")
    with pytest.raises(
        ValueError, match=r"import a tokenizer from the format 'fairseq'.*Known formats: .*bert, .*textgenrnn"
    ):
        import_tokenizer(tmp_path, "fairseq")
    with pytest.raises(ValueError, match=r"export to the format 'textgenrnn'.*Known formats: bert"):
        export_model(None, tmp_path, "textgenrnn")


def test_a_head_that_the_format_does_not_hold(tmp_path):
    with pytest.raises(ValueError, match="ForCausalLM"):
        import_textgenrnn(write_model(tmp_path), head="ForCausalLM")


def test_directory_without_the_files(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"No textgenrnn_weights\.hdf5 .* pip install --no-deps textgenrnn"
    ):
        import_model(tmp_path, "textgenrnn")
    directory = write_model(tmp_path / "model")
    (directory / "textgenrnn_vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"No vocabulary beside .*textgenrnn_vocab\.json"):
        import_model(directory, "textgenrnn")


def test_files_that_are_something_else(tmp_path):
    directory = write_model(tmp_path)
    (directory / "textgenrnn_weights.hdf5").write_bytes(b"PK\x03\x04 not HDF5")
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        import_model(directory, "textgenrnn")
    write_model(tmp_path)
    for content in ("[1, 2]", "{broken", '{"<s>": 1, "a": 7}', '{"a": 1}'):
        (directory / "textgenrnn_vocab.json").write_text(content)
        with pytest.raises(ValueError, match=r"textgenrnn_vocab\.json"):
            import_model(directory, "textgenrnn")


def test_layouts_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rnn_1 .*bias \(24,\), not the CuDNNLSTM layout"):
        import_model(write_model(tmp_path / "plain keras", bias_rows=4), "textgenrnn")
    with pytest.raises(ValueError, match="holds no layer rnn_1"):
        import_model(write_model(tmp_path / "no layers", layers=0), "textgenrnn")
    with pytest.raises(ValueError, match=r"5 embeddings, but .* 4 entries"):
        import_model(write_model(tmp_path / "other vocabulary", vocabulary=4), "textgenrnn")


def test_missing_h5py_names_the_command(tmp_path, monkeypatch):
    import sys

    directory = write_model(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'hfseq\[convert\]'"):
        import_model(directory, "textgenrnn")
