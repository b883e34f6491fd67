"""FSDP2 through the commands: trained, evaluated, averaged, saved, resumed and scored as by one process.

The model is really sharded (`forked_runs.py` says how): accelerate's `fully_shard`, over gloo, by two processes and by
four, told by `scripts/launch/fsdp2.yaml` or by TrainingArguments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.long

FULL = ["--fsdp", "true", "--fsdp_config", "{version: 2, state_dict_type: FULL_STATE_DICT}"]
COMMON = [
    "--corpus", "null", "--cache_dir", "cache", "--tokenizer.vocab_size", "300", "--use_cpu", "true",
    "--save_steps", "2", "--eval_steps", "2", "--logging_steps", "1", "--prompt", "null", "--num_train_epochs", "20",
    "--warmup_steps", "2", "--bf16", "false", "--torch_compile", "false",
]  # fmt: skip
# Muon and AdamW, the mean of two checkpoints against the last one.
TRANSLATION = [
    "pretrain", "transformer-multi30k-en-de", *COMMON, "--train_file", "[text.en,text.de]", "--validation_share", "0.1",
    "--test_share", "0.1", "--d_model", "16", "--encoder_layers", "1", "--decoder_layers", "1",
    "--encoder_attention_heads", "2", "--decoder_attention_heads", "2", "--encoder_ffn_dim", "32",
    "--decoder_ffn_dim", "32", "--dropout", "0", "--tokens_per_update", "512", "--num_beams", "2",
    "--translated_sentences", "5", "--optimizer", "muon", "--learning_rate", "0.05", "--max_steps", "8",
    "--average_checkpoints", "2",
]  # fmt: skip
# Carried states, Muon gate by gate; the best checkpoint is loaded at the end.
STREAMS = [
    "pretrain", "lstm-kjv", *COMMON, "--train_file", "text.txt", "--hidden_size", "16", "--embedding_size", "8",
    "--streams", "8", "--segment_length", "16", "--evaluation_streams", "4", "--input_dropout", "0",
    "--output_dropout", "0", "--optimizer", "muon", "--optimizer_arguments", "{split_gates: true}",
    "--max_steps", "4",
    "--load_best_model_at_end", "true", "--metric_for_best_model", "loss",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, repository):
    """Where all runs were made: by one process, by two that shard and are stopped, and by four that go on."""
    folder = tmp_path_factory.mktemp("sharded")
    kings = [f"And king {n} reigned {7 * n % 60} years in city {n % 9}." for n in range(300)]
    (folder / "text.txt").write_text("\n\n".join(kings), encoding="utf-8")
    (folder / "text.en").write_text("\n".join(kings), encoding="utf-8")
    german = "\n".join(f"er war der gute König von {('Ulm', 'Bonn', 'Kiel')[n % 3]}" for n in range(300))
    (folder / "text.de").write_text(german, encoding="utf-8")

    gloo = ["--ddp_backend", "gloo"]
    config = str(repository / "scripts/launch/fsdp2.yaml")
    sharded = [*TRANSLATION, *gloo, "--output_dir", "sharded"]
    groups = [
        {
            "processes": 1,
            "runs": [
                [*TRANSLATION, "--output_dir", "whole"],
                [*STREAMS, "--output_dir", "streams"],
            ],
        },
        {
            "processes": 2,
            "config": config,
            "sigterm_at": 3,
            "runs": [[*sharded, "--gradient_accumulation_steps", "2"]],
        },
        {
            "processes": 2,
            "runs": [
                sharded,
                [*STREAMS, *gloo, *FULL, "--output_dir", "streams-sharded"],
                [*TRANSLATION, *gloo, *FULL, "--optimizer", "ntasgd", "--output_dir", "refused"],
            ],
        },
        {"processes": 4, "config": config, "runs": [sharded]},
    ]
    (folder / "groups.json").write_text(json.dumps(groups), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(repository / "tests/commands/forked_runs.py"), "groups.json"],
        cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1800,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    (folder / "ends.json").write_text(
        json.dumps([json.loads(line) for line in done.stdout.splitlines()]), encoding="utf-8"
    )
    (folder / "log.txt").write_text(done.stderr, encoding="utf-8")
    return folder


def summary(folder: Path) -> dict:
    return json.loads((folder / "training_summary.json").read_text(encoding="utf-8"))


def test_how_they_ended(folder):
    whole, stopped, (unsharded, streams, ntasgd), resumed = json.loads((folder / "ends.json").read_text())
    assert (whole, stopped, streams, resumed) == ([None] * 2, [75], None, [None])
    log = (folder / "log.txt").read_text()
    assert unsharded == ntasgd == 2
    assert "checkpoint-3 was saved under FSDP, and this run is under DDP or one process" in log
    assert "optimizer ntasgd does not go with FSDP" in log
    assert "Going on from sharded/checkpoint-3" in log


def test_trained_stopped_and_resumed_by_more_processes(folder):
    """Losses, BLEU of every evaluation, the mean of checkpoints and the final scores are those of one process."""
    one, many = summary(folder / "whole"), summary(folder / "sharded")
    assert many["model_class"] == "TransformerForSeq2SeqLM" and many["parameters"] == one["parameters"]
    assert many["updates"] == 8 and [e["step"] for e in many["evaluations"]] == [2, 4, 6, 8]
    for a, b in zip(one["evaluations"], many["evaluations"], strict=True):
        assert b == pytest.approx(a, rel=1e-3)
    assert many["evaluations"][-1]["eval_bleu"] > 0
    assert many["averaging"]["kept"] == one["averaging"]["kept"]
    assert many["averaging"]["checkpoints"] == [6, 8]
    for scores in ("last", "average"):
        a, b = (run["averaging"]["validation"][scores] for run in (one, many))
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert b["chrf"] == pytest.approx(a["chrf"], rel=1e-2) and b["chrf"] > 1
    assert many["scores"]["test"]["loss"] == pytest.approx(one["scores"]["test"]["loss"], rel=1e-4)


def test_weights_are_saved_whole(folder):
    for output, like in (("sharded", "whole"), ("streams-sharded", "streams")):
        one, many = (load_file(folder / name / "model.safetensors") for name in (like, output))
        assert one.keys() == many.keys()
        for name, weight in one.items():
            # A key's bias moves all scores of a query alike: its gradient is zero but for rounding, whose sign Adam
            # makes whole steps of.
            if not name.endswith("k_proj.bias"):
                torch.testing.assert_close(
                    many[name], weight, rtol=0, atol=5e-3, msg=lambda m, n=name: f"{n}: {m}"
                )
        config = json.loads((folder / output / "config.json").read_text())
        assert (
            config["architectures"]
            == json.loads((folder / like / "config.json").read_text())["architectures"]
        )
    checkpoint = folder / "sharded/checkpoint-8"
    assert {"model.safetensors", "config.json", "tokenizer.json", "complete.json"} <= {
        path.name for path in checkpoint.iterdir()
    }
    listed = json.loads((checkpoint / "complete.json").read_text())["checksums"]
    assert any(name.startswith("pytorch_model_fsdp_0/") for name in listed)
    assert len([name for name in listed if name.startswith("rng_state_")]) == 4


def test_carried_states_and_the_best_checkpoint(folder):
    one, many = summary(folder / "streams"), summary(folder / "streams-sharded")
    for a, b in zip(one["evaluations"], many["evaluations"], strict=True):
        assert b["eval_loss"] == pytest.approx(a["eval_loss"], rel=1e-5)
    for side in one["scores"]:
        assert many["scores"][side]["loss"] == pytest.approx(one["scores"][side]["loss"], rel=1e-5)
