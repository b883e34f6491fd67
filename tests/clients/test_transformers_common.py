"""transformers' own common tests (`ModelTesterMixin`, `GenerationTesterMixin`) over every class of hfseq.

They are not installed with transformers: HFSEQ_TRANSFORMERS_SOURCE names a checkout of its repository, of the tag that
is installed (`git clone --depth 1 --branch v5.23.0 https://github.com/huggingface/transformers`). What a class is not
given stands in common_skips.yaml, with the reason.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import types
import unittest
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
import yaml

from hfseq.contracts import CASES

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
SOURCE = os.environ.get("HFSEQ_TRANSFORMERS_SOURCE")
if not SOURCE:
    pytest.skip(
        "HFSEQ_TRANSFORMERS_SOURCE names no checkout of transformers' repository", allow_module_level=True
    )
# The files there call their folder `tests`, and so does pytest this repository's: it becomes both.
_package = sys.modules.setdefault("tests", types.ModuleType("tests"))
_package.__path__ = [*getattr(_package, "__path__", []), str(Path(SOURCE) / "tests")]
# Modules, not the classes in them: pytest would collect those.
common = importlib.import_module("tests.test_modeling_common")
generation = importlib.import_module("tests.generation.test_utils")

SKIPS = yaml.safe_load((Path(__file__).parent / "common_skips.yaml").read_text(encoding="utf-8"))
ROWS, LENGTH = 3, 6
# The mixins want small models, two sides of one depth, and a target as long as its source.
SIZES = {"recurrent": {"num_hidden_layers": 2}, "recurrent_seq2seq": {"encoder_layers": 2, "decoder_layers": 2},
    "pervasive": {"num_hidden_layers": 2}}  # fmt: skip


def config_of(case):
    return case.config(**SIZES.get(case.family, {}))


class Inputs:
    """What the mixins ask about a model and its inputs."""

    def __init__(self, case):
        config = config_of(case)
        self.case, self.batch_size, self.seq_length, self.num_choices = case, ROWS, LENGTH, case.kind.texts
        self.is_training = bool(case.kind.labels)
        self.encoder_seq_length, self.decoder_seq_length = LENGTH, LENGTH  # of a pair
        # Of the first of the hidden states, the word vectors.
        self.hidden_size = getattr(config, "embedding_size", None) or getattr(config, "hidden_size", None)
        self.num_hidden_layers = getattr(config, "num_hidden_layers", None)
        self.num_attention_heads = getattr(config, "num_attention_heads", None)

    def get_config(self):
        return config_of(self.case)

    def batch(self, config):
        batch = self.case.batch(self.case.rows(config, [LENGTH] * ROWS), config)
        batch.pop("position_ids", None)
        kind = self.case.kind
        for name in {*kind.masks.values(), *kind.axes} & set(batch):
            if name == kind.masks.get("target") or kind.axes.get(name) == "target":
                batch[name] = batch[name][:, :LENGTH]
        return batch

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        return config, self.case.without_labels(self.batch(config))


class Common:
    """The mixins' answers that depend on the case, and their checks of a cache where it holds no keys and values."""

    case = None

    def setUp(self):
        self.model_tester = Inputs(self.case)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if return_labels:
            batch = self.model_tester.batch(config_of(self.case))
            inputs |= {name: batch[name] for name in self.case.kind.labels}
        return inputs

    def _check_past_key_values_for_generate(self, batch_size, past_key_values, seq_length, config):
        if not getattr(past_key_values, "is_recurrent_cache", False):
            return super()._check_past_key_values_for_generate(
                batch_size, past_key_values, seq_length, config
            )
        assert past_key_values.get_seq_length() == seq_length
        for layer in past_key_values.layers:
            assert layer.states and {state.shape[1] for state in layer.states} == {batch_size}

    def _check_caches_are_equal(self, cache1, cache2):
        if not getattr(cache1, "is_recurrent_cache", False):
            return super()._check_caches_are_equal(cache1, cache2)
        assert type(cache1) is type(cache2) and cache1.get_seq_length() == cache2.get_seq_length()
        for layer1, layer2 in zip(cache1.layers, cache2.layers, strict=True):
            torch.testing.assert_close(layer1.states, layer2.states)


class OwnWidths:
    """The mixins' checks of hidden states in `generate`, for models whose states are not all of one width."""

    def widths(self, config, *, source: bool) -> list[int]:
        if config.model_type == "hfseq_pervasive":
            channels = 2 * config.embedding_size + config.num_hidden_layers * config.growth_size
            return [config.embedding_size] if source else [config.embedding_size, channels]
        if source:
            return [config.embedding_size, *[config.memory_size] * config.encoder_layers]
        return [config.embedding_size, *[config.hidden_size] * config.num_hidden_layers]

    def _check_hidden_states_for_generate(
        self, batch_size, hidden_states, prompt_length, output_length, config, use_cache=False
    ):
        assert len(hidden_states) == output_length - prompt_length
        widths = self.widths(config, source=False)
        for step, states in enumerate(hidden_states):
            time = 1 if use_cache and step else prompt_length + step
            assert [tuple(state.shape) for state in states] == [(batch_size, time, width) for width in widths]

    def _check_encoder_hidden_states_for_generate(self, hidden_states, batch_size, config, prompt_length):
        shapes = [(batch_size, prompt_length, width) for width in self.widths(config, source=True)]
        assert [tuple(state.shape) for state in hidden_states] == shapes


def skipped(name: str, class_name: str) -> str | None:
    """Why a class is not given a test; None: it is."""
    for test, classes in SKIPS.items():
        if fnmatchcase(name, test):
            for pattern, reason in classes.items():
                if fnmatchcase(class_name, pattern):
                    return reason
    return None


def suite(case) -> type[unittest.TestCase]:
    """The tests of one class."""
    cls = case.model_class
    bases = [Common, common.ModelTesterMixin]
    if case.family not in ("encoder", "transformer"):
        bases.insert(0, OwnWidths)
    if case.kind.generates:
        bases.append(generation.GenerationTesterMixin)
    config = config_of(case)
    made = type(f"Test{cls.__name__}", (*bases, unittest.TestCase), {
        "case": case,
        "all_model_classes": (cls,),
        "is_encoder_decoder": case.kind.is_encoder_decoder,
        "has_attentions": bool(getattr(config, "num_attention_heads", None)),
        "__module__": __name__,
    })  # fmt: skip
    for name in dir(made):
        if (
            name.startswith("test_")
            and callable(getattr(made, name))
            and (reason := skipped(name, cls.__name__))
        ):
            setattr(made, name, unittest.skip(reason)(lambda self: None))
    return made


for _case in CASES:
    if _case.in_subprocesses:  # one for each class
        _suite = suite(_case)
        globals()[_suite.__name__] = _suite
del _suite  # or pytest collects the last one twice


def test_every_skip_is_of_a_test_that_exists():
    suites = [
        value for name, value in globals().items() if name.startswith("Test") and isinstance(value, type)
    ]
    tests = {(name, made.__name__.removeprefix("Test")) for made in suites for name in dir(made)}
    for test, classes in SKIPS.items():
        for pattern, reason in classes.items():
            assert any(fnmatchcase(n, test) and fnmatchcase(c, pattern) for n, c in tests), (
                f"{test}: {pattern}"
            )
            assert len(reason.split()) >= 3, f"{test}: {pattern}: {reason!r} is no reason"
