"""scripts/generate.py and scripts/evaluate.py on a tiny untrained checkpoint."""

import importlib.util
import io
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from hfseq import LSTMConfig, LSTMForCausalLM, data

ROOT = Path(__file__).parents[2]
TEXT = [f"In the year {n} the king went to the city of {n % 5} and came back." for n in range(40)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = data.train_tokenizer(TEXT, "bpe", 300)
    config = LSTMConfig(embedding_size=8, hidden_size=8, **data.tokenizer_config_fields(tokenizer))
    model = LSTMForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    model.generation_config.suppress_tokens = data.surplus_ids(tokenizer, config.vocab_size)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    def call(script: str, *words: str, stdin: str = "") -> str:
        spec = importlib.util.spec_from_file_location(script, ROOT / "scripts" / f"{script}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        module.main()
        return capsys.readouterr().out

    return call


class TestGenerate:
    def test_prompt(self, run, checkpoint):
        assert run("generate", checkpoint, "--prompt", "In the year").startswith("In the year")

    def test_lines_keep_their_order_and_are_what_each_gives_alone(self, run, checkpoint):
        lines = ["In the year 3 the king", "and", "", "the city", "In the"]
        options = ["--do_sample", "false", "--max_new_tokens", "8", "--batch_size", "2"]
        together = run("generate", checkpoint, *options, stdin="\n".join(lines) + "\n")
        for line in lines:
            if line:
                assert run("generate", checkpoint, *options, "--prompt", line) in together
        starts = [together.index(line) for line in ("In the year 3", "the city")]
        assert starts == sorted(starts)

    def test_the_seed_decides(self, run, checkpoint):
        words = [checkpoint, "--prompt", "In", "--temperature", "2.0", "--seed"]
        assert run("generate", *words, "1") == run("generate", *words, "1") != run("generate", *words, "2")

    def test_bad_input(self, run, checkpoint, capsys):
        with pytest.raises(SystemExit):
            run("generate", checkpoint, stdin="")
        assert "nothing to continue" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            run("generate", checkpoint, "--prompt", "a", "--num_beams")
        assert "--option value pairs" in capsys.readouterr().err


class TestEvaluate:
    def test_scores_are_the_loss_over_the_whole_text(self, run, checkpoint, tmp_path):
        """Against one forward pass over the same text, each token once."""
        (tmp_path / "text.txt").write_text("\n\n".join(TEXT), encoding="utf-8")
        run(
            "evaluate",
            checkpoint,
            "--file",
            tmp_path / "text.txt",
            "--streams",
            1,
            "--output",
            tmp_path / "out.json",
        )
        scores = json.loads((tmp_path / "out.json").read_text())
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        ids = [tokenizer.eos_token_id]
        for document in TEXT:
            ids += [*tokenizer(document).input_ids, tokenizer.eos_token_id]
        model = LSTMForCausalLM.from_pretrained(checkpoint).eval()
        with torch.no_grad():
            loss = model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
        size = sum(len(document.encode()) for document in TEXT)
        assert scores["tokens"] == len(ids) - 1
        assert scores["bytes"] == size
        assert scores["loss"] == pytest.approx(loss, rel=1e-5)
        assert scores["bits_per_byte"] == pytest.approx(loss * (len(ids) - 1) / math.log(2) / size, rel=1e-5)

    def test_bad_input(self, run, checkpoint, capsys, tmp_path):
        with pytest.raises(SystemExit):
            run("evaluate", checkpoint, "--file", tmp_path / "missing.txt")
        assert "missing.txt" in capsys.readouterr().err
