"""Who is compared: causal models of equal size, with the colour, line and marker that each keeps on every picture.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; line and marker differ too, for print
without colours. A contestant is a `model_type` and the names of its config's fields, so that any architecture of
transformers can stand beside ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ..loading import build_model

# Okabe and Ito's eight, by what is drawn with them.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"


@dataclass(frozen=True)
class Style:
    """How a contestant is drawn."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]] = "-"


@dataclass(frozen=True, eq=False)
class Contestant:
    """A causal architecture; see `build`."""

    label: str
    """In sentences and legends."""
    model_type: str
    style: Style
    learning_rate: float
    """Of AdamW on the tasks of memory, chosen on a seed that is not reported (`experiments/remembering.py`)."""
    width: Callable[[int], dict[str, Any]]
    """The fields of the config that a width makes."""
    layers: str = "num_hidden_layers"
    positions: str | None = None
    """The field that limits the length; None: there is no limit."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    in_loop: bool = False
    """Its CPU form is a loop written in Python: its times say nothing of the architecture."""

    def build(self, vocab_size: int, width: int, *, layers: int, longest: int) -> PreTrainedModel:
        """A new model, its weights drawn from torch's random state.

        Args:
            vocab_size: rows of the embedding.
            width: of the hidden states, a multiple of 8.
            layers: their number.
            longest: positions of the longest text.
        """
        fields = {**self.fields, **self.width(width), self.layers: layers, "vocab_size": vocab_size}
        # No text here has padding, a beginning or an end.
        fields |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
        if self.positions is not None:
            fields[self.positions] = longest
        config = AutoConfig.for_model(self.model_type, **fields)
        return build_model(AutoModelForCausalLM, config)


def _recurrent(width: int) -> dict[str, Any]:
    return {"embedding_size": width, "hidden_size": width}


RNN = Contestant("tanh RNN", "hfseq_rnn", Style(VERMILLION, "v", (0, (1, 1))), 1e-3, _recurrent)
GRU = Contestant("GRU", "hfseq_gru", Style(ORANGE, "^", (0, (4, 1, 1, 1))), 1e-2, _recurrent)
LSTM = Contestant("LSTM", "hfseq_lstm", Style(BLUE, "s", (0, (4, 2))), 1e-2, _recurrent)
ATTENTION = Contestant(
    "attention (GPT-2)", "gpt2", Style(GREEN, "o", "-"), 2e-3,
    lambda width: {"n_embd": width, "n_head": width // (8 if width % 16 else 16)}, "n_layer", "n_positions",
    {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
)  # fmt: skip
MAMBA = Contestant(
    "Mamba", "mamba", Style(PURPLE, "D", (0, (6, 1))), 3e-3,
    lambda width: {"hidden_size": width, "state_size": 8}, in_loop=True,
)  # fmt: skip
CAUSAL = (RNN, GRU, LSTM, ATTENTION, MAMBA)


@lru_cache
def width_for(contestant: Contestant, parameters: int, vocab_size: int, layers: int, longest: int) -> int:
    """The width, a multiple of 8, at which the contestant's parameters beside embeddings come nearest to a number."""
    # Of every contestant the layers have more parameters than the square of the width.
    low, high = 8, max(16, 8 * math.ceil(parameters**0.5 / 8))
    while high - low > 8:
        middle = (low + high) // 16 * 8
        if inner_parameters(contestant, middle, vocab_size, layers, longest) < parameters:
            low = middle
        else:
            high = middle
    return min(
        (low, high),
        key=lambda width: abs(inner_parameters(contestant, width, vocab_size, layers, longest) - parameters),
    )


@lru_cache
def inner_parameters(contestant: Contestant, width: int, vocab_size: int, layers: int, longest: int) -> int:
    """Parameters beside the embeddings of words and positions (an output layer may be one of them)."""
    with torch.random.fork_rng(devices=[]):
        model = contestant.build(vocab_size, width, layers=layers, longest=longest)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables)


def equal_model(
    contestant: Contestant, parameters: int, vocab_size: int, *, layers: int, longest: int
) -> PreTrainedModel:
    """A new model with about so many parameters beside its embeddings."""
    width = width_for(contestant, parameters, vocab_size, layers, longest)
    return contestant.build(vocab_size, width, layers=layers, longest=longest)


__all__ = [
    "ATTENTION",
    "CAUSAL",
    "GRU",
    "LSTM",
    "MAMBA",
    "RNN",
    "Contestant",
    "Style",
    "equal_model",
    "inner_parameters",
    "width_for",
]
