"""The one list of heads, and what stock tools read off a class."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils.generic import find_labels

import hfseq
from hfseq.convert.bert import HEADS
from hfseq.models import AUTO_CLASSES
from hfseq.models.modeling_encoder import EncoderForMaskedLM, EncoderForPreTraining

HEADS_OF_ALL = {cls.__name__: (auto, cls) for heads in AUTO_CLASSES.values() for auto, cls in heads.items()}


def test_everything_in_the_list_is_exported_and_nothing_else():
    assert set(hfseq.__all__) == set(HEADS_OF_ALL) | {config.__name__ for config in AUTO_CLASSES}
    assert all(getattr(hfseq, name) is cls for name, (_, cls) in HEADS_OF_ALL.items())
    assert "ForPreTraining" in HEADS and len(HEADS) == len(AUTO_CLASSES[hfseq.EncoderConfig])


def test_tools_that_look_a_class_up_in_transformers_find_it():
    """`transformers serve` and TRL take it from there by its name in config.json; what is there stays. There are two
    modules of that name: whoever imported it before its processing_utils has the first."""
    code = (
        "import sys, transformers; before = transformers.BertModel; import hfseq\n"
        "assert transformers is not sys.modules['transformers']\n"
        "for module in (transformers, sys.modules['transformers']):\n"
        "    assert all(getattr(module, name) is getattr(hfseq, name) for name in hfseq.__all__)\n"
        "assert transformers.BertModel is before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", HEADS_OF_ALL)
def test_trainer_wants_no_label_that_a_stock_collator_does_not_send(name):
    """It computes an `eval_loss` only for batches with every argument that has "label" in its name."""
    auto, model_class = HEADS_OF_ALL[name]
    expected = {
        "AutoModel": [],
        "AutoModelForPreTraining": ["labels", "next_sentence_label"],  # as BERT's
        "AutoModelForQuestionAnswering": ["start_positions", "end_positions"],
    }.get(auto, ["labels"])
    assert find_labels(model_class) == expected


@pytest.mark.parametrize("name", [name for name, (_, cls) in HEADS_OF_ALL.items() if cls.can_generate()])
def test_what_generates_has_the_mixin_among_its_own_bases(name):
    """transformers looks for it there: to a class of a Hub repository without it, it may add one."""
    assert "GenerationMixin" in str(HEADS_OF_ALL[name][1].__bases__)


# --- the encoder's transform was called `head` in version 0.1 --------------------------------------------------------


@pytest.fixture(params=[EncoderForMaskedLM, EncoderForPreTraining], ids=lambda cls: cls.__name__)
def checkpoint(request, tmp_path):
    """(a model, the folder of its checkpoint, with the names of version 0.1)."""
    config = hfseq.EncoderConfig(
        vocab_size=24, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
    )
    model = request.param(config)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "transform.dense.weight" in weights
    old = {name.replace("transform.", "head."): value for name, value in weights.items()}
    assert old.keys() != weights.keys()
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return model, tmp_path


def test_checkpoints_of_version_0_1_load_and_are_saved_under_the_new_names(checkpoint, tmp_path):
    model, folder = checkpoint
    loaded, info = type(model).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    loaded.save_pretrained(tmp_path / "again")
    assert "transform.dense.weight" in load_file(tmp_path / "again" / "model.safetensors")


def test_state_dicts_of_version_0_1_load(checkpoint):
    """A Trainer that resumes reads the file itself."""
    model, folder = checkpoint
    fresh = type(model)(model.config)
    result = fresh.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert result.missing_keys == ["lm_head.weight"] and not result.unexpected_keys  # tied: kept once
    fresh.tie_weights()
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True))


def test_the_caller_s_own_mapping_is_kept(checkpoint):
    model, folder = checkpoint
    weights = {f"old.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    mapping = {r"^old\.head\.": "transform.", r"^old\.": ""}
    loaded = type(model).from_pretrained(folder, key_mapping=mapping)
    assert torch.equal(loaded.transform.dense.weight, model.transform.dense.weight)
