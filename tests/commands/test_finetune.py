"""`hfseq finetune` as a user runs it, with models of a few thousand weights."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    pipeline,
)

from hfseq import EncoderConfig, EncoderForMaskedLM, LSTMConfig, LSTMForCausalLM
from hfseq.commands import finetune as command
from hfseq.data import train_tokenizer
from hfseq.recipe import packaged_recipes
from hfseq.tasks import TASKS

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


def sentences(n: int, seed: int) -> list[str]:
    """Each of another length, so that batches have padding; some with an entity of two words."""
    draw = random.Random(seed)
    found = []
    for number in range(n):
        first, second = draw.sample(NAMES, 2)
        names = f"{first} {second}" if number % 3 == 0 else first
        found.append(f"{'so ' * draw.randrange(4)}{names} saw a {draw.choice(THINGS)} {number}")
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Pretrained models, ours and transformers', with a tokenizer of masked or of causal language models."""
    folder = tmp_path_factory.mktemp("models")
    corpus = [*(text for text, _ in texts(200, 0)), *sentences(100, 0)]
    masked = train_tokenizer(corpus, "bpe", 320, masked=True)
    causal = train_tokenizer(corpus, "bpe", 320)
    pad, end = causal.pad_token_id, causal.eos_token_id
    ids = {"vocab_size": 320, "pad_token_id": pad, "bos_token_id": end, "eos_token_id": end}
    sizes = {"vocab_size": 320, "pad_token_id": masked.pad_token_id, **SIZES}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "initializer_range": 0.3}
    torch.manual_seed(0)
    for name, model, tokenizer in (
        ("encoder", EncoderForMaskedLM(EncoderConfig(**sizes)), masked),
        ("bert", BertForMaskedLM(BertConfig(**sizes)), masked),
        ("lstm", LSTMForCausalLM(LSTMConfig(hidden_size=16, **ids)), causal),
        ("qwen", Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=2, intermediate_size=32, **small, **ids)), causal),
        ("gpt2", GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=48, initializer_range=0.3,
                                            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **ids)), causal),
    ):  # fmt: skip
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def write_files(n: int = 96) -> None:
    """The files of every task, in the working directory."""
    for side, count in (("train", n), ("test", 24)):
        rows, plain = texts(count, seed=len(side)), sentences(count, seed=len(side))
        Path(f"{side}.tsv").write_text("text\tlabel\n" + "".join(f"{t}\t{w}\n" for t, w in rows))
        Path(f"{side}-pairs.csv").write_text(
            "text,other,label\n"
            + "".join(f"{t},{w} or not,{len(w) + i % 2}\n" for i, (t, w) in enumerate(rows))
        )
        Path(f"{side}-several.jsonl").write_text(
            "\n".join(json.dumps({"text": t, "label": [w, *(n for n in NAMES if n in t)]}) for t, w in rows)
        )
        Path(f"{side}.conll").write_text(
            "\n".join("".join(f"{w}\t{tag}\n" for w, tag in tagged(t)) for t in plain)
        )
        qas = []
        for i, t in enumerate(plain):
            name = next(word for word in t.split() if word in NAMES)
            answers = [{"text": name, "answer_start": t.index(name)}]
            qas.append({"context": t, "qas": [{"id": str(i), "question": "Who?", "answers": answers}]})
        Path(f"{side}.json").write_text(json.dumps({"data": [{"paragraphs": qas}]}))
        Path(f"{side}-choices.jsonl").write_text(
            "\n".join(
                json.dumps({"question": t, "choices": ["good", "bad"], "label": int(w == "bad")})
                for t, w in rows
            )
        )


def tagged(text: str) -> list[tuple[str, str]]:
    words = text.split()
    return [
        (w, "O" if w not in NAMES else "I-person" if i and words[i - 1] in NAMES else "B-person")
        for i, w in enumerate(words)
    ]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with the files of every task."""
    monkeypatch.chdir(tmp_path)
    write_files()
    return tmp_path


@pytest.fixture
def finetune(models):
    """Calls the command; a first word that names a model becomes its folder."""

    def run(*words: str) -> dict:
        words = [str(models / words[0]) if (models / words[0]).is_dir() else words[0], *words[1:]]
        command.main([*words, *([] if "--output_dir" in words else ["--output_dir", "out"])])
        return json.loads(Path("out/finetune_summary.json").read_text())

    return run


def files(task: str, suffix: str) -> list[str]:
    return ["--task", task, "--train_file", f"train{suffix}", "--test_file", f"test{suffix}"]


CLASSIFY = files("sequence-classification", ".tsv")
TAG = files("token-classification", ".conll")


def predictions() -> list[dict]:
    return [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]


def spans_of_tags(words: list[str], tags: list[str]) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    position = 0
    for word, tag in zip(words, tags, strict=True):
        end = position + len(word)
        if tag.startswith("I-") and found and found[-1][1] == position - 1 and found[-1][2] == tag[2:]:
            found[-1] = (found[-1][0], end, tag[2:])
        elif tag != "O":
            found.append((position, end, tag[2:]))
        position = end + 1
    return found


def assert_the_pipeline_finds_what_is_in_predictions(facts: dict) -> None:
    """With the call that the card tells its user."""
    arguments = facts["pipeline_arguments"]
    (said,) = (line for line in Path("out/README.md").read_text().splitlines() if "= pipeline(" in line)
    assert f'aggregation_strategy="{arguments["aggregation_strategy"]}"' in said
    find = pipeline(facts["pipeline"], "out", device="cpu", **arguments)
    rows = predictions()
    for row in rows:
        entities = [(e["start"], e["end"], e["entity_group"]) for e in find(" ".join(row["words"]))]
        assert entities == spans_of_tags(row["words"], row["prediction"]), row["words"]
    assert any(row["prediction"] != ["O"] * len(row["words"]) for row in rows)


@pytest.mark.parametrize("model", ["encoder", "bert"])
def test_classification_learns_and_leaves_everything(finetune, model):
    facts = finetune(model, *CLASSIFY, *FAST, "--seeds", "3", "5", "--learning_rates", "0.00001", "0.01")
    scores = facts["scores"]["test"]["accuracy"]
    assert scores["mean"] > 0.9
    assert scores["runs"] == [run["test"]["accuracy"] for run in facts["runs"]] and len(facts["runs"]) == 2
    assert scores["std"] == pytest.approx(statistics.stdev(scores["runs"]))
    assert [trial["learning_rate"] for trial in facts["learning_rate_trials"]] == [0.00001, 0.01]
    assert facts["learning_rate"] == 0.01 and [run["seed"] for run in facts["runs"]] == [3, 5]
    assert facts["machine"]["torch"] and facts["command"].startswith("hfseq finetune")
    assert facts["drawn"] == "the head"
    found = {path.name for path in Path("out").iterdir()}
    assert found == {
        "README.md", "config.json", "model.safetensors", "finetune_summary.json", "predictions.jsonl", "recipe.yaml",
        "report.png", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    kept = next(run for run in facts["runs"] if run["seed"] == facts["kept_seed"])
    assert kept["validation"]["accuracy"] == max(run["validation"]["accuracy"] for run in facts["runs"])
    rows = predictions()
    right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert right == pytest.approx(kept["test"]["accuracy"]) and rows[0]["place"] == "test.tsv, line 2"
    # Evaluation while training saw its examples in their order too.
    assert kept["validation"]["accuracy"] == max(e["accuracy"] for e in kept["evaluations"])
    # What is saved is what was scored, and knows the names of its classes.
    answers = pipeline("text-classification", "out", device="cpu")(
        [row["text"] for row in rows], batch_size=7
    )
    assert [answer["label"] for answer in answers] == [row["prediction"] for row in rows]
    assert [answer["score"] for answer in answers] == pytest.approx(
        [row["probability"] for row in rows], abs=1e-5
    )
    assert "| 1e-05 | 3 |" in Path("out/README.md").read_text()


@pytest.mark.parametrize(
    ("model", "side", "words"),
    [
        ("encoder", "right", []),
        ("lstm", "left", ["--learning_rates", "0.03"]),
        ("lstm", "right", ["--learning_rates", "0.03", "--bidirectional", "true", "--from_scratch"]),
        ("qwen", "left", ["--num_train_epochs", "20"]),
        # It counts its absolute positions from the first column, padding or not: the other side is found.
        ("gpt2", "left", ["--num_train_epochs", "20"]),
    ],
)
def test_a_tagger_whatever_the_padding_side(finetune, models, model, side, words):
    pytest.importorskip("seqeval")
    tokenizer = AutoTokenizer.from_pretrained(models / model)
    tokenizer.padding_side = side
    tokenizer.save_pretrained("sided")
    facts = finetune(model, *TAG, *FAST, "--num_train_epochs", "12", *words, "--tokenizer", "sided")
    assert facts["scores"]["test"]["f1"]["mean"] > 0.8
    assert facts["classes"]["person"]["support"] == 24
    assert facts["labelled_pieces"] == ("all" if model == "lstm" and "true" not in words else "first")
    found = "right" if model == "gpt2" else side
    assert facts["padding_side"] == found == AutoTokenizer.from_pretrained("out").padding_side
    assert_the_pipeline_finds_what_is_in_predictions(facts)


@pytest.mark.parametrize(("model", "rate"), [("lstm", "0.03"), ("gpt2", "0.01"), ("encoder", "0.01")])
def test_the_pipeline_of_a_poor_tagger_finds_the_same(finetune, model, rate):
    """Where pieces of a word disagree, too."""
    pytest.importorskip("seqeval")
    facts = finetune(model, *TAG, *FAST, "--num_train_epochs", "3", "--learning_rates", rate)
    assert facts["scores"]["test"]["f1"]["mean"] < 0.95
    assert_the_pipeline_finds_what_is_in_predictions(facts)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("words", "metric", "at_least"),
    [
        ([*files("question-answering", ".json"), "--doc_stride", "4", "--num_train_epochs", "10"], "f1", 80),
        ([*files("regression", "-pairs.csv"), "--text_pair_column", "other"], "pearson", 0.3),
        ([*files("multi-label", "-several.jsonl"), "--num_train_epochs", "20"], "f1", 0.6),
        (files("multiple-choice", "-choices.jsonl"), "accuracy", 0.3),
    ],
    ids=["question answering", "regression of pairs", "multi-label", "multiple choice"],
)
def test_other_tasks(finetune, models, words, metric, at_least, side):
    if side == "left" and words[1] in ("regression", "multi-label"):
        pytest.skip("as classification, which gpt2 shows")
    tokenizer = AutoTokenizer.from_pretrained(models / "encoder")
    tokenizer.padding_side = side
    tokenizer.save_pretrained("sided")
    facts = finetune("encoder", *FAST, *words, "--tokenizer", "sided")
    assert facts["metric"] == metric and facts["scores"]["test"][metric]["mean"] > at_least
    assert len(predictions()) == 24


def test_pairs_of_a_language_model_have_its_end_between_them(finetune):
    words = ["--text_pair_column", "other", "--num_train_epochs", "0.1"]
    facts = finetune("gpt2", *FAST, *files("regression", "-pairs.csv"), *words)
    assert facts["model_class"] == "GPT2ForSequenceClassification" and facts["padding_side"] == "right"


def test_ulmfit(finetune):
    words = [
        "--layer_learning_rate_decay",
        "0.5",
        "--gradual_unfreezing",
        "0.5",
        "--classifier_pooling",
        "concat",
    ]
    words += ["--lr_scheduler_type", "slanted_triangular", "--lr_scheduler_kwargs", "{cut_fraction: 0.2}"]
    facts = finetune("lstm", *CLASSIFY, *FAST, "--learning_rates", "0.05", *words)
    assert facts["model_class"] == "LSTMForSequenceClassification" and facts["initialization"] == "pretrained"
    assert facts["scores"]["test"]["accuracy"]["mean"] > 0.9
    said = facts["training_arguments"]
    assert (said["layer_learning_rate_decay"], said["gradual_unfreezing"]) == (0.5, 0.5)
    assert said["lr_scheduler_type"] == "slanted_triangular"
    answer = pipeline("text-classification", "out", device="cpu")("Ann saw a good film 3")[0]
    assert answer["label"] == "good"


def test_from_scratch_has_the_shape_but_not_the_weights(finetune, models):
    words = [*CLASSIFY, "--learning_rates", "1e-12", "--num_train_epochs", "0.1"]
    pretrained = AutoModelForSequenceClassification.from_pretrained(models / "encoder").model.state_dict()
    facts = finetune("encoder", *words, "--hidden_dropout_prob", "0.2")
    loaded = AutoModelForSequenceClassification.from_pretrained("out")
    name = next(key for key in pretrained if "embed" in key)
    assert torch.allclose(loaded.model.state_dict()[name], pretrained[name], atol=1e-6)
    assert loaded.config.hidden_dropout_prob == 0.2 and facts["initialization"] == "pretrained"
    scratch = finetune("encoder", *words, "--from_scratch", "--overwrite")
    fresh = AutoModelForSequenceClassification.from_pretrained("out").model.state_dict()[name]
    assert not torch.allclose(fresh, pretrained[name], atol=1e-3)
    assert scratch["parameters"] == facts["parameters"]


def test_a_head_for_other_classes_is_drawn_anew(finetune, models):
    words = ["--learning_rates", "1e-12", "--num_train_epochs", "0.1", "--batch_size", "32"]
    finetune("encoder", *CLASSIFY, *words)
    Path("out").rename("first")
    again = finetune("first", *CLASSIFY, *words)
    assert again["drawn"] == "nothing"
    first, kept = (
        AutoModelForSequenceClassification.from_pretrained(name).state_dict() for name in ("first", "out")
    )
    assert all(torch.allclose(first[name], kept[name], atol=1e-6) for name in first)
    for side in ("train", "test"):
        text = Path(f"{side}.tsv").read_text()
        Path(f"{side}.tsv").write_text(text.replace("\tgood", "\tpraise").replace("\tbad", "\tblame"))
    other = finetune("first", *CLASSIFY, *words, "--overwrite")
    assert other["drawn"] == "the head, whose classes were others (bad, good)"
    drawn = AutoModelForSequenceClassification.from_pretrained("out")
    assert drawn.config.id2label == {0: "blame", 1: "praise"}
    for name, tensor in drawn.state_dict().items():
        same = torch.allclose(first[name], tensor, atol=1e-6)
        assert same if name.startswith("model.") or "bias" in name or "norm" in name else not same, name
    # Another number of classes, another kind of label.
    assert (
        "whose classes were others"
        in finetune("first", *files("regression", "-pairs.csv"), *words, "--overwrite")["drawn"]
    )


def test_special_tokens_written_in_a_text_are_text(finetune):
    for side in ("train", "test"):
        text = Path(f"{side}.tsv").read_text()
        Path(f"{side}.tsv").write_text(text.replace("saw a", "saw[SEP]a"))
    words = ["--learning_rates", "0.01", "--num_train_epochs", "0.1"]
    finetune("encoder", *CLASSIFY, *words)
    tokenizer = AutoTokenizer.from_pretrained("out")
    assert tokenizer("saw[SEP]a")["input_ids"].count(tokenizer.sep_token_id) == 1
    finetune("encoder", *CLASSIFY, *words, "--special_tokens_in_text", "true", "--overwrite")
    tokenizer = AutoTokenizer.from_pretrained("out")
    assert tokenizer("saw[SEP]a")["input_ids"].count(tokenizer.sep_token_id) == 2


def test_baseline(finetune):
    pytest.importorskip("sklearn")
    facts = finetune("--baseline", "bag-of-words", *CLASSIFY)
    assert facts["scores"]["test"]["accuracy"]["mean"] == 1
    assert len(facts["regularization_trials"]) > 1 and Path("out/report.png").exists()


def test_truncation_is_said(finetune, capsys):
    facts = finetune(
        "encoder", *CLASSIFY, "--max_length", "6", "--learning_rates", "0.01", "--num_train_epochs", "0.1"
    )
    assert facts["encoding"]["test"]["examples_truncated"] == 24
    assert "24 examples truncated" in capsys.readouterr().out


def test_a_class_that_is_absent_on_the_test_side_is_noted(finetune, capsys):
    Path("test.tsv").write_text("text\tlabel\nAnn saw a good film 3\tgood\n")
    facts = finetune("encoder", *CLASSIFY, "--num_train_epochs", "0.1")
    note = "test.tsv: class 'bad' has no example on the test side"
    assert note in facts["warnings"][0] and note in capsys.readouterr().out
    assert note in Path("out/README.md").read_text()


# ---- what chooses


def fake_run(rate: float, seed: int, folder: Path, scores: dict) -> dict:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"rate": rate, "seed": seed}))
    return {
        "learning_rate": rate, "seed": seed, "diverged": False, "epochs": 1, "validation": scores, "test": scores,
        "model_class": "M", "parameters": 1, "drawn": "the head", "padding_side": "right", "folder": folder,
        "predictions": {"test": [{"prediction": ["O"] * len(text.split())} for text in sentences(24, 4)]},
    }  # fmt: skip


def test_the_tasks_own_metric_chooses_rates_and_seeds(finetune, monkeypatch):
    """Precision stands first among a tagger's scores and says another thing; so it is for questions."""
    pytest.importorskip("seqeval")
    scores = {
        (1.0, 7): {"precision": 0.9, "recall": 0.1, "f1": 0.2, "accuracy": 0.9},
        (2.0, 7): {"precision": 0.5, "recall": 0.4, "f1": 0.4, "accuracy": 0.8},
        (2.0, 8): {"precision": 0.4, "recall": 0.6, "f1": 0.5, "accuracy": 0.7},
        (2.0, 9): {"precision": 0.8, "recall": 0.3, "f1": float("nan"), "accuracy": 0.9},
    }

    def train_once(recipe, task, tokenizer, rows, rate, seed, output):
        return fake_run(rate, seed, output / f"run-{rate:g}-{seed}", scores[rate, seed])

    monkeypatch.setattr(command, "train_once", train_once)
    facts = finetune("encoder", *TAG, "--learning_rates", "1", "2", "--seeds", "7", "8", "9")
    assert facts["learning_rate"] == 2.0 and [run["seed"] for run in facts["runs"]] == [7, 8, 9]
    assert facts["kept_seed"] == 8
    assert json.loads(Path("out/config.json").read_text()) == {"rate": 2.0, "seed": 8}


def test_every_task_scores_by_the_metric_that_it_names():
    assert {name: task.metric for name, task in TASKS.items()} == {
        "sequence-classification": "accuracy",
        "multi-label": "f1",
        "regression": "pearson",
        "token-classification": "f1",
        "question-answering": "f1",
        "multiple-choice": "accuracy",
    }


# ---- recipes


def test_a_recipe_is_what_a_run_leaves_and_gives_the_same_again(finetune, models):
    recipe = {
        "data": {"train_file": "train.tsv", "test_file": "test.tsv"},
        "task": {"type": "sequence-classification"},
        "model": {"path": str(models / "encoder"), "hidden_dropout_prob": 0.1},
        "training": {"learning_rates": "1e-2", "num_train_epochs": 1, "batch_size": 16, "weight_decay": 0.1},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    facts = finetune("mine.yaml", "--batch_size", "8")
    assert facts["learning_rate"] == 0.01 and facts["training_arguments"]["batch_size"] == 8
    assert facts["training_arguments"]["weight_decay"] == 0.1
    left = yaml.safe_load(Path("out/recipe.yaml").read_text())
    assert set(left) == {"data", "task", "model", "training"} and left["model"]["hidden_dropout_prob"] == 0.1
    again = finetune("out/recipe.yaml", "--overwrite")
    for run in (*facts["runs"], *again["runs"]):
        del run["training_seconds"]
    assert facts["runs"] == again["runs"]


def test_packaged_recipes_fit_the_fields(models, monkeypatch):
    """Their models are not here: one of the same family stands in."""
    names = [n for n, path in packaged_recipes().items() if "task" in yaml.safe_load(path.read_text())]
    assert {"encoder-sst2", "encoder-wnut17", "lstm-sst2", "lstm-wnut17"} <= set(names)
    real = command.load_config
    monkeypatch.setattr(
        command, "load_config",
        lambda path, **options: real(models / ("lstm" if "lstm" in path else "encoder"), **options),
    )  # fmt: skip
    for name in names:
        assert command.is_recipe(name)
        recipe = command.load_recipe(*parsed(name))
        assert recipe.sections["model"].path.startswith("outputs/")
        assert recipe.sections["training"].seeds == [0, 1, 2]


def parsed(*words: str):
    import argparse

    parser = argparse.ArgumentParser(allow_abbrev=False)
    command.add_arguments(parser)
    return parser.parse_known_args(words)


def test_the_command_line_in_all_its_forms():
    words = ["--seeds", "0", "1", "--from_scratch", "--gradual_unfreezing", "--labels", "yes", "no", "--lr=3"]
    assert command.option_words(words) == [
        '--seeds=["0", "1"]', "--from_scratch=true", "--gradual_unfreezing=1.0", '--labels=["yes", "no"]', "--lr=3",
    ]  # fmt: skip
    assert command.option_words(["--gradual_unfreezing", "0.5", "--training.seeds", "3"]) == [
        "--gradual_unfreezing=0.5",
        '--training.seeds=["3"]',
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encoder", *CLASSIFY, "--max_length", "49"], "--max_length 49 is beyond the 48 positions"),
        (["encoder", *CLASSIFY, "--weight_decai", "0"], "--weight_decai. Did you mean 'weight_decay'"),
        (["encoder", *CLASSIFY, "--learning_rate", "1"], "is set here (learning_rates)"),
        (["encoder", *CLASSIFY, "--doc_stride", "1"], "that is a field of the task question-answering"),
        (["encoder", *CLASSIFY, "--text_column", "sentence"], "train.tsv, line 1: no column 'sentence'"),
        (["nowhere", *CLASSIFY], "Cannot load the config of nowhere"),
        (["encoder", "--dataset", "sst3"], "Did you mean 'sst2'"),
        (["encoder", "--task", "tagging", "--train_file", "train.tsv"], "unknown task 'tagging'"),
        (["encoder", "--train_file", "train.tsv"], "which task? Known: sequence-classification"),
        ([*CLASSIFY], "give a model (path), or --baseline"),
        (["encoder", *CLASSIFY, "--baseline", "bag-of-words"], "give a model or --baseline, not both"),
        (["encoder", *CLASSIFY, "--patience", "0"], "patience must be at least 1"),
        (["encoder", *CLASSIFY, "--seeds", "-1"], "seeds must be whole numbers from 0 to 4294967295, not -1"),
        (["encoder", *CLASSIFY, "--seeds", "one"], "seeds must be numbers, not 'one'"),
        (["encoder", *CLASSIFY, "--seeds", "0.5"], "seeds must be whole numbers"),
        (["encoder", *CLASSIFY, "--learning_rates", "-1e-3"], "learning_rates must be numbers above 0, not -0.001"),
        (["encoder", *CLASSIFY, "--learning_rates", "fast"], "learning_rates must be numbers, not 'fast'"),
        (["encoder", *CLASSIFY, "--learning_rates", "nan"], "learning_rates must be numbers"),
        (["encoder", *CLASSIFY, "--num_train_epochs", "0"], "num_train_epochs must be above 0"),
        (["encoder", *CLASSIFY, "--gradient_accumulation_steps", "0"], "gradient_accumulation_steps"),
        (["encoder", *CLASSIFY, "--weight_decay", "much"], "training.weight_decay must be a number, not 'much'"),
        (["encoder", *CLASSIFY, "--max_grad_norm", "-1"], "training.max_grad_norm must be 0 or more"),
        (["encoder", *CLASSIFY, "--fp16", "maybe"], "training.fp16 must be true or false, not 'maybe'"),
        (["encoder", *CLASSIFY, "--hidden_dropout_prob", "much"], "hidden_dropout_prob"),
        (
            ["encoder", *files("question-answering", ".json"), "--label_smoothing_factor", "0.1"],
            "--label_smoothing_factor means nothing to question-answering",
        ),
        (["encoder", *CLASSIFY, "--output_dir", "train.tsv/out"], "Name a directory"),
        (["lstm", *CLASSIFY, "--from_scratch", "--gradual_unfreezing"], "--from_scratch has none"),
        (["lstm", *CLASSIFY, "--gradual_unfreezing", "0"], "epochs per layer above 0, not 0"),
        (["lstm", *CLASSIFY, "--layer_learning_rate_decay", "2"], "above 0 and at most 1, not 2"),
        (["lstm", *CLASSIFY, "--lr_scheduler_type", "slanted"], "Did you mean 'slanted_triangular'"),
        (["lstm", *CLASSIFY, "--bidirectional", "true"], "Or leave out bidirectional, or train without"),
        (["lstm", *files("multiple-choice", "-choices.jsonl")], "which has no head for multiple-choice"),
        (["mine.yaml"], "No recipe 'mine.yaml'"),
    ],
)  # fmt: skip
def test_refused(finetune, capsys, words, message):
    with pytest.raises(SystemExit) as raised:
        finetune(*words)
    assert message in f"{raised.value} {capsys.readouterr().err}"
    assert not Path("out/model.safetensors").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: {k.replace("model.", "other."): v for k, v in w.items()}, "lacks model."),
        (
            lambda w: {k: v for k, v in w.items() if k != max(n for n in w if n[:6] == "model.")},
            "lacks model.",
        ),
        (lambda w: {k: v * float("nan") if "norm" in k else v for k, v in w.items()}, "not finite"),
    ],
    ids=["other names", "one missing", "not finite"],
)
def test_weights_must_be_whole_and_finite(finetune, models, capsys, damage, message):
    from safetensors.torch import load_file, save_file

    Path("damaged").mkdir()
    for file in (models / "encoder").iterdir():
        Path("damaged", file.name).write_bytes(file.read_bytes())
    weights = damage(load_file(models / "encoder/model.safetensors"))
    save_file(weights, "damaged/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit):
        finetune("damaged", *CLASSIFY, *FAST)
    said = capsys.readouterr().err
    assert "damaged/model.safetensors" in said and (message in said or "holds other." in said), said


def test_a_finished_run_is_not_overwritten_unasked(finetune, capsys):
    Path("out").mkdir()
    Path("out/finetune_summary.json").write_text("{}")
    with pytest.raises(SystemExit):
        finetune("encoder", *CLASSIFY)
    assert "holds a finished run: say --overwrite" in capsys.readouterr().err


def test_an_interrupted_comparison_goes_on_with_the_next_run(finetune, monkeypatch):
    original, begun = command.train_once, []

    def interrupted_at(number):
        def train_once(*arguments):
            begun.append(arguments[4:6])
            if len(begun) == number:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(command, "train_once", train_once)

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


def test_a_rate_that_diverges_is_a_trial_that_failed(finetune):
    words = [*CLASSIFY, "--num_train_epochs", "2", "--batch_size", "8", "--max_grad_norm", "0"]
    facts = finetune("encoder", *words, "--learning_rates", "1e30", "0.01", "--warmup_steps", "0")
    assert [trial["diverged"] for trial in facts["learning_rate_trials"]] == [True, False]
    assert "diverged" in Path("out/README.md").read_text()


@pytest.mark.parametrize("model", ["encoder", "bert"])
def test_gradient_accumulation_changes_nothing(finetune, model):
    """The stock class, too, whose loss ignores how many labels an update has."""
    pytest.importorskip("seqeval")
    # Adam would make much of the last digits of a gradient that is nearly zero.
    words = [*TAG, "--learning_rates", "0.3", "--num_train_epochs", "1", "--optim", "sgd"]
    whole = finetune(model, *words, "--batch_size", "16")
    parts = finetune(
        model, *words, "--batch_size", "4", "--gradient_accumulation_steps", "4", "--overwrite",
        "--per_device_eval_batch_size", "32",
    )  # fmt: skip
    for a, b in zip(whole["runs"][0]["evaluations"], parts["runs"][0]["evaluations"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_shared_out_weights_are_refused_before_anything_is_read(finetune, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SystemExit) as end:
        finetune("encoder", "--task", "sequence-classification", "--train_file", "nothing.tsv")
    assert end.value.code == 2
    assert "start it by DDP" in capsys.readouterr().err


@pytest.mark.long
def test_two_processes_give_the_numbers_of_one(finetune, models):
    """97 sentences in batches of 8: the last is of one sentence, of which one process has nothing."""
    pytest.importorskip("seqeval")
    write_files(97)
    words = [str(models / "encoder"), *TAG, *FAST, "--num_train_epochs", "2", "--evaluations_per_epoch", "2"]
    words += ["--validation_file", "test.conll", "--learning_rates", "0.1", "0.3", "--seeds", "3", "5"]
    words += ["--optim", "sgd"]  # Adam would make much of the last digits of a gradient that is nearly zero
    one = finetune(*words)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "hfseq",
         "finetune", *words, "--output_dir", "two", "--use_cpu", "true", "--ddp_backend", "gloo"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads(Path("two/finetune_summary.json").read_text())
    assert (one["learning_rate"], one["kept_seed"]) == (two["learning_rate"], two["kept_seed"])
    assert len(one["runs"]) == len(two["runs"]) == 2
    for a, b in zip(one["runs"], two["runs"], strict=True):
        assert a["updates"] == b["updates"] and a["best_update"] == b["best_update"]
        assert [e["loss"] for e in a["evaluations"]] == pytest.approx(
            [e["loss"] for e in b["evaluations"]], rel=1e-5
        )
        assert a["validation"] == pytest.approx(b["validation"]) and a["test"] == pytest.approx(b["test"])
    assert {path.name for path in Path("two").iterdir()} == {path.name for path in Path("out").iterdir()}
    assert Path("two/predictions.jsonl").read_text() == Path("out/predictions.jsonl").read_text()
    assert done.stdout.count("written to two") == 1
