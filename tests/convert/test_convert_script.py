"""scripts/convert.py: the command line around hfseq.convert."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import hfseq
from hfseq import convert


@pytest.fixture
def script(repository):
    spec = importlib.util.spec_from_file_location("convert_script", repository / "scripts/convert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_import_writes_a_checkpoint_with_its_tokenizer(script, tmp_path, capsys):
    spec = importlib.util.find_spec("textgenrnn")
    pytest.importorskip("h5py", reason="h5py is not installed: pip install 'hfseq[convert]'")
    if spec is None:
        pytest.skip("textgenrnn is not installed: pip install --no-deps textgenrnn==2.0.0")
    source = os.path.dirname(spec.origin)
    script.main(["import", "textgenrnn", source, str(tmp_path / "out")])
    assert "LSTMModel with" in capsys.readouterr().out
    loaded, original = AutoModel.from_pretrained(tmp_path / "out"), convert.import_model(source, "textgenrnn")
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in original.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "out").tokenize("a b") == ["a", " ", "b"]


def test_import_without_a_tokenizer_writes_the_model(script, formats, tiny_model, tmp_path):
    script.main(["import", "fake", "anywhere", str(tmp_path)])
    loaded = hfseq.LSTMForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, tiny_model.lm_head.weight)


def test_export_reads_the_checkpoint_with_its_head(script, formats, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "checkpoint")
    script.main(["export", "fake", str(tmp_path / "checkpoint"), str(tmp_path / "out")])
    ((model, directory),) = formats
    assert type(model) is hfseq.LSTMForCausalLM and directory == tmp_path / "out"


def test_nothing_is_overwritten_unasked(script, formats, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used/notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not empty: .*--overwrite"):
        script.main(["import", "fake", "anywhere", str(tmp_path / "used")])
    with pytest.raises(FileExistsError, match="is a file"):
        script.main(["import", "fake", "anywhere", str(tmp_path / "used/notes.txt")])
    script.main(["import", "fake", "anywhere", str(tmp_path / "used"), "--overwrite"])
    assert (tmp_path / "used/config.json").is_file() and (tmp_path / "used/notes.txt").read_text() == "mine"


def test_unknown_formats_and_missing_files_write_nothing(script, tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'textgenrnn'"):
        script.main(["import", "textgenrn", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(FileNotFoundError, match=r"No textgenrnn_weights\.hdf5 in"):
        script.main(["import", "textgenrnn", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(FileNotFoundError, match=r"No checkpoint in .*nowhere: it has no config\.json"):
        script.main(["export", "textgenrnn", str(tmp_path / "nowhere"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_errors_are_one_line(repository, tmp_path, monkeypatch):
    arguments = ["export", "textgenrnn", str(tmp_path / "nowhere"), str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["convert.py", *arguments])
    with pytest.raises(SystemExit, match=r"^convert\.py: No checkpoint in .*nowhere"):
        runpy.run_path(str(repository / "scripts/convert.py"), run_name="__main__")


def test_marian_there_and_back_with_its_tokenizer(script, tmp_path, capsys):
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

    script.main(["export", "marian", str(tmp_path / "ours"), str(tmp_path / "marian")])
    exported = MarianMTModel.from_pretrained(tmp_path / "marian")
    assert torch.equal(exported.lm_head.weight, model.lm_head.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "marian")("two dogs") == tokenizer("two dogs")
    beside = AutoTokenizer.from_pretrained(tmp_path / "marian/target_tokenizer")
    assert beside("zwei Hunde") == target("zwei Hunde")
    script.main(["import", "marian", str(tmp_path / "marian"), str(tmp_path / "back")])
    assert "TransformerForSeq2SeqLM with" in capsys.readouterr().out
    back = hfseq.TransformerForSeq2SeqLM.from_pretrained(tmp_path / "back")
    assert all(torch.equal(t, back.state_dict()[name]) for name, t in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "back")("two dogs") == tokenizer("two dogs")
