"""scripts/finetune.py as a user runs it, with models of a few thousand weights."""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM, pipeline

from hfseq import EncoderConfig, EncoderForMaskedLM, LSTMConfig, LSTMForCausalLM
from hfseq.data import train_tokenizer

ROOT = Path(__file__).parents[2]
NAMES = ["Ann", "Bob", "Carl", "Dora"]
THINGS = ["film", "book", "play", "song"]
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.3,  # attention of such small models is flat at 0.02, and they learn nothing in a second
}  # fmt: skip
FAST = ["--learning_rates", "0.01", "--num_train_epochs", "6", "--batch_size", "8"]


def texts(n: int, seed: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [
        (f"{draw.choice(NAMES)} saw a {word} {draw.choice(THINGS)} {number}", word)
        for number, word in ((number, draw.choice(["good", "bad"])) for number in range(n))
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Pretrained models (two of ours and one of transformers') with one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer([text for text, _ in texts(200, 0)], "bpe", 320, masked=True)
    sizes = {"vocab_size": 320, "pad_token_id": tokenizer.pad_token_id, **SIZES}
    pad = sizes["pad_token_id"]
    torch.manual_seed(0)
    for name, model in (
        ("encoder", EncoderForMaskedLM(EncoderConfig(**sizes))),
        ("bert", BertForMaskedLM(BertConfig(**sizes))),
        ("lstm", LSTMForCausalLM(LSTMConfig(vocab_size=320, hidden_size=16, pad_token_id=pad))),
    ):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the files of every task."""
    monkeypatch.chdir(tmp_path)
    for side, n in (("train", 96), ("test", 24)):
        rows = texts(n, seed=len(side))
        Path(f"{side}.tsv").write_text("text\tlabel\n" + "".join(f"{t}\t{w}\n" for t, w in rows))
        Path(f"{side}-pairs.csv").write_text(
            "text,other,label\n"
            + "".join(f"{t},{w} or not,{len(w) + i % 2}\n" for i, (t, w) in enumerate(rows))
        )
        Path(f"{side}-several.jsonl").write_text(
            "\n".join(json.dumps({"text": t, "label": [w, *(n for n in NAMES if n in t)]}) for t, w in rows)
        )
        Path(f"{side}.conll").write_text(
            "\n".join(
                "".join(f"{w}\t{'B-person' if w in NAMES else 'O'}\n" for w in t.split()) for t, _ in rows
            )
        )
        qas = [
            {"id": str(i), "question": "Who?", "answers": [{"text": t.split()[0], "answer_start": 0}]}
            for i, (t, _) in enumerate(rows)
        ]
        qas = [{"context": t, "qas": [entry]} for (t, _), entry in zip(rows, qas, strict=True)]
        Path(f"{side}.json").write_text(json.dumps({"data": [{"paragraphs": qas}]}))
        Path(f"{side}-choices.jsonl").write_text(
            "\n".join(
                json.dumps({"question": t, "choices": ["good", "bad"], "label": int(w == "bad")})
                for t, w in rows
            )
        )
    return tmp_path


@pytest.fixture
def finetune(monkeypatch, models):
    """Calls the script's main; a first word that names a model becomes its folder."""
    spec = importlib.util.spec_from_file_location("finetune", ROOT / "scripts/finetune.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "finetune", module)
    spec.loader.exec_module(module)

    def run(*words: str) -> dict:
        words = [str(models / words[0]) if words[0] in ("encoder", "bert", "lstm") else words[0], *words[1:]]
        monkeypatch.setattr(
            sys,
            "argv",
            ["finetune.py", *words, *([] if "--output_dir" in words else ["--output_dir", "out"])],
        )
        module.main()
        return json.loads(Path("out/finetune_summary.json").read_text())

    return run


def files(task: str, suffix: str) -> list[str]:
    return ["--task", task, "--train_file", f"train{suffix}", "--test_file", f"test{suffix}"]


CLASSIFY = files("sequence-classification", ".tsv")


@pytest.mark.parametrize("model", ["encoder", "bert"])
def test_classification_learns_and_leaves_everything(folder, finetune, model, capsys):
    facts = finetune(model, *CLASSIFY, *FAST, "--seeds", "3", "5", "--learning_rates", "0.00001", "0.01")
    scores = facts["scores"]["test"]["accuracy"]
    assert scores["mean"] > 0.9
    assert scores["runs"] == [run["test"]["accuracy"] for run in facts["runs"]] and len(facts["runs"]) == 2
    assert scores["std"] == pytest.approx(statistics.stdev(scores["runs"]))
    assert [trial["learning_rate"] for trial in facts["learning_rate_trials"]] == [0.00001, 0.01]
    assert facts["learning_rate"] == 0.01 and [run["seed"] for run in facts["runs"]] == [3, 5]
    assert facts["machine"]["torch"] and facts["command"].startswith("python scripts/finetune.py")
    found = {path.name for path in Path("out").iterdir()}
    assert found == {
        "README.md", "config.json", "model.safetensors", "finetune_summary.json", "predictions.jsonl", "report.png",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    kept = next(run for run in facts["runs"] if run["seed"] == facts["kept_seed"])
    assert kept["validation"]["accuracy"] == max(run["validation"]["accuracy"] for run in facts["runs"])
    rows = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert right == pytest.approx(kept["test"]["accuracy"]) and rows[0]["place"] == "test.tsv, line 2"
    # Evaluation while training saw its examples in their order too.
    assert kept["validation"]["accuracy"] == max(e["accuracy"] for e in kept["evaluations"])
    # What is saved is what was scored, and knows the names of its classes.
    answers = pipeline("text-classification", "out", device="cpu")([row["text"] for row in rows])
    assert [answer["label"] for answer in answers] == [row["prediction"] for row in rows]
    assert [answer["score"] for answer in answers] == pytest.approx(
        [row["probability"] for row in rows], abs=1e-5
    )
    assert "| 1e-05 | 3 |" in Path("out/README.md").read_text()


def test_tagging(folder, finetune):
    pytest.importorskip("seqeval")
    facts = finetune("encoder", *files("token-classification", ".conll"), *FAST)
    assert facts["scores"]["test"]["f1"]["mean"] > 0.9
    assert facts["classes"]["person"]["support"] == 24 and facts["labelled_pieces"] == "first"
    entities = pipeline("token-classification", "out", aggregation_strategy="first", device="cpu")(
        "Bob saw a good film 3"
    )
    assert [(e["word"].strip(), e["entity_group"]) for e in entities] == [("Bob", "person")]


@pytest.mark.parametrize(
    ("words", "metric", "at_least"),
    [
        ([*files("regression", "-pairs.csv"), "--text_pair_column", "other"], "pearson", 0.3),
        ([*files("multi-label", "-several.jsonl"), "--num_train_epochs", "20"], "f1", 0.6),
        ([*files("question-answering", ".json"), "--doc_stride", "4"], "f1", 50),
        (files("multiple-choice", "-choices.jsonl"), "accuracy", 0.3),
    ],
    ids=["regression of pairs", "multi-label", "question answering", "multiple choice"],
)
def test_other_tasks(folder, finetune, words, metric, at_least):
    facts = finetune("encoder", *FAST, *words)
    assert facts["scores"]["test"][metric]["mean"] > at_least
    assert len(Path("out/predictions.jsonl").read_text().splitlines()) == 24


def test_a_language_model_becomes_a_classifier_layer_by_layer(folder, finetune):
    ulmfit = [
        "--layer_learning_rate_decay",
        "0.5",
        "--gradual_unfreezing",
        "0.5",
        "--classifier_pooling",
        "concat",
    ]
    facts = finetune("lstm", *CLASSIFY, *FAST, "--learning_rates", "0.03", *ulmfit)
    assert facts["model_class"] == "LSTMForSequenceClassification" and facts["initialization"] == "pretrained"
    assert facts["scores"]["test"]["accuracy"]["mean"] > 0.9
    said = facts["training_arguments"]
    assert (said["layer_learning_rate_decay"], said["gradual_unfreezing"]) == (0.5, 0.5)
    answer = pipeline("text-classification", "out", device="cpu")("Ann saw a good film 3")[0]
    assert answer["label"] == "good"


@pytest.mark.parametrize(
    ("words", "labelled", "strategy"),
    [(["--from_scratch", "--bidirectional", "true"], "first", "first"), ([], "all", "average")],
    ids=["both ways", "one way"],
)
def test_a_recurrent_tagger(folder, finetune, words, labelled, strategy):
    """One that reads one way is asked for a tag when it has read the whole word."""
    pytest.importorskip("seqeval")
    facts = finetune(
        "lstm", *files("token-classification", ".conll"), *FAST, *words, "--learning_rates", "0.03"
    )
    assert facts["scores"]["test"]["f1"]["mean"] > 0.9 and facts["labelled_pieces"] == labelled
    assert f'aggregation_strategy="{strategy}"' in Path("out/README.md").read_text()
    entities = pipeline("token-classification", "out", aggregation_strategy=strategy, device="cpu")
    assert [e["word"].strip() for e in entities("Bob saw a good film 3")] == ["Bob"]


def test_from_scratch_has_the_shape_but_not_the_weights(folder, finetune, models):
    words = [*CLASSIFY, "--learning_rates", "1e-12", "--num_train_epochs", "0.1"]
    pretrained = AutoModelForSequenceClassification.from_pretrained(models / "encoder").model.state_dict()
    facts = finetune("encoder", *words, "--hidden_dropout_prob", "0.2")
    loaded = AutoModelForSequenceClassification.from_pretrained("out")
    name = "embeddings.word_embeddings.weight"
    name = next(key for key in pretrained if "embed" in key) if name not in pretrained else name
    assert torch.allclose(loaded.model.state_dict()[name], pretrained[name], atol=1e-6)
    assert loaded.config.hidden_dropout_prob == 0.2 and facts["initialization"] == "pretrained"
    scratch = finetune("encoder", *words, "--from_scratch", "--overwrite")
    fresh = AutoModelForSequenceClassification.from_pretrained("out").model.state_dict()[name]
    assert (
        not torch.allclose(fresh, pretrained[name], atol=1e-3)
        and scratch["parameters"] == facts["parameters"]
    )


def test_baseline(folder, finetune):
    pytest.importorskip("sklearn")
    facts = finetune("--baseline", "bag-of-words", *CLASSIFY)
    assert facts["scores"]["test"]["accuracy"]["mean"] == 1
    assert len(facts["regularization_trials"]) > 1 and Path("out/report.png").exists()


def test_truncation_is_said(folder, finetune, capsys):
    facts = finetune(
        "encoder", *CLASSIFY, "--max_length", "6", "--learning_rates", "0.01", "--num_train_epochs", "0.1"
    )
    assert facts["encoding"]["test"]["examples_truncated"] == 24
    assert "24 examples truncated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encoder", *CLASSIFY, "--max_length", "49"], "--max_length 49 is beyond the 48 positions"),
        (
            ["encoder", *CLASSIFY, "--weight_decai", "0"],
            "Unknown option --weight_decai. Did you mean weight_decay",
        ),
        (["encoder", *CLASSIFY, "--learning_rate", "1"], "--learning_rate is set by the script"),
        (["encoder", *CLASSIFY, "--text_column", "sentence"], "train.tsv, line 2: no column 'sentence'"),
        (["nowhere", *CLASSIFY], "Cannot load config and tokenizer of nowhere"),
        (["encoder", "--dataset", "sst3"], "Did you mean 'sst2'"),
        ([*CLASSIFY], "give a model, or --baseline"),
        (["encoder", *CLASSIFY, "--baseline", "bag-of-words"], "give a model or --baseline, not both"),
        (["encoder", *CLASSIFY, "--patience", "0"], "must be at least 1"),
        (["lstm", *CLASSIFY, "--from_scratch", "--gradual_unfreezing"], "--from_scratch has none"),
        (["lstm", *CLASSIFY, "--gradual_unfreezing", "0"], "epochs per layer above 0, not 0.0"),
        (["lstm", *CLASSIFY, "--layer_learning_rate_decay", "2"], "above 0 and at most 1, not 2.0"),
        (
            ["lstm", *CLASSIFY, "--bidirectional", "true"],
            "l1 as [64, 16], but the model that was asked for has [64, 32]",
        ),
    ],
)
def test_refused(folder, finetune, capsys, words, message):
    with pytest.raises(SystemExit) as raised:
        finetune(*words)
    assert message in f"{raised.value} {capsys.readouterr().err}"
    assert not Path("out/model.safetensors").exists()


def test_a_checkpoint_of_another_shape_is_no_model_from_scratch(folder, finetune, models):
    from safetensors.torch import load_file, save_file

    weights = {
        name.replace("model.", "other."): w
        for name, w in load_file(models / "encoder/model.safetensors").items()
    }
    for file in (models / "encoder").iterdir():
        Path("renamed").mkdir(exist_ok=True)
        Path("renamed", file.name).write_bytes(file.read_bytes())
    save_file(weights, "renamed/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit, match=r"renamed lacks \d+ of the \d+ weights of the body"):
        finetune("renamed", *CLASSIFY, *FAST)


def test_a_finished_run_is_not_overwritten_unasked(folder, finetune):
    Path("out").mkdir()
    Path("out/finetune_summary.json").write_text("{}")
    with pytest.raises(SystemExit, match="holds a finished run: say --overwrite"):
        finetune("encoder", *CLASSIFY)


def test_an_interrupted_comparison_goes_on_with_the_next_run(folder, finetune, monkeypatch):
    module = sys.modules["finetune"]
    original, begun = module.train_once, []

    def interrupted_at(number):
        def train_once(*arguments):
            begun.append(arguments[6:8])
            if len(begun) == number:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(module, "train_once", train_once)

    words = ["encoder", *CLASSIFY, "--num_train_epochs", "1", "--batch_size", "32", "--seeds", "3", "5"]
    words += ["--learning_rates", "0.01", "0.00001"]
    interrupted_at(3)
    with pytest.raises(KeyboardInterrupt):
        finetune(*words)
    assert begun == [(0.01, 3), (0.00001, 3), (0.01, 5)]
    begun.clear()
    interrupted_at(None)
    facts = finetune(*words)
    assert begun == [(0.01, 5)] and not Path("out/finetune_progress.json").exists()
    whole = finetune(*words, "--overwrite")
    assert begun == [(0.01, 5), (0.01, 3), (0.00001, 3), (0.01, 5)]
    for run in (*facts["runs"], *whole["runs"]):
        del run["training_seconds"]
    assert facts["runs"] == whole["runs"] and facts["kept_seed"] == whole["kept_seed"]
    assert facts["learning_rate_trials"] == whole["learning_rate_trials"]
    # Other settings are another comparison.
    begun.clear()
    interrupted_at(2)
    with pytest.raises(KeyboardInterrupt):
        finetune(*words, "--overwrite")
    begun.clear()
    interrupted_at(1)
    with pytest.raises(KeyboardInterrupt):
        finetune(*words, "--weight_decay", "0.1")
    assert begun == [(0.01, 3)]


def test_a_rate_that_diverges_is_a_trial_that_failed(folder, finetune):
    words = [*CLASSIFY, "--num_train_epochs", "2", "--batch_size", "8", "--max_grad_norm", "0"]
    facts = finetune("encoder", *words, "--learning_rates", "1e30", "0.01", "--warmup_steps", "0")
    assert [trial["diverged"] for trial in facts["learning_rate_trials"]] == [True, False]
    assert "diverged" in Path("out/README.md").read_text()
