"""Export with code, model cards, push: what a stranger without hfseq gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

import hfseq
from hfseq import cards, hub
from hfseq.cards.results import deployed
from hfseq.objectives.causal import Causal

WORDS = [
    "<pad>",
    "<eos>",
    "<unk>",
    *["in", "the", "beginning", "god", "created", "heaven", "and", "earth", "was", "without", "form", "void"],
]
TEXT = "in the beginning god created the heaven and the earth"


def make_tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
    )


def make_model(family: str = "LSTM", head: str = "ForCausalLM"):
    """A tiny model with sharp random weights, so that no two tokens are about equally likely."""
    torch.manual_seed(0)
    config = getattr(hfseq, f"{family}Config")(
        vocab_size=len(WORDS), embedding_size=12, hidden_size=16, num_hidden_layers=2, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = getattr(hfseq, f"{family}{head}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6)
    return model


# --------------------------------------------------------------------------------- without hfseq, in a clean process

CLEAN_PROCESS = """
import json, os, sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hfseq":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)


sys.meta_path.insert(0, Blocker())
try:
    import hfseq
except ModuleNotFoundError:
    pass
else:
    sys.exit("hfseq can be imported: the test proves nothing")

import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Trainer, TrainingArguments
)

CODE = dict(trust_remote_code=True)


# One step at rate 0 through the stock Trainer: what it logs is the smoothed loss of these rows as they are.
def loss_of_trainer(model, ids, smoothing, directory):
    args = TrainingArguments(
        output_dir=directory, max_steps=1, per_device_train_batch_size=2, learning_rate=0.0, logging_steps=1,
        label_smoothing_factor=smoothing, use_cpu=True, save_strategy="no", disable_tqdm=True,
    )
    data = [{"input_ids": ids, "labels": ids}, {"input_ids": ids.flip(0), "labels": ids.flip(0)}]
    trainer = Trainer(model=model, args=args, train_dataset=data)
    trainer.train()
    return trainer.state.log_history[0]["loss"]


def examine(export, text, scratch):
    found = {}
    config = AutoConfig.from_pretrained(export, **CODE)
    tokenizer = AutoTokenizer.from_pretrained(export, **CODE)
    model = AutoModelForCausalLM.from_pretrained(export, **CODE)
    base = AutoModel.from_pretrained(export, **CODE)
    found["classes"] = [type(x).__name__ for x in (config, model, base)]
    found["modules"] = [type(x).__module__.split(".")[0] for x in (config, model, base)]
    found["eos_of_generation"] = GenerationConfig.from_pretrained(export).eos_token_id

    rows = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        logits = model(**rows).logits
        found["base_agrees"] = torch.equal(model.lm_head(base(**rows).last_hidden_state), logits)
    found["ids"] = rows["input_ids"].tolist()
    found["logits"] = logits.tolist()
    found["greedy"] = model.generate(**rows, max_new_tokens=8, do_sample=False).tolist()
    found["beams"] = model.generate(**rows, max_new_tokens=8, do_sample=False, num_beams=3).tolist()
    ids = rows["input_ids"][0]
    found["loss"] = loss_of_trainer(model, ids, 0.0, scratch)
    found["smoothed_loss"] = loss_of_trainer(model, ids, 0.2, scratch)

    # Fine-tuned there and saved by the ordinary way, it must still load, with every head.
    again = os.path.join(scratch, "again")
    model.save_pretrained(again)
    tokenizer.save_pretrained(again)
    model = AutoModelForCausalLM.from_pretrained(again, **CODE).eval()
    base = AutoModel.from_pretrained(again, **CODE).eval()
    with torch.no_grad():
        found["resaved_agrees"] = torch.equal(model(**rows).logits, logits)
        found["resaved_base_agrees"] = torch.equal(model.lm_head(base(**rows).last_hidden_state), logits)
    found["resaved_auto_map"] = json.load(open(os.path.join(again, "config.json")))["auto_map"]
    return found


text, *exports = sys.argv[1:]
found = {os.path.basename(path): examine(path, text, path + "-scratch") for path in exports}
json.dump(found, open("found.json", "w"))
"""


def run_clean(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Runs a script under `python -I` from another directory, without standard input, network or old remote code."""
    file = cwd / "clean_process.py"
    file.write_text(script)
    environment = os.environ | {
        "HF_MODULES_CACHE": str(cwd / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-I", str(file), *arguments],
        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def expected_loss(model, ids: torch.Tensor, smoothing: float) -> float:
    """By hand: every position is scored against the next token, smoothing spread evenly over the vocabulary."""
    rows = torch.stack([ids, ids.flip(0)])
    with torch.no_grad():
        logits = model(input_ids=rows).logits
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten(), label_smoothing=smoothing
    ).item()


FAMILIES = ("RNN", "GRU", "LSTM")


@pytest.fixture(scope="module")
def found_without_hfseq(tmp_path_factory) -> dict[str, dict]:
    """What one clean process found in the exports of all families (importing torch dominates its time)."""
    folder = tmp_path_factory.mktemp("without-hfseq")
    for family in FAMILIES:
        hub.export(make_model(family), folder / family, make_tokenizer())
    card = write_card(folder / "LSTM", make_facts(prompt="in the beginning"))
    code = card.read_text().split("```python\n")[1].split("```")[0]
    script = f"{CLEAN_PROCESS}print('-- card')\n{code}"
    done = run_clean(script, TEXT, *(str(folder / family) for family in FAMILIES), cwd=folder)
    found = json.loads((folder / "found.json").read_text())
    return {**found, "card's code": done.stdout.split("-- card\n")[1]}


@pytest.mark.parametrize("family", FAMILIES)
def test_export_works_where_hfseq_is_not_installed(family, found_without_hfseq):
    found, model, tokenizer = found_without_hfseq[family], make_model(family), make_tokenizer()
    assert found["classes"] == [f"{family}Config", f"{family}ForCausalLM", f"{family}Model"]
    assert set(found["modules"]) == {"transformers_modules"}
    assert found["eos_of_generation"] == 1
    rows = tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False)
    assert found["ids"] == rows["input_ids"].tolist()
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found["logits"]), model(**rows).logits)
    assert found["base_agrees"]
    greedy = model.generate(**rows, max_new_tokens=8, do_sample=False)
    assert found["greedy"] == greedy.tolist() and greedy.shape[1] > rows["input_ids"].shape[1]
    assert found["beams"] == model.generate(**rows, max_new_tokens=8, do_sample=False, num_beams=3).tolist()

    ids = rows["input_ids"][0]
    plain, smoothed = expected_loss(model, ids, 0.0), expected_loss(model, ids, 0.2)
    assert abs(plain - smoothed) > 2e-3
    assert found["loss"] == pytest.approx(plain, abs=1e-4)
    # Trainer shifts the labels only because the exported file enters its class names in transformers' table.
    assert found["smoothed_loss"] == pytest.approx(smoothed, abs=1e-4)

    assert found["resaved_agrees"] and found["resaved_base_agrees"]
    assert {"AutoConfig", "AutoModel", "AutoModelForCausalLM"} < set(found["resaved_auto_map"])


# ------------------------------------------------------------------------------------------------ export, in process


def code_files(directory: Path) -> set[str]:
    return {file.name for file in directory.glob("*.py")}


def test_export_names_every_head_and_brings_the_code(tmp_path):
    hub.export(make_model("GRU"), tmp_path, make_tokenizer())
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map == {
        "AutoConfig": "configuration_recurrent.GRUConfig",
        "AutoModel": "modeling_recurrent.GRUModel",
        "AutoModelForCausalLM": "modeling_recurrent.GRUForCausalLM",
        "AutoModelForSequenceClassification": "modeling_recurrent.GRUForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_recurrent.GRUForTokenClassification",
    }
    models_folder = Path(hfseq.__file__).parent / "models"
    for name in code_files(tmp_path):
        assert (tmp_path / name).read_bytes() == (models_folder / name).read_bytes()
    assert {"configuration_recurrent.py", "modeling_recurrent.py", "caches.py", "losses.py"} <= code_files(
        tmp_path
    )
    assert not list(tmp_path.glob(".export-*"))
    hub.check_export(tmp_path)


def test_a_base_model_is_exported_with_the_same_map(tmp_path):
    hub.export(make_model("LSTM", "Model"), tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModelForCausalLM"] == "modeling_recurrent.LSTMForCausalLM"
    assert type(hub.load_checkpoint(tmp_path)) is hfseq.LSTMModel


def test_a_head_that_the_config_does_not_allow_is_left_out(tmp_path):
    config = hfseq.LSTMConfig(vocab_size=20, embedding_size=6, hidden_size=8, bidirectional=True)
    hub.export(hfseq.LSTMForTokenClassification(config), tmp_path)
    heads = set(json.loads((tmp_path / "config.json").read_text())["auto_map"]) - {"AutoConfig"}
    assert heads == {"AutoModel", "AutoModelForSequenceClassification", "AutoModelForTokenClassification"}


def test_export_leaves_no_trace_in_model_or_class(tmp_path):
    model = make_model()
    hub.export(model, tmp_path / "export")
    assert getattr(model.config, "auto_map", None) is None
    assert model._auto_class is None and type(model.config)._auto_class is None
    model.save_pretrained(tmp_path / "ordinary")
    assert "auto_map" not in json.loads((tmp_path / "ordinary/config.json").read_text())
    assert code_files(tmp_path / "ordinary") == set()


def test_with_hfseq_the_local_class_loads_and_saves_without_a_broken_map(tmp_path):
    model = make_model()
    hub.export(model, tmp_path / "export", make_tokenizer())
    for auto_class in (AutoModelForCausalLM, AutoModel):
        loaded = auto_class.from_pretrained(tmp_path / "export", trust_remote_code=True)
        assert type(loaded).__module__ == "hfseq.models.modeling_recurrent"
        again = tmp_path / auto_class.__name__
        loaded.save_pretrained(again)
        assert "auto_map" not in json.loads((again / "config.json").read_text())
        assert type(auto_class.from_pretrained(again)) is type(loaded)
    # and an export of what an export gave is whole again
    hub.export(hub.load_checkpoint(tmp_path / "export"), tmp_path / "second", make_tokenizer())
    hub.check_export(tmp_path / "second")
    assert (tmp_path / "second/config.json").read_bytes() == (tmp_path / "export/config.json").read_bytes()
    restored = AutoModelForCausalLM.from_pretrained(tmp_path / "second").state_dict()
    assert all(torch.equal(tensor, restored[name]) for name, tensor in model.state_dict().items())


def test_export_into_a_directory_in_use_replaces_its_own_files_only(tmp_path):
    (tmp_path / "training_summary.json").write_text("{}")
    make_model("RNN").save_pretrained(tmp_path)
    hub.export(make_model("LSTM"), tmp_path)
    assert (tmp_path / "training_summary.json").read_text() == "{}"
    assert AutoConfig.from_pretrained(tmp_path).model_type == "hfseq_lstm"


def test_interrupted_export_leaves_nothing_that_loads(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub, "custom_object_save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        hub.export(make_model(), tmp_path / "export", make_tokenizer())
    assert list((tmp_path / "export").iterdir()) == []


def test_export_refuses_what_it_cannot_export(tmp_path):
    foreign = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=8, n_positions=8))
    with pytest.raises(TypeError, match=r"not GPT2LMHeadModel \(gpt2\)"):
        hub.export(foreign, tmp_path / "foreign")
    assert not (tmp_path / "foreign").exists()
    with pytest.raises(ValueError, match=r"tokenizer has 18 entries, the model only 15"):
        hub.export(make_model(), tmp_path / "words", make_tokenizer([*WORDS, "let", "there", "be"]))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="it is a file"):
        hub.export(make_model(), tmp_path / "file")


def test_load_checkpoint_refuses_strangers(tmp_path):
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=8, n_positions=8)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel \(gpt2\), which is none of hfseq's models"):
        hub.load_checkpoint(tmp_path)


# --------------------------------------------------------------------------------------------------------------- push


def test_push_creates_the_repository_and_uploads_the_export(tmp_path, fake_hub):
    hub.export(make_model(), tmp_path, make_tokenizer())
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10/optimizer.pt").write_bytes(b"")
    (tmp_path / ".secret").write_text("")
    assert hub.push(tmp_path, "tiny", private=True) == "https://huggingface.co/me/tiny/commit/0"
    assert fake_hub.calls[0] == ("create_repo", "tiny", {"private": True, "exist_ok": True})
    assert fake_hub.calls[1][:2] == ("upload_folder", "me/tiny")
    assert fake_hub.token == "hf_test"
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_recurrent.py"} <= set(
        fake_hub.files
    )
    assert not [name for name in fake_hub.files if name.startswith((".", "checkpoint"))]


def test_push_needs_a_token_and_a_whole_export(tmp_path, fake_hub, monkeypatch):
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        hub.push(tmp_path, "tiny")
    make_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no auto_map.*ordinary checkpoint"):
        hub.push(tmp_path, "tiny")
    hub.export(make_model(), tmp_path)
    (tmp_path / "modeling_recurrent.py").unlink()
    with pytest.raises(ValueError, match=r"modeling_recurrent\.py missing"):
        hub.push(tmp_path, "tiny")
    hub.export(make_model(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"\*\.safetensors missing"):
        hub.push(tmp_path, "tiny")
    hub.export(make_model(), tmp_path)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(PermissionError, match="hf auth login"):
        hub.push(tmp_path, "tiny")
    assert fake_hub.calls == []


# -------------------------------------------------------------------------------------------------------- model cards


def write_card(directory, facts):
    return cards.write_model_card(directory, facts, Causal.card)


def make_facts(*, corpus: str | None = "kjv", **changes) -> dict:
    """What scripts/pretrain.py writes to training_summary.json."""
    sizes = {"nll": 1.0, "tokens": 54321, "words": 40000, "bytes": 210000, "loss": 3.7}
    facts = {
        "recipe": "lstm-kjv",
        "command": "python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml --seed 3",
        "model_class": "LSTMForCausalLM",
        "parameters": 3456789,
        "vocabulary": 4096,
        "train_tokens": 1012345,
        "updates": 2345,
        "training_seconds": 251.3,
        "tokens_per_second": 12346,
        "scores": {
            "validation": sizes
            | {"perplexity_per_token": 41.237, "perplexity_per_word": 101.52, "bits_per_byte": 1.23456},
            "test": sizes
            | {"perplexity_per_token": 43.5, "perplexity_per_word": 104.125, "bits_per_byte": 1.25},
        },
        "baselines": [{"name": "interpolated Kneser-Ney, order 5", "test": {"bits_per_byte": 1.5432}}],
        "learning_rate_trials": [
            {"learning_rate": 0.002, "validation": 1.31},
            {"learning_rate": 0.004, "validation": 1.23456, "note": "chosen"},
        ],
        "machine": {"torch": "2.13.0", "processor": "some | processor", "gpu": None},
        "recipe_content": {
            "data": {"corpus": corpus},
            "model": {"model_type": "hfseq_lstm", "hidden_size": 512},
            "training": {"output_dir": Path("x")},
        },
        "prompt": "In the beginning",
        "continuation": "In the beginning was the Word,\nand the Word",
    }
    return facts | changes


def front_matter(card: Path) -> dict:
    return yaml.safe_load(card.read_text().split("---\n")[1])


def test_card_says_what_was_measured_and_how(tmp_path):
    (tmp_path / "loss_curve.png").write_bytes(b"png")
    card = write_card(tmp_path, make_facts(loss_curve="loss_curve.png"))
    assert card == tmp_path / "README.md" and [f.name for f in tmp_path.glob("*.part")] == []
    text = card.read_text()
    for line in (
        "python scripts/pretrain.py scripts/recipes/lstm-kjv.yaml --seed 3",
        "| test | **lstm-kjv** | 43.50 | 104.1 | 1.2500 |",
        "| test | interpolated Kneser-Ney, order 5 | - | - | 1.5432 |",
        "| validation | **lstm-kjv** | 41.24 | 101.5 | 1.2346 |",
        "| 0.002 | 1.31 | - |",
        "| 0.004 | 1.235 | chosen |",
        "| learning rate | validation | note |",
        "| test | 54,321 | 40,000 | 210,000 |",
        "| train tokens | 1,012,345 |",
        "| tokens per second | 12,346 |",
        "| processor | some \\| processor |",
        "3,456,789 parameters",
        "![training and validation loss](loss_curve.png)",
        "> **In the beginning** was the Word,\n> and the Word",
        "hidden_size: 512",
        "public domain",
    ):
        assert line in text, line
    # A baseline that was not measured on a split does not appear there.
    assert text.count("Kneser-Ney") == 1


def test_front_matter_is_what_the_hub_indexes(tmp_path):
    data = front_matter(write_card(tmp_path, make_facts()))
    assert (
        data["license"] == "apache-2.0"
        and data["language"] == "en"
        and data["library_name"] == "transformers"
    )
    assert data["pipeline_tag"] == "text-generation" and {"hfseq", "lstm"} <= set(data["tags"])
    assert "datasets" not in data  # a package is no data set of the Hub
    (index,) = data["model-index"]
    assert index["name"] == "lstm-kjv"
    measured = {
        (result["dataset"]["split"], metric["type"]): metric["value"]
        for result in index["results"]
        for metric in result["metrics"]
    }
    assert (
        measured["test", "bits_per_byte"] == 1.25 and measured["validation", "perplexity_per_token"] == 41.237
    )
    assert len(measured) == 6
    # and the Hub's own reader takes it
    assert len(huggingface_hub.ModelCard.load(tmp_path / "README.md").data.eval_results) == 6


@pytest.mark.parametrize(
    ("facts", "licence", "sentence"),
    [
        ({"corpus": "wiki"}, "cc-by-sa-4.0", "CC BY-SA 4.0"),
        ({"corpus": "imdb"}, "other", "no explicit licence"),
        ({"corpus": "org/books"}, None, "was not known"),
        ({"corpus": None}, None, "local text files"),
        (
            {"corpus": "org/books", "license": "mit", "terms": "By its authors.", "language": "fr"},
            "mit",
            "By its authors.",
        ),
    ],
)
def test_card_carries_the_licence_of_the_data(tmp_path, facts, licence, sentence):
    card = write_card(tmp_path, make_facts(**facts))
    data = front_matter(card)
    assert data.get("license") == licence and sentence in card.read_text()
    assert data.get("datasets") == (["org/books"] if "org/books" in facts.values() else None)
    assert data.get("language") == facts.get("language", "en" if facts["corpus"] in cards.CORPORA else None)


def test_card_shows_what_going_on_learning_gives(tmp_path):
    found = {**make_facts()["scores"]["test"], "bits_per_byte": 1.125}
    options = {"cache": {"size": 20, "theta": 10.0}, "dynamic": {"rate": 0.1}}
    adapted = {"options": options, "split": "test", "scores": found}
    text = write_card(tmp_path, make_facts(adapted=adapted)).read_text()
    assert "### Going on learning" in text and "| test | going on learning |" in text and "1.1250 |" in text
    assert "With a neural cache (Grave et al. 2017) and dynamic evaluation (Krause et al. 2018)" in text
    words = "--neural_cache size=20 theta=10.0 --dynamic_evaluation rate=0.1"
    assert f"hfseq evaluate DIRECTORY --split test {words}" in text


def test_card_of_a_mixture_tells_its_parts(tmp_path):
    parts = {
        "imdb": {"documents": 2000, "words": 5_000_000},
        "chitchat": {"documents": 10, "words": 1_250_000},
    }
    facts = make_facts(corpus="small-english", composition=parts, peak_memory_bytes=1_500_000_000)
    facts["recipe_content"]["data"]["corpus"] = "small-english"
    facts |= {"train_words": 1000, "train_tokens": 4000, "tokens_per_second": 800}
    card = write_card(tmp_path, facts)
    text = card.read_text()
    assert (
        "Training data: small-english, 6.25M words of all sides (IMDB film reviews 5.00M words in 2,000 doc"
        in text
    )
    assert "chit-chat data set 1.25M words in 10 documents)" in text
    assert "written by users of IMDB" in text and "chitchat-dataset (MIT)" in text
    assert "| words per second | 200 |" in text and "| peak memory | 1.50 GB, data and all |" in text
    assert front_matter(card)["license"] == "other"


def test_card_shows_grammar_beside_ngrams_and_published_systems(tmp_path):
    def judged(first: float, second: float) -> dict:
        return {
            "accuracy": (first + second) / 2,
            "by_phenomenon": {"island_effects": first, "binding": second},
        }

    found = {
        **judged(60.0, 70.25),
        "pairs": 2000,
        "ties": 7,
        "equal_pairs": 5,
        "accuracy_with_ties_right": 65.5,
        "method": "log-probability",
        "by_paradigm": {"p1": {}, "p2": {}},
        "published": {"5-gram": judged(40.0, 50.0)},
        "baselines": {"kneser-ney": judged(50.0, 55.0)},
    }
    text = write_card(tmp_path, make_facts(blimp=found)).read_text()
    assert (
        "### Grammar" in text and "**65.12%** of 2,000 minimal pairs" in text and "7 pairs are tied" in text
    )
    assert "| phenomenon | model | kneser-ney | 5-gram, published |" in text
    assert "| island effects | 60.0 | 50.0 | 40.0 |" in text
    assert "| **all paradigms** | **65.12** | **52.50** | **45.00** |" in text


def deployment_of(bits: float = 1.25) -> dict:
    forms = [
        {
            "form": "torch",
            "bytes": 10_000_000,
            "speeds": {"tokens/s": 12.5},
            "quality": {"bits_per_byte": bits},
        },
        {"form": "somebody else's", "speeds": {"tokens/s": 10.0}},
    ]
    return {"how": "Read aloud", "forms": forms, "cpu": "some processor", "threads": 1, "clock": "cpu"}


def test_card_shows_the_forms_that_the_model_is_served_in(tmp_path):
    text = write_card(tmp_path, make_facts(deployment=deployment_of())).read_text()
    assert "### Deployed" in text and "Read aloud; 1 thread of some processor" in text
    assert "| form | MB | tokens/s | bits per byte |" in text
    assert "| torch | 10 | 12.5 | 1.2500 |" in text and "| somebody else's | - | 10 | - |" in text


@pytest.mark.parametrize(("bits", "another"), [(1.2504, False), (1.26, True)])
def test_card_says_where_another_training_was_deployed(bits, another):
    text = deployed(deployment_of(bits), Causal.card, {"bits_per_byte": 1.25})
    assert ("another training by this recipe" in text) == another
    longer = deployed({**deployment_of(bits), "updates": 1200}, Causal.card, {"bits_per_byte": 1.25})
    assert ("another training by this recipe, 1,200 updates long" in longer) == another


def test_card_refuses_missing_facts_and_numbers_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="the facts lack command, scores"):
        write_card(tmp_path, {k: v for k, v in make_facts().items() if k not in ("command", "scores")})
    with pytest.raises(ValueError, match=r"scores\.test\.bits_per_byte = nan"):
        scores = make_facts()["scores"]["test"] | {"bits_per_byte": float("nan")}
        write_card(tmp_path, make_facts(scores={"test": scores}))
    with pytest.raises(ValueError, match=r"shows loss_curve\.png, which is not there"):
        write_card(tmp_path, make_facts(loss_curve="loss_curve.png"))
    assert not (tmp_path / "README.md").exists()


def test_the_code_on_the_card_runs_without_hfseq(found_without_hfseq):
    assert found_without_hfseq["card's code"].startswith("in the beginning")
