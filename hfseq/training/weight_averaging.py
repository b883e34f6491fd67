"""The mean of the last checkpoints' weights, and starting from another run's weights.

Averaging what the last checkpoints hold (Vaswani et al. 2017, section 6.1) smooths the noise of a learning rate that is
still high. Where the rate has decayed to zero there is little to smooth, and old checkpoints only hurt; so validation
decides which weights are kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..paths import user_path
from .checkpoints import is_complete


def last_checkpoints(output_dir: str | os.PathLike, count: int) -> list[Path]:
    """The last `count` complete checkpoints of a run, oldest first.

    Raises:
        ValueError: there are fewer.
    """
    numbered = {
        int(path.name.rpartition("-")[2]): path
        for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdecimal() and is_complete(path)
    }
    if len(numbered) < count:
        raise ValueError(
            f"{output_dir} has {len(numbered)} complete checkpoints, not {count} to average: lower save_steps, or "
            "average_checkpoints; save_total_limit must keep as many."
        )
    return [numbered[step] for step in sorted(numbered)[-count:]]


def average_weights(checkpoints: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of each weight over the checkpoints, summed in float64; whole numbers are the last one's.

    Returns:
        {name: tensor on the CPU, in the type it was saved in}, as `load_state_dict` takes it (tied weights once).

    Raises:
        ValueError: no checkpoints, weights that are not in one safetensors file, or other weights than in the first.
    """
    if not checkpoints:
        raise ValueError("No checkpoints to average.")
    total: dict[str, torch.Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for number, checkpoint in enumerate(checkpoints):
        weights = _read(checkpoint)
        shapes = {name: tensor.shape for name, tensor in weights.items()}
        if number and shapes != {name: tensor.shape for name, tensor in total.items()}:
            raise ValueError(
                f"{checkpoint} and {checkpoints[0]} hold weights of other names or shapes: only checkpoints of one run "
                "can be averaged."
            )
        for name, tensor in weights.items():
            types[name] = tensor.dtype
            if not tensor.is_floating_point():
                total[name] = tensor
            elif number:
                total[name] += tensor.double()
            else:
                total[name] = tensor.double()
    return {
        name: (tensor / len(checkpoints)).to(types[name]) if types[name].is_floating_point else tensor
        for name, tensor in total.items()
    }


def load_weights(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
    """Puts averaged weights into the model, on its device; tied weights are saved once and follow.

    Raises:
        ValueError: names that the model lacks or weights that it misses.
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = set(missing) - set(getattr(model, "all_tied_weights_keys", None) or {})
    if missing or unexpected:
        raise ValueError(
            f"These weights are not of a {type(model).__name__} of this shape: "
            f"missing {sorted(missing)[:3]}, unknown {sorted(unexpected)[:3]}."
        )


def initialize_from(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: str | os.PathLike
) -> PreTrainedModel:
    """The model with the weights of a checkpoint directory, to be trained further on other data.

    Its config stays (dropout, label smoothing). What has a shape must agree, and the tokenizer, whose ids the
    embedding's rows are.

    Args:
        model: a new model.
        tokenizer: which the new run uses.
        directory: with the checkpoint and its tokenizer, or a Hub id.

    Raises:
        ValueError: weights that are missing, unknown, of another shape or not finite, or another vocabulary.
    """
    from transformers import AutoTokenizer

    from ..loading import check_finite  # it reads tokenizers, which training from token arrays does without

    try:
        directory = str(user_path(directory))
        theirs = AutoTokenizer.from_pretrained(directory).get_vocab()
        loaded, info = type(model).from_pretrained(
            directory, config=model.config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(f"training.initialize_from {str(directory)!r}: {error}") from error
    ours = tokenizer.get_vocab()
    if theirs != ours:
        raise ValueError(
            f"The tokenizer in {directory} has other ids ({len(theirs)} tokens) than this run's ({len(ours)}): set "
            f"tokenizer.path to {str(directory)!r} as well."
        )
    problems = {
        "lacks": sorted(info["missing_keys"]),
        "also has": sorted(info["unexpected_keys"]),
        "has in another shape": sorted(f"{name} {list(a)}" for name, a, _ in info["mismatched_keys"]),
    }
    found = [f"{what} {', '.join(names[:3])}" for what, names in problems.items() if names]
    if found:
        raise ValueError(
            f"{directory} does not hold the weights of this {type(model).__name__}: it {' and '.join(found)}. Give the "
            "model section the values of its config.json."
        )
    check_finite(loaded, directory)
    return loaded


def _read(checkpoint: Path) -> dict[str, torch.Tensor]:
    path = Path(checkpoint) / SAFE_WEIGHTS_NAME
    if not path.is_file():
        also = (
            " (it is split into several files)" if (path.parent / SAFE_WEIGHTS_INDEX_NAME).is_file() else ""
        )
        raise ValueError(f"{checkpoint} has no {SAFE_WEIGHTS_NAME}{also}: it cannot be averaged.")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary


__all__ = ["average_weights", "initialize_from", "last_checkpoints", "load_weights"]
