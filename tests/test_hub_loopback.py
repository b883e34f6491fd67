"""From this machine to the Hub and to a stranger, through the real client: every head of every family, the cards' code.

The Hub is tests/loopback_hub.py, on loopback. `hfseq push` runs in one process, as a user has it; another, in which
hfseq cannot be imported, loads what arrived by its repository's id.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import hfseq
from hfseq import cards
from hfseq.contracts.cases import sharpen
from hfseq.models import AUTO_CLASSES
from hfseq.objectives.causal import Causal
from hfseq.objectives.masked import Masked
from hfseq.objectives.translation import Translation
from hfseq.objectives.vector_to_text import VectorToText

pytestmark = pytest.mark.long

WORDS = ["<pad>", "<eos>", "<unk>", "<mask>", *(f"w{i}" for i in range(16))]
RECURRENT = {"embedding_size": 8, "hidden_size": 8}
BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
MARIAN = {
    "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "decoder_start_token_id": 1,
}  # fmt: skip
PERVASIVE = {"embedding_size": 4, "growth": 4, "num_hidden_layers": 2, "decoder_start_token_id": 1}
# What is pushed of each family; the other heads are found in the same repository.
PUSHED = {
    "rnn": (hfseq.RNNForSequenceClassification, RECURRENT),
    "gru": (hfseq.GRUForCausalLM, {**RECURRENT, "feature_size": 3}),
    "lstm": (hfseq.LSTMForCausalLM, RECURRENT),
    "rnn-seq2seq": (hfseq.RNNForSeq2SeqLM, {**RECURRENT, "decoder_start_token_id": 1}),
    "gru-seq2seq": (hfseq.GRUForSeq2SeqLM, {**RECURRENT, "decoder_start_token_id": 1}),
    "lstm-seq2seq": (hfseq.LSTMForSeq2SeqLM, {**RECURRENT, "decoder_start_token_id": 1}),
    "encoder": (hfseq.EncoderForMaskedLM, BERT),
    "transformer": (hfseq.TransformerForSeq2SeqLM, MARIAN),
    "pervasive": (hfseq.PervasiveForSeq2SeqLM, PERVASIVE),
}
CARDS = {"lstm": Causal, "gru": VectorToText, "encoder": Masked, "transformer": Translation}
METRICS = {
    "lstm": "bits_per_byte",
    "gru": "perplexity_per_token",
    "encoder": "accuracy",
    "transformer": "bleu",
}
PROMPTS = {"lstm": "w1 w2", "gru": "0.1 0.2 0.3", "encoder": "w1 <mask> w3", "transformer": "w1 w2 w3"}


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", mask_token="<mask>",
        padding_side="left", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def make_model(name: str, seed: int = 0):
    model_class, fields = PUSHED[name]
    special = {"pad_token_id": 0, "eos_token_id": 1}
    model = model_class(model_class.config_class(vocab_size=len(WORDS), **special, **fields))
    sharpen(model, 0.7, seed)
    return model.eval()


def write_run(directory: Path, name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """What a run leaves: an ordinary checkpoint, its tokenizer, summary and card. Returns an input and its output."""
    model = make_model(name, seed)
    model.save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    if name in CARDS:
        facts = {
            "recipe": name,
            "command": f"hfseq pretrain {directory.parent}/mine.yaml",
            "model_class": type(model).__name__,
            "parameters": model.num_parameters(),
            "scores": {"test": {METRICS[name]: 1.5}},
            "prompt": PROMPTS[name],
            "recipe_content": {
                "data": {"corpus": "multi30k" if name == "transformer" else None},
                "objective": {"type": CARDS[name].name},
                "model": {"model_type": model.config.model_type},
                "training": {"initialize_from": f"{directory.parent}/before"},
            },
        }
        (directory / "training_summary.json").write_text(json.dumps(facts))
        cards.write_model_card(directory, facts, CARDS[name].card)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[1, 9, 10]])
    if getattr(model.config, "feature_size", 0):
        inputs["features"] = torch.tensor([[0.1, -0.2, 0.3]])
    with torch.no_grad():
        return {**inputs, "logits": model(**inputs).logits}


LAPTOP = """
import contextlib, io, json, os, sys
import builtins
import huggingface_hub.constants
from hfseq.commands import push

def ask(question=""):
    raise RuntimeError(f"asked {question}")

builtins.input = ask
answers = []
for job in json.load(open(sys.argv[1])):
    os.environ["HF_TOKEN"] = job["token"]
    huggingface_hub.constants.ENDPOINT = job["endpoint"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            push.main(job["arguments"])
            code = 0
        except SystemExit as error:
            code = error.code
    answers.append({"code": code, "said": said.getvalue()})
json.dump(answers, open(sys.argv[2], "w"))
"""

STRANGER = """
import contextlib, io, json, sys, traceback
sys.modules["hfseq"] = None
try:
    import hfseq
except ImportError:
    pass
else:
    sys.exit("hfseq can be imported: the test proves nothing")
import torch, transformers
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

CODE = {"trust_remote_code": True}

def logits_agree(repository, tensors, **options):
    inputs = {name: value for name, value in tensors.items() if name != "logits"}
    config = transformers.AutoConfig.from_pretrained(repository, **CODE, **options)
    saved = config.architectures[0]
    (auto,) = (a for a, reference in config.auto_map.items() if reference.split(".")[-1] == saved)
    model = getattr(transformers, auto).from_pretrained(repository, **CODE, **options).eval()
    with torch.no_grad():
        return torch.allclose(model(**inputs).logits, tensors["logits"], atol=1e-6)

def run_card(repository, revision=None):
    card = open(hf_hub_download(repository, "README.md", revision=revision), encoding="utf-8").read()
    code = card.split("```python\\n")[1].split("```")[0]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "card", "exec"), {"__name__": "__main__"})
    return said.getvalue()

folder = sys.argv[1]
jobs = json.load(open(f"{folder}/stranger.json"))
found = {"heads": {}, "agree": {}, "cards": {}, "private": {}}
for name in jobs["families"]:
    tensors = load_file(f"{folder}/{name}.tensors")
    found["agree"][name] = logits_agree(f"me/{name}", tensors)
    config = transformers.AutoConfig.from_pretrained(f"me/{name}", **CODE)
    found["heads"][name] = {}
    for auto in config.auto_map:
        if auto != "AutoConfig":
            head = getattr(transformers, auto).from_pretrained(f"me/{name}", ignore_mismatched_sizes=True, **CODE)
            assert type(head).__module__.startswith("transformers_modules"), type(head).__module__
            found["heads"][name][auto] = type(head).__name__
for name in jobs["cards"]:
    found["cards"][name] = run_card(f"me/{name}")
first, second = (load_file(f"{folder}/{name}.tensors") for name in ("transformer", "longer"))
found["longer"] = logits_agree("me/transformer", second, revision="longer")
found["differ"] = not torch.allclose(first["logits"], second["logits"], atol=1e-2)
found["card of longer"] = run_card("me/transformer", "longer")
secret = load_file(f"{folder}/secret.tensors")
for token in ("hf_me", "hf_you", False):
    try:  # each on a machine of its own: what one has downloaded, another must not find
        found["private"][str(token)] = logits_agree("me/secret", secret, token=token, cache_dir=f"{folder}/of-{token}")
    except OSError as error:
        found["private"][str(token)] = f"{type(error).__name__}: {error}"
from huggingface_hub import snapshot_download
for options in ({}, {"local_dir": f"{folder}/deep/deeper/local"}):
    try:
        snapshot_download("you/evil", **options)
        found.setdefault("evil", []).append("downloaded")
    except Exception as error:
        found.setdefault("evil", []).append(f"{type(error).__name__}: {error}")
json.dump(found, open(f"{folder}/found.json", "w"))
"""
EVIL = "evil-file.txt"


def run_python(folder: Path, script: str, *arguments: str, isolated: bool, **environment: str) -> None:
    file = folder / f"script-{len(list(folder.glob('script-*')))}.py"
    file.write_text(script)
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1", **environment,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *(["-I"] if isolated else []), str(file), *arguments],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def hub(loopback_hub_class):
    with loopback_hub_class() as hub:
        hub.create("you/theirs", "you")
        hub.create("you/hidden", "you", private=True)
        hub.create("me/open", "me")
        hub.create("you/evil", "you")
        outside = {f"{'../' * n}{EVIL}": b"evil" for n in range(1, 7)}
        hub.put(
            "you/evil", {"config.json": b'{"model_type": "hfseq_lstm"}', f"sub/../../{EVIL}": b"x", **outside}
        )
        hub.drop_commits.add("me/resumed")
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("laptop")


@pytest.fixture(scope="module")
def answers(hub, folder) -> dict[str, dict]:
    """What `hfseq push` said to each job."""
    for name in PUSHED:
        save_file(write_run(folder / "runs" / name, name), folder / f"{name}.tensors")
    save_file(
        write_run(folder / "runs" / "longer" / "transformer", "transformer", 1), folder / "longer.tensors"
    )
    save_file(write_run(folder / "runs" / "secret", "rnn", 2), folder / "secret.tensors")
    foreign = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=8, n_positions=8))
    foreign.save_pretrained(folder / "runs" / "gpt2")
    coded = folder / "runs" / "coded"
    coded.mkdir()
    config = {"model_type": "strange", "auto_map": {"AutoConfig": "code.StrangeConfig"}}
    (coded / "config.json").write_text(json.dumps(config))
    (coded / "code.py").write_text("raise RuntimeError('ran')")

    jobs = {name: ("hf_me", name, f"me/{name}") for name in PUSHED}
    jobs |= {
        "longer": ("hf_me", "longer/transformer", "me/transformer", "--revision", "longer"),
        "longer again": ("hf_me", "longer/transformer", "me/transformer", "--revision", "longer"),
        "private": ("hf_me", "secret", "me/secret", "--private"),
        "private, but open": ("hf_me", "secret", "me/open", "--private"),
        "theirs": ("hf_me", "lstm", "you/theirs"),
        "hidden": ("hf_me", "lstm", "you/hidden"),
        "nobody's": ("hf_me", "lstm", "nobody/new"),
        "unknown token": ("hf_wrong", "lstm", "me/lstm"),
        "broken off": ("hf_me", "lstm", "me/resumed"),
        "resumed": ("hf_me", "lstm", "me/resumed"),
        "no model of ours": ("hf_me", "gpt2", "me/gpt2"),
        "code": ("hf_me", "coded", "me/coded"),
        "no name": ("hf_me", "lstm", "a/b/c"),
    }
    jobs["nothing listens"] = ("hf_me", "lstm", "me/lstm")
    given = [
        {
            "token": token,
            "arguments": [str(folder / "runs" / run), *rest],
            "endpoint": "http://127.0.0.1:9" if job == "nothing listens" else hub.address,
        }
        for job, (token, run, *rest) in jobs.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(given))
    run_python(
        folder, LAPTOP, "jobs.json", "answers.json", isolated=False, HF_ENDPOINT=hub.address,
        HF_HOME=str(folder / "home"),
    )  # fmt: skip
    return dict(zip(jobs, json.loads((folder / "answers.json").read_text()), strict=True))


@pytest.fixture(scope="module")
def found(hub, folder, answers) -> dict:
    """What a stranger finds on the Hub."""
    jobs = {"families": list(PUSHED), "cards": list(CARDS)}
    (folder / "stranger.json").write_text(json.dumps(jobs))
    run_python(
        folder,
        STRANGER,
        str(folder),
        isolated=True,
        HF_ENDPOINT=hub.address,
        HF_HOME=str(folder / "elsewhere"),
    )
    return json.loads((folder / "found.json").read_text())


def test_there_is_a_family_for_every_configuration():
    assert {model_class.config_class for model_class, _ in PUSHED.values()} == set(AUTO_CLASSES)


@pytest.mark.parametrize("name", PUSHED)
def test_every_head_loads_from_the_hub(name, answers, found):
    assert answers[name]["code"] == 0, answers[name]["said"]
    heads = AUTO_CLASSES[PUSHED[name][0].config_class]
    assert found["heads"][name] == {auto: head.__name__ for auto, head in heads.items()}
    assert found["agree"][name]


@pytest.mark.parametrize("name", CARDS)
def test_the_code_on_the_card_runs_as_it_stands(name, found):
    said = found["cards"][name]
    assert said.strip(), "the snippet printed nothing"
    if name == "lstm":
        assert said.startswith("w1 w2")
    if name == "encoder":
        assert len(said.splitlines()) == 5 and "w1" in said


@pytest.mark.parametrize("name", CARDS)
def test_nothing_of_this_machine_is_published(name, hub, answers, folder):
    files = hub.files(f"me/{name}")
    assert {"README.md", "training_summary.json", "config.json", "tokenizer.json"} <= set(files)
    assert f'path = "me/{name}"\n' in files["README.md"].decode()
    for path, content in files.items():
        assert str(folder).encode() not in content and str(Path.home()).encode() + b"/" not in content, path


def test_two_revisions_are_two_models(hub, answers, found):
    assert answers["longer"]["code"] == answers["longer again"]["code"] == 0
    assert found["agree"]["transformer"] and found["longer"] and found["differ"]
    assert (
        'snapshot_download("me/transformer", revision="longer")'
        in hub.files("me/transformer", "longer")["README.md"].decode()
    )
    assert 'path = "me/transformer"' in hub.files("me/transformer")["README.md"].decode()
    assert found["card of longer"] != found["cards"]["transformer"]


def test_a_private_repository_is_its_owners(hub, answers, found):
    assert answers["private"]["code"] == 0 and hub.repositories["me/secret"].private
    assert found["private"]["hf_me"] is True
    for token in ("hf_you", "False"):
        assert "me/secret" in found["private"][token] and "OSError" in found["private"][token]


def test_private_is_never_public_by_surprise(hub, answers):
    answer = answers["private, but open"]
    assert answer["code"] == 2 and "me/open exists and everybody can read it" in answer["said"]
    assert hub.files("me/open") == {}


@pytest.mark.parametrize(
    ("job", "repository"), [("theirs", "you/theirs"), ("hidden", "you/hidden"), ("nobody's", "nobody/new")]
)
def test_a_repository_of_another(hub, answers, job, repository):
    assert answers[job]["code"] == 2
    assert f"hfseq push: This token may not write to {repository} (" in answers[job]["said"]
    assert "name a repository of your own" in answers[job]["said"]
    assert repository not in hub.repositories or hub.files(repository) == {}


def test_an_unknown_token(answers):
    answer = answers["unknown token"]
    assert answer["code"] == 2 and "does not know this token" in answer["said"]
    assert "hf auth login" in answer["said"] and "Traceback" not in answer["said"]


def test_a_broken_upload_goes_on(hub, answers):
    broken, resumed = answers["broken off"], answers["resumed"]
    assert broken["code"] == 2 and "The upload to me/resumed at" in broken["said"]
    assert "Run the same command again" in broken["said"] and "Traceback" not in broken["said"]
    assert resumed["code"] == 0 and "model.safetensors" in hub.files("me/resumed")
    # The large files had arrived for me/lstm, or before the break: each was sent once.
    sent = [path for method, path in hub.requests if method == "PUT"]
    assert len(sent) == len(set(sent))


def test_what_is_not_pushed(answers, hub):
    assert "GPT2LMHeadModel (gpt2), which is none of hfseq's models" in answers["no model of ours"]["said"]
    assert "trust_remote_code" in answers["code"]["said"] and "asked" not in answers["code"]["said"]
    assert "a/b/c" in answers["no name"]["said"]
    for name in ("no model of ours", "code", "no name"):
        assert answers[name]["code"] == 2 and "Traceback" not in answers[name]["said"]
    assert not {"me/gpt2", "me/coded"} & set(hub.repositories)


def test_no_name_on_the_hub_leads_out_of_the_directory(folder, found):
    """Whatever the client makes of such names, it writes nothing beside its own folders."""
    assert len(found["evil"]) == 2
    own = folder / "elsewhere" / "hub" / "models--you--evil", folder / "deep" / "deeper" / "local"
    written = [file for file in folder.parent.rglob(EVIL) if not any(o in file.parents for o in own)]
    assert written == [] and not list(folder.rglob("local/**/*.py"))


def test_nothing_listens(answers):
    """The Hub is not there: one line, no traceback."""
    answer = answers["nothing listens"]
    assert answer["code"] == 2 and "The upload to me/lstm at http://127.0.0.1:9 broke off" in answer["said"]
    assert "Traceback" not in answer["said"]


def test_with_hfseq_installed_the_local_class_loads(folder, answers):
    """The run's own directory has no code: it loads by `import hfseq` alone."""
    assert type(AutoModel.from_pretrained(folder / "runs/lstm")) is hfseq.LSTMModel
