"""hfseq convert: the command line around hfseq.convert."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import hfseq
from hfseq import convert


@pytest.fixture
def tiny_model():
    torch.manual_seed(0)
    config = hfseq.LSTMConfig(vocab_size=8, embedding_size=4, hidden_size=4, num_hidden_layers=1)
    return hfseq.LSTMForCausalLM(config)


@pytest.fixture
def formats(monkeypatch, tiny_model):
    """A format of each kind that needs no files; what the exporter was given is kept."""
    exported = []
    monkeypatch.setitem(convert.IMPORTERS, "fake", lambda path, head: tiny_model)
    monkeypatch.setitem(
        convert.EXPORTERS, "fake", lambda model, directory: exported.append((model, directory))
    )
    return exported


def test_import_writes_a_checkpoint_with_its_tokenizer(run, tmp_path):
    spec = importlib.util.find_spec("textgenrnn")
    pytest.importorskip("h5py", reason="h5py is not installed: pip install 'hfseq[convert]'")
    if spec is None:
        pytest.skip("textgenrnn is not installed: pip install --no-deps textgenrnn==2.0.0")
    source = os.path.dirname(spec.origin)
    assert "LSTMModel with" in run("convert", "import", "textgenrnn", source, tmp_path / "out")
    loaded, original = AutoModel.from_pretrained(tmp_path / "out"), convert.import_model(source, "textgenrnn")
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in original.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "out").tokenize("a b") == ["a", " ", "b"]


def test_import_without_a_tokenizer_writes_the_model(run, formats, tiny_model, tmp_path):
    run("convert", "import", "fake", "anywhere", tmp_path)
    loaded = hfseq.LSTMForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, tiny_model.lm_head.weight)


def test_export_reads_the_checkpoint_with_its_head(run, formats, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "checkpoint")
    run("convert", "export", "fake", tmp_path / "checkpoint", tmp_path / "out")
    ((model, directory),) = formats
    assert type(model) is hfseq.LSTMForCausalLM and directory == tmp_path / "out"


def test_nothing_is_overwritten_unasked(run, refused, formats, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used/notes.txt").write_text("mine")
    message = refused("convert", "import", "fake", "anywhere", tmp_path / "used")
    assert "is not empty: name another directory or add --overwrite" in message
    message = refused("convert", "import", "fake", "anywhere", tmp_path / "used/notes.txt")
    assert "is a file" in message
    run("convert", "import", "fake", "anywhere", tmp_path / "used", "--overwrite")
    assert (tmp_path / "used/config.json").is_file() and (tmp_path / "used/notes.txt").read_text() == "mine"


def test_unknown_formats_and_missing_files_write_nothing(refused, tmp_path):
    message = refused("convert", "import", "textgenrn", tmp_path, tmp_path / "out")
    assert "Did you mean 'textgenrnn'" in message
    message = refused("convert", "import", "textgenrnn", tmp_path, tmp_path / "out")
    assert "No textgenrnn_weights.hdf5 in" in message
    message = refused("convert", "export", "textgenrnn", tmp_path / "nowhere", tmp_path / "out")
    assert message.startswith("hfseq convert: No checkpoint in ") and "it has no config.json" in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_marian_there_and_back_with_its_tokenizer(run, tmp_path):
    from transformers import MarianMTModel

    tokenizer = hfseq.data.train_tokenizer(["two men walk two dogs"] * 3, "bpe", 280, translation=True)
    torch.manual_seed(0)
    sizes = {
        "d_model": 8,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 8}
    vocabulary = hfseq.data.padded_vocab_size(tokenizer)
    config = hfseq.TransformerConfig(vocab_size=vocabulary, **sizes, **heads)
    model = hfseq.TransformerForSeq2SeqLM(config)
    model.save_pretrained(tmp_path / "ours")
    target = hfseq.data.train_tokenizer(["zwei Hunde"] * 3, "bpe", 270, translation=True)
    hfseq.data.save_pair_tokenizers(tmp_path / "ours", tokenizer, target)

    run("convert", "export", "marian", tmp_path / "ours", tmp_path / "marian")
    exported = MarianMTModel.from_pretrained(tmp_path / "marian")
    assert torch.equal(exported.lm_head.weight, model.lm_head.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "marian")("two dogs") == tokenizer("two dogs")
    beside = AutoTokenizer.from_pretrained(tmp_path / "marian/target_tokenizer")
    assert beside("zwei Hunde") == target("zwei Hunde")
    printed = run("convert", "import", "marian", tmp_path / "marian", tmp_path / "back")
    assert "TransformerForSeq2SeqLM with" in printed
    back = hfseq.TransformerForSeq2SeqLM.from_pretrained(tmp_path / "back")
    assert all(torch.equal(t, back.state_dict()[name]) for name, t in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "back")("two dogs") == tokenizer("two dogs")
