"""g2pM (Park and Lee 2020, Apache-2.0): a published tagger that says how Chinese characters are read.

A bidirectional LSTM of 32 units over embeddings of 64, then two linear layers with ReLU between them, under torch's
own names; the original runs in NumPy. Three pickles hold it: the weights, the characters' ids, the readings' ids.
They are read by `array_pickle`, which runs nothing. The tokenizer puts 시 before and 끝 after a text, as the original
does.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from ..models.configuration_recurrent import LSTMConfig
from ..models.modeling_recurrent import LSTMForTokenClassification
from .array_pickle import load_arrays

WEIGHTS_FILE = "np_ckpt.pkl"
CHARACTERS_FILE = "char2idx.pkl"
READINGS_FILE = "class2idx.pkl"
SPECIAL_TOKENS = {"pad_token": "<PAD>", "unk_token": "<UNK>", "bos_token": "시", "eos_token": "끝"}
HOW_TO_GET_IT = "pip install --no-deps g2pM==0.1.2.5"

# name there -> name here
LAYERS = {
    "embedding.": "model.embed_tokens.",
    "lstm.": "model.blocks.0.rnn.",
    "logit_layer.0.": "classifier.dense.",
    "logit_layer.2.": "classifier.out_proj.",
}


def import_model(path: str | PathLike[str], head: str | None = None) -> LSTMForTokenClassification:
    """Fills an `LSTMForTokenClassification`, whose labels are readings such as "chong2"; see `convert.import_model`."""
    if head not in (None, "ForTokenClassification"):
        raise ValueError(f"g2pM is a tagger: head is ForTokenClassification or left out, not {head!r}.")
    folder = _locate(path)
    weights = {_our_name(name, folder): torch.from_numpy(w) for name, w in _weights(folder).items()}
    readings = _ids(folder / READINGS_FILE)
    config = LSTMConfig(
        **_sizes(weights, folder),
        num_hidden_layers=1,
        bidirectional=True,
        classifier_dropout=0.0,
        id2label={number: reading for reading, number in readings.items()},
        label2id=readings,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = LSTMForTokenClassification(config)
    try:
        model.load_state_dict(weights)  # strict: every parameter filled, nothing left over
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS_FILE} is not the g2pM model: {error}") from error
    return model.eval()


def import_tokenizer(path: str | PathLike[str]) -> PreTrainedTokenizerFast:
    """One id per character, between 시 and 끝."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    characters = _ids(_locate(path) / CHARACTERS_FILE)
    tokenizer = Tokenizer(models.WordLevel(characters, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    first, last = SPECIAL_TOKENS["bos_token"], SPECIAL_TOKENS["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(t, characters[t]) for t in (first, last)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **SPECIAL_TOKENS, clean_up_tokenization_spaces=False
    )


def _locate(path: str | PathLike[str]) -> Path:
    """The folder of the three pickles, for one of them or a directory of the package or of its parent."""
    path = Path(path)
    candidates = [path.parent] if path.is_file() else [path, path / "g2pM"]
    for folder in candidates:
        if all((folder / name).is_file() for name in (WEIGHTS_FILE, CHARACTERS_FILE, READINGS_FILE)):
            return folder
    raise FileNotFoundError(
        f"{WEIGHTS_FILE}, {CHARACTERS_FILE} and {READINGS_FILE} do not lie together in {candidates[0]}. To get them: "
        f"{HOW_TO_GET_IT}."
    )


def _weights(folder: Path) -> dict[str, np.ndarray]:
    file = folder / WEIGHTS_FILE
    weights = load_arrays(file)
    if not isinstance(weights, dict) or not all(isinstance(w, np.ndarray) for w in weights.values()):
        raise ValueError(f"{file} holds no table of arrays: it is not the g2pM model.")
    return weights


def _ids(file: Path) -> dict[str, int]:
    ids = load_arrays(file)
    if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"{file} is not a vocabulary with the ids 0, 1, 2, ...")
    return ids


def _our_name(name: str, folder: Path) -> str:
    for theirs, ours in LAYERS.items():
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    raise ValueError(f"{folder / WEIGHTS_FILE}: {name!r} is no weight of the g2pM model.")


def _sizes(weights: dict[str, torch.Tensor], folder: Path) -> dict[str, int]:
    """Fields of the config, read from the shapes."""
    named = {
        "vocab_size": ("model.embed_tokens.weight", 0),
        "embedding_size": ("model.embed_tokens.weight", 1),
        "hidden_size": ("model.blocks.0.rnn.weight_hh_l0", 1),
        "classifier_hidden_size": ("classifier.dense.weight", 0),
    }
    missing = [name for name, _ in named.values() if name not in weights]
    if missing:
        raise ValueError(f"{folder / WEIGHTS_FILE} lacks {missing[0]}: it is not the g2pM model.")
    return {field: weights[name].shape[axis] for field, (name, axis) in named.items()}
