"""Files that a stranger wrote: no importer runs what is in them, each says so in our words, none writes elsewhere."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import BertConfig, MarianConfig, PreTrainedTokenizerFast

from hfseq import EncoderConfig, EncoderForSequenceClassification, LSTMConfig, LSTMForSequenceClassification
from hfseq.convert import export_model, import_model, import_tokenizer
from hfseq.hub import load_checkpoint

MARK = "trapped"


class Trap:
    """Leaves a mark in the working directory when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (MARK,)


def test_the_trap_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))
    assert (tmp_path / MARK).is_dir()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A published folder; whatever was run would leave a mark."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "published"
    folder.mkdir()
    yield folder
    assert not (tmp_path / MARK).exists()


def refused(path, format: str) -> str:
    with pytest.raises(ValueError) as raised:
        import_model(path, format)
    assert type(raised.value) is ValueError  # json, unicode and others have classes of their own
    return str(raised.value)


CONFIGS = {
    "bert": BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    ),
    "marian": MarianConfig(
        vocab_size=8, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, forced_eos_token_id=None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("format", CONFIGS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old form"])
def test_a_pickle_of_torch_that_runs_code(folder, format, zipped):
    CONFIGS[format].save_pretrained(folder)
    torch.save({"weight": Trap()}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    message = refused(folder, format)
    assert "pytorch_model.bin was not read" in message and "can run code" in message
    assert "weights_only" not in message


@pytest.mark.parametrize("format", CONFIGS)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", b"not a pickle"),
        ("pytorch_model.bin", b""),
        ("model.safetensors", b"not tensors"),
    ],
    ids=["text", "empty", "safetensors"],
)
def test_damaged_weights(folder, format, name, content):
    CONFIGS[format].save_pretrained(folder)
    (folder / name).write_bytes(content)
    assert name in refused(folder, format)


def test_weights_that_are_no_table(folder):
    CONFIGS["bert"].save_pretrained(folder)
    torch.save([torch.zeros(1)], folder / "pytorch_model.bin")
    assert "no table of tensors" in refused(folder, "bert")


@pytest.mark.parametrize("file", ["np_ckpt.pkl", "char2idx.pkl", "class2idx.pkl"])
def test_each_pickle_of_g2pm(folder, file):
    contents = {"np_ckpt.pkl": {}, "char2idx.pkl": {"<PAD>": 0}, "class2idx.pkl": {"a": 0}}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(Trap() if name == file else content))
    load = import_tokenizer if file == "char2idx.pkl" else import_model
    with pytest.raises(ValueError, match=f"{file} was not read: it names .*can run code"):
        if file == "class2idx.pkl":
            from hfseq.convert import g2pm

            g2pm._ids(folder / file)
        else:
            load(folder, "g2pm")


@pytest.mark.parametrize("content", ["objects", "pickle", "text", "empty"])
def test_arrays_of_g2p_en(folder, content):
    file = folder / "checkpoint20.npz"
    if content == "objects":
        np.savez(file, enc_emb=np.array([Trap()], dtype=object))
    else:
        file.write_bytes({"pickle": pickle.dumps(Trap()), "text": b"PK\x03\x04 not", "empty": b""}[content])
    assert "checkpoint20.npz is not a whole file of NumPy arrays" in refused(folder, "g2p-en")


def test_what_is_no_hdf5_or_leads_out_of_it(folder):
    h5py = pytest.importorskip("h5py")
    vocabulary = {"<s>": 1, "a": 2}
    (folder / "textgenrnn_vocab.json").write_text(json.dumps(vocabulary))
    file = folder / "textgenrnn_weights.hdf5"
    file.write_bytes(pickle.dumps(Trap()))
    assert "is not an HDF5 file" in refused(folder, "textgenrnn")
    name = "embedding/embedding/embeddings:0"
    with h5py.File(folder / "other.hdf5", "w") as other:
        other[name] = np.zeros((3, 4), np.float32)
    with h5py.File(file, "w") as own:
        own[name] = h5py.ExternalLink(str(folder / "other.hdf5"), name)
    assert "in another file, which is not followed" in refused(folder, "textgenrnn")
    secret = folder / "secret"
    secret.write_bytes(bytes(48))
    with h5py.File(file, "w") as own:
        own.create_dataset(name, (3, 4), "f4", external=[(str(secret), 0, 48)])
    assert "in another file, which is not followed" in refused(folder, "textgenrnn")
    with h5py.File(file, "w") as own:
        own[name] = np.array([b"text"])
    assert "no numbers" in refused(folder, "textgenrnn")


def test_a_graph_that_is_none_or_keeps_weights_elsewhere(folder):
    onnx = pytest.importorskip("onnx")
    for name in ("encoder.onnx", "decoder.onnx", "vocab.json"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    assert "encoder.onnx is not an ONNX model" in refused(folder, "arabic-name-romanizer")
    weight = onnx.TensorProto(name="m.emb.weight", data_type=1, dims=[1], data_location=1)
    weight.external_data.add(key="location", value="../secret")
    graph = onnx.helper.make_graph([], "g", [], [], [weight])
    (folder / "encoder.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert "keeps m.emb.weight in another file" in refused(folder, "arabic-name-romanizer")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old form"])
def test_weights_of_our_own_models_as_a_pickle(folder, zipped):
    """What every command loads: a checkpoint in the old form is read as tensors, or refused."""
    config = LSTMConfig(vocab_size=8, embedding_size=4, hidden_size=4, num_hidden_layers=1)
    model = LSTMForSequenceClassification(config)
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    torch.save(model.state_dict(), file, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(folder)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    for content in ({"weight": Trap()}, Trap()):
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"pytorch_model\.bin was not read: .*can run code") as raised:
            load_checkpoint(folder)
        assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/tmp/secret.safetensors"])
def test_a_shard_outside_of_its_checkpoint(folder, shard):
    config = LSTMConfig(vocab_size=8, embedding_size=4, hidden_size=4, num_hidden_layers=1)
    model = LSTMForSequenceClassification(config)
    model.save_pretrained(folder)
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    index = {"metadata": {}, "weight_map": {name: shard for name in model.state_dict()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        ValueError, match="names the shard .*secret.safetensors, which does not lie beside it"
    ):
        load_checkpoint(folder)


@pytest.mark.parametrize("format", ["bert", "onnx", "ctranslate2"])
def test_what_a_model_calls_itself_names_no_file(tmp_path, format):
    """Names of classes, of the model and of its class are a stranger's, too."""
    if format != "bert":
        pytest.importorskip(format)
    names = {"id2label": {0: "../../up", 1: "/tmp/absolute"}, "label2id": {"../../up": 0, "/tmp/absolute": 1}}
    tokenizers = None
    if format != "onnx":
        config = EncoderConfig(
            vocab_size=8,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            **names,
        )
        model = EncoderForSequenceClassification(config)
        words = {word: i for i, word in enumerate(["../../up", "/tmp/absolute", *"abcdef"])}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a"))
        )
        tokenizers = (tokenizer, tokenizer)
    else:
        config = LSTMConfig(vocab_size=8, embedding_size=4, hidden_size=4, num_hidden_layers=1, **names)
        model = LSTMForSequenceClassification(config)
    model.config._name_or_path = model.name_or_path = "../../../up"
    directory = tmp_path / "deep" / "deeper" / "out"
    directory.mkdir(parents=True)
    export_model(model, directory, format, tokenizers=tokenizers)
    written = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert written and all(file.parent == directory for file in written)


def test_a_template_of_a_tokenizer_names_no_file_above(tmp_path):
    """transformers writes a file for each; a name that leads out is not written."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    tokenizer.chat_template = {"default": "x", "../../up": "y"}
    target = tmp_path / "deep" / "out"
    with pytest.raises(ValueError):
        tokenizer.save_pretrained(target)
    assert not list(tmp_path.rglob("up*"))
