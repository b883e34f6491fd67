"""textgenrnn (Max Woolf, MIT): a published character LSTM, embedding 465 x 100 and two layers of 128.

The weights are a Keras HDF5 file in the layout of `CuDNNLSTM`: `kernel` [inputs, 4 x units], `recurrent_kernel`
[units, 4 x units], `bias` [8 x units], the gates i, f, c, o side by side, as torch orders them too. What is not
obvious: each gate's [inputs, units] block is only a container. cuDNN read its bytes as the matrix [units, inputs] that
multiplies the input from the left, and that is torch's own convention, so a block is *reshaped*, not transposed; for
the square recurrent blocks that is no change at all. The first half of the bias goes with the input, the second with
the state.

The original reads 40 characters, averages [embedding, layer 1, layer 2] over them with learned weights and predicts
the next character once: a sequence-to-vector model whose classes are the characters. `LSTMForSequenceClassification` is
the whole of it, `LSTMModel` the embedding and the layers. Its padding is not masked: where texts are shorter than 40,
pass no attention_mask.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedTokenizerFast

from ..data.tables import read_json
from ..models.configuration_recurrent import LSTMConfig
from ..models.modeling_recurrent import LSTMForSequenceClassification, LSTMModel

if TYPE_CHECKING:
    import h5py

WEIGHTS_FILE = "textgenrnn_weights.hdf5"
VOCABULARY_FILE = "textgenrnn_vocab.json"
PAD_TOKEN = "<pad>"  # row 0 of the embedding; the original has no name for it
BOUNDARY_TOKEN = "<s>"  # stands before and after every text
WINDOW = 40  # characters the original reads at once
HOW_TO_GET_IT = "pip install --no-deps textgenrnn==2.0.0, or unpack its sdist"


def import_model(
    path: str | PathLike[str], head: str | None = None
) -> LSTMModel | LSTMForSequenceClassification:
    """Fills a model from `textgenrnn_weights.hdf5`; see `hfseq.convert.import_model` for arguments, errors.

    Args:
        head: None or "Model" for the embedding and the layers; "ForSequenceClassification" for the published model,
            whose class c is the character with id c.
    """
    if head not in (None, "Model", "ForSequenceClassification"):
        raise ValueError(
            f"textgenrnn fills LSTMModel or LSTMForSequenceClassification: head is Model or "
            f"ForSequenceClassification, not {head!r}."
        )
    weights_file, vocabulary_file = _locate(path)
    vocabulary = _read_vocabulary(vocabulary_file)
    with _open(weights_file) as file:
        embedding = _read(file, weights_file, "embedding", "embeddings")  # [vocabulary, embedding]
        layers: list[dict[str, torch.Tensor]] = []
        while f"rnn_{len(layers) + 1}" in file:
            layers.append(_read_layer(file, weights_file, f"rnn_{len(layers) + 1}"))
        pooling = _read_pooling(file, weights_file) if head == "ForSequenceClassification" else {}
    if not layers:
        raise ValueError(f"{weights_file} holds no layer rnn_1: it is not a textgenrnn model.")
    if len(embedding) != len(vocabulary):
        raise ValueError(
            f"{weights_file} has {len(embedding)} embeddings, but {vocabulary_file} with its padding has "
            f"{len(vocabulary)} entries: they belong to different models."
        )

    config = LSTMConfig(
        vocab_size=len(embedding),
        embedding_size=embedding.shape[1],
        hidden_size=layers[0]["weight_hh"].shape[1],
        num_hidden_layers=len(layers),
        tie_word_embeddings=False,
        pad_token_id=vocabulary[PAD_TOKEN],
        bos_token_id=vocabulary[BOUNDARY_TOKEN],
        eos_token_id=vocabulary[BOUNDARY_TOKEN],
    )
    weights = {"embed_tokens.weight": embedding}
    for number, layer in enumerate(layers):
        weights |= {f"blocks.0.rnn.{name}_l{number}": tensor for name, tensor in layer.items()}
    if pooling:
        weights = {f"model.{name}": tensor for name, tensor in weights.items()} | pooling
        config.classifier_layers, config.classifier_pooling = "all", "attention"
        config.id2label = {number: character for character, number in vocabulary.items()}
        config.label2id = dict(vocabulary)
        model = LSTMForSequenceClassification(config)
    else:
        model = LSTMModel(config)
    model.load_state_dict(weights)  # strict: every parameter filled, nothing left over
    return model.eval()


def import_tokenizer(path: str | PathLike[str]) -> PreTrainedTokenizerFast:
    """The original's tokenizer: one id per character, characters outside the vocabulary are the padding (as there)."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    _, vocabulary_file = _locate(path)
    tokenizer = Tokenizer(models.WordLevel(_read_vocabulary(vocabulary_file), unk_token=PAD_TOKEN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        unk_token=PAD_TOKEN,
        bos_token=BOUNDARY_TOKEN,
        eos_token=BOUNDARY_TOKEN,
        padding_side="left",
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )


def read_vocabulary(path: str | PathLike[str]) -> dict[str, int]:
    """{character: id} of the model at `path` (465 entries), with `<pad>` for id 0, unnamed in the original."""
    return _read_vocabulary(_locate(path)[1])


def _locate(path: str | PathLike[str]) -> tuple[Path, Path]:
    """The weights and the vocabulary, for the weights file itself or a directory of the package or its sdist."""
    path = Path(path)
    candidates = [path] if path.is_file() else [path / WEIGHTS_FILE, path / "textgenrnn" / WEIGHTS_FILE]
    weights_file = next((file for file in candidates if file.is_file()), None)
    if weights_file is None:
        raise FileNotFoundError(
            f"No {WEIGHTS_FILE} in {path} nor in {path / 'textgenrnn'}. To get it: {HOW_TO_GET_IT}."
        )
    vocabulary_file = weights_file.with_name(weights_file.name.replace("_weights.hdf5", "_vocab.json"))
    if vocabulary_file == weights_file or not vocabulary_file.is_file():
        raise FileNotFoundError(
            f"No vocabulary beside {weights_file}: put its {VOCABULARY_FILE} there (NAME_vocab.json for "
            "NAME_weights.hdf5)."
        )
    return weights_file, vocabulary_file


def _read_vocabulary(file: Path) -> dict[str, int]:
    try:
        vocabulary = {PAD_TOKEN: 0} | read_json(file)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a JSON object of characters and ids: {error}") from error
    if sorted(vocabulary.values()) != list(range(len(vocabulary))) or BOUNDARY_TOKEN not in vocabulary:
        raise ValueError(
            f"{file} is not a textgenrnn vocabulary: it needs {BOUNDARY_TOKEN!r} and the ids 1, 2, 3, ..."
        )
    return vocabulary


def _open(file: Path) -> h5py.File:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("Reading Keras weights needs h5py: pip install 'hfseq[convert]'") from error
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ValueError(
            f"{file} is not an HDF5 file: {error}. To get the published one: {HOW_TO_GET_IT}."
        ) from error


def _read(file: h5py.File, path: Path, layer: str, weight: str) -> torch.Tensor:
    name = f"{layer}/{layer}/{weight}:0"
    if name not in file:
        raise ValueError(f"{path} holds no {name}: it is not a textgenrnn model.")
    dataset = file[name]
    if Path(dataset.file.filename) != Path(file.filename) or dataset.external or dataset.is_virtual:
        raise ValueError(f"{path} keeps {name} in another file, which is not followed.")
    if dataset.dtype.kind != "f":
        raise ValueError(f"{path}: {name} holds {dataset.dtype}, no numbers: it is not a textgenrnn model.")
    return torch.from_numpy(dataset[()])


def _read_pooling(file: h5py.File, path: Path) -> dict[str, torch.Tensor]:
    """The average's weights and the output layer, under our names."""
    return {
        "pooling.attention.weight": _read(file, path, "attention", "attention_W").t(),
        "classifier.out_proj.weight": _read(file, path, "output", "kernel").t(),
        "classifier.out_proj.bias": _read(file, path, "output", "bias"),
    }


def _read_layer(file: h5py.File, path: Path, layer: str) -> dict[str, torch.Tensor]:
    """One CuDNNLSTM layer under torch's names, without the layer's number."""
    kernel, recurrent, bias = (_read(file, path, layer, w) for w in ("kernel", "recurrent_kernel", "bias"))
    inputs, units = len(kernel), len(recurrent)
    if (
        kernel.shape != (inputs, 4 * units)
        or recurrent.shape != (units, 4 * units)
        or bias.shape != (8 * units,)
    ):
        raise ValueError(
            f"{path}: {layer} has kernel {tuple(kernel.shape)}, recurrent kernel {tuple(recurrent.shape)} and bias "
            f"{tuple(bias.shape)}, not the CuDNNLSTM layout [inputs, 4 x units], [units, 4 x units], [8 x units]. "
            "Only textgenrnn's published weights and models saved on a GPU have it."
        )
    bias_ih, bias_hh = bias.chunk(2)
    return {
        "weight_ih": torch.cat([gate.reshape(units, inputs) for gate in kernel.chunk(4, dim=1)]),
        "weight_hh": torch.cat([gate.reshape(units, units) for gate in recurrent.chunk(4, dim=1)]),
        "bias_ih": bias_ih.clone(),
        "bias_hh": bias_hh.clone(),
    }
