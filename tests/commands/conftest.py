"""Commands in this process: their main() with a command line, and what they printed."""

from __future__ import annotations

import importlib
import io
import sys

import pytest
import torch

from hfseq import LSTMConfig, LSTMForCausalLM, data
from hfseq.__main__ import COMMANDS


@pytest.fixture
def run(monkeypatch, capsys):
    """run(name, *words, stdin=text or bytes) -> standard output; a mistake's SystemExit passes."""

    def call(name: str, *words: object, stdin: str | bytes = "") -> str:
        raw = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        capsys.readouterr()
        importlib.import_module(COMMANDS[name]).main([str(word) for word in words])
        return capsys.readouterr().out

    return call


@pytest.fixture
def refused(run, capsys):
    """refused(name, *words) -> the message with which the command ends, before any work, with exit code 2."""

    def call(name: str, *words: object, stdin: str | bytes = "") -> str:
        with pytest.raises(SystemExit) as raised:
            run(name, *words, stdin=stdin)
        assert raised.value.code == 2, raised.value
        return capsys.readouterr().err

    return call


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [f"In the year {n} the king went to the city of {n % 5} and came back." for n in range(40)]


@pytest.fixture(scope="session")
def language_model(texts, tmp_path_factory):
    """A tiny untrained LSTM with sharp weights, and a tokenizer of `texts`."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language_model")
    tokenizer = data.train_tokenizer(texts, "bpe", 300)
    config = LSTMConfig(embedding_size=8, hidden_size=8, **data.tokenizer_config_fields(tokenizer))
    model = LSTMForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    model.generation_config.suppress_tokens = data.surplus_ids(tokenizer, config.vocab_size)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
