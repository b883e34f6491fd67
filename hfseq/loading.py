"""Loading a checkpoint that holds all of its weights, or saying which are missing.

`from_pretrained` draws at random what a checkpoint lacks, leaves out what it does not know, and goes on: a file that
was cut, a classifier given to a language model's scorer or weights that diverged are then scored, fine-tuned or
published with exit code 0. `load_model` refuses them with the tensor's name, the file and a remedy. What a checkpoint
must hold is asked of the class that its config names, the one that wrote it:

- a tensor that the wanted class has and the file lacks is refused; where `allow_new_head` says so, one that the
  writing class did not have either (a new head, BERT's pooler) may be drawn;
- a tensor that the wanted class does not have is left out if the writing class has it (another head), else refused;
- tied weights and buffers that are not saved are never missing.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

import hfseq
from hfseq.convert.tensor_files import read_tensors, refusal
from hfseq.data import check_vocabulary
from hfseq.data.tables import read_json
from hfseq.hints import nearest_hint

logger = logging.getLogger(__name__)
# What classes of transformers raise where a field of their config makes no sense.
BUILDING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
CHECKPOINT = "name a checkpoint, the directory that `hfseq pretrain` or save_pretrained wrote"


def load_model(
    auto_class: Any,
    path: str | PathLike[str],
    *,
    trust_remote_code: bool = False,
    allow_new_head: bool = False,
    **config_fields: Any,
) -> PreTrainedModel:
    """The model of a checkpoint, in evaluation mode, with every weight from its file.

    Args:
        auto_class: `AutoModelForCausalLM` and the like, or a model class.
        path: a checkpoint directory or a Hub id.
        trust_remote_code: whether code that the checkpoint brings may run; it is never asked.
        allow_new_head: draw what the checkpoint's own class did not have, or has for other classes (a body that is to
            be fine-tuned), and say which.
        config_fields: over the checkpoint's config, e.g. num_labels.

    Raises:
        ValueError: a class that does not fit, code that is not trusted, and every weight that is missing, unexpected,
            of another shape or not finite, by its name, with the file and what to do.
        OSError: no such checkpoint.
    """
    path = str(path)
    config = load_config(path, trust_remote_code=trust_remote_code)
    _check_class(auto_class, config, path)
    _check_files(Path(path))
    try:
        with _quiet_transformers():
            model, report = auto_class.from_pretrained(
                path,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they come back in the report
                **config_fields,
            )
    except (StrictDataclassError, TypeError) as error:
        given = ", ".join(f"{name}: {value!r:.60}" for name, value in config_fields.items())
        raise ValueError(
            f"{path} cannot be loaded with {given or 'its config'}: {' '.join(str(error).split())}"
        ) from error
    except SafetensorError as error:
        raise ValueError(
            f"{_file_of(path)} cannot be read ({error}): it is cut, or no safetensors file. Copy or download the "
            "checkpoint again."
        ) from error
    except pickle.UnpicklingError as error:  # of a Hub id; local files were looked at before
        raise ValueError(refusal(f"The pytorch_model.bin of {path}")) from error
    _check_report(model, config, report, path, allow_new_head)
    check_finite(model, path)
    return model


def build_model(auto_class: Any, config: PreTrainedConfig, **options: Any) -> PreTrainedModel:
    """The model of a config, its weights drawn.

    Args:
        options: of `from_config`.

    Raises:
        ValueError: a field of the config that the class cannot be built with; classes of transformers find out in
            their own ways.
    """
    try:
        return auto_class.from_config(config, **options)
    except BUILDING_ERRORS as error:
        raise ValueError(
            f"section model: no {config.model_type} can be built with these values: {type(error).__name__}: {error}"
        ) from error


def load_config(path: str | PathLike[str], *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The checkpoint's config; what is wrong with the file is told with its name.

    Raises:
        ValueError: not JSON, an unknown model_type, code that is not trusted. OSError: no such checkpoint.
    """
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{path} holds no config.json: {CHECKPOINT}.")
    if folder.is_file():
        raise NotADirectoryError(f"{path} is a file: {CHECKPOINT}.")
    if not folder.exists() and (
        folder.is_absolute() or folder.parts[0] in (".", "..") or len(folder.parts) > 2
    ):
        near = nearest_hint(folder.name, os.listdir(folder.parent)) if folder.parent.is_dir() else ""
        raise FileNotFoundError(f"No checkpoint at {path}.{near} {CHECKPOINT[0].upper()}{CHECKPOINT[1:]}.")
    generation = folder / "generation_config.json"
    if generation.is_file():
        # Where it cannot be read, transformers goes on without it: what it suppresses would come out.
        read_json(generation)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (StrictDataclassError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder / 'config.json'}: {reason}. Copy or download the checkpoint again."
        ) from error


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Refuses another model's tokenizer, as far as sizes and special tokens tell.

    Raises:
        ValueError: what differs, and the remedy.
    """
    # hfseq rounds vocabularies up to multiples of 64, others large ones to as many as 1,024, which are less than 2% of
    # them (Phi: 50,295 of 51,200; Qwen2: 151,665 of 151,936).
    check_vocabulary(tokenizer, config, multiple=max(64, min(1024, config.vocab_size // 50)))


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its bar, and without its table of what is missing, which is refused or told here."""
    verbosity, shows_bars = (
        transformers.logging.get_verbosity(),
        transformers.logging.is_progress_bar_enabled(),
    )
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if shows_bars:
            transformers.logging.enable_progress_bar()


def _check_files(folder: Path) -> None:
    """Of a local checkpoint: pickles in the place of safetensors are read as tensors or refused, in our words; shards
    lie in the checkpoint's own folder.

    Raises:
        ValueError: a pickle that holds more than tensors, or a shard elsewhere.
    """
    safe = list(folder.glob("model*.safetensors"))
    if not safe:
        for file in sorted(folder.glob("pytorch_model*.bin")):
            read_tensors(file)
    for index in folder.glob("*.index.json"):
        for shard in set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()):
            if Path(shard).name != shard:
                raise ValueError(
                    f"{index} names the shard {shard}, which does not lie beside it: the shards of a checkpoint are in "
                    "its own folder. Take the checkpoint from where you trust it."
                )


def _check_class(auto_class: Any, config: PreTrainedConfig, path: str) -> None:
    """transformers' own message lists every model type there is. Of two heads with the same weights it takes any: what
    filled in tokens would be asked to continue a text, with eyes for what follows."""
    if auto_class.__name__ == "AutoModelForCausalLM" and not getattr(config, "is_decoder", False):
        masked = transformers.AutoModelForMaskedLM._model_mapping
        causal = auto_class._model_mapping
        name, kind = _saved_as(config), type(config)
        if kind in masked and kind in causal and masked[kind].__name__ == name != causal[kind].__name__:
            raise ValueError(
                f"{path} holds {name}, which fills in tokens and sees what follows them: name a checkpoint of a model "
                "that continues texts."
            )
    mapping = getattr(auto_class, "_model_mapping", None)
    if (
        mapping is None
        or type(config) in mapping
        or auto_class.__name__ in (getattr(config, "auto_map", None) or {})
    ):
        return
    name = _saved_as(config)
    raise ValueError(
        f"{path} holds {name} (model_type {config.model_type}), which {auto_class.__name__} cannot load: name a "
        "checkpoint of another kind of model."
    )


def _saved_as(config: PreTrainedConfig) -> str:
    """The class that wrote the checkpoint, as far as it is known."""
    return (config.architectures or [config.model_type])[0]


def _check_report(
    model: PreTrainedModel, config: PreTrainedConfig, report: dict[str, Any], path: str, allow_new_head: bool
) -> None:
    prefix = f"{model.base_model_prefix}."
    saved = _tensors_of_saved_class(config)
    shapes = {name: (there, here) for name, there, here in report["mismatched_keys"]}

    def of_body(name: str) -> bool:
        """Whether the class that wrote the checkpoint had this tensor; where it is unknown, whether the body has."""
        if saved is None:
            return name.startswith(prefix)
        return name.removeprefix(prefix) in {other.removeprefix(prefix) for other in saved}

    buffers = {name for name, _ in model.named_buffers()}
    unexpected = {name for name in report["unexpected_keys"] if name not in buffers}
    strange = sorted(name for name in unexpected if saved is None or not of_body(name))
    if strange:
        raise ValueError(
            f"{_file_of(path, strange[0])} holds {_names(strange)}, which {type(model).__name__} does not have: config "
            "and weights are of different models. Take both from one checkpoint."
        )
    missing = sorted(report["missing_keys"] - set(shapes))
    lacking = [name for name in missing if of_body(name) or not allow_new_head]
    if lacking:
        if saved is not None and not any(map(of_body, lacking)):
            remedy = (
                f"It was saved by {config.architectures[0]}, which has no such head: name a checkpoint of "
                f"{type(model).__name__}, or train it first."
            )
        else:
            remedy = (
                "The file is cut, or of another model than its config: copy or download the checkpoint again."
            )
        raise ValueError(
            f"{_file_of(path)} lacks {_names(lacking)} of {type(model).__name__}; drawn at random, they would mean "
            f"nothing. {remedy}"
        )
    # A head for other classes has the same name and another shape: it is drawn anew where that is allowed.
    wrong = sorted(name for name in shapes if name.startswith(prefix) or not allow_new_head)
    if wrong:
        there, here = (tuple(shape) for shape in shapes[wrong[0]])
        raise ValueError(
            f"{_file_of(path, wrong[0])}: {wrong[0]} is {_shape(there)} there, {_shape(here)} by the config"
            f"{_further(wrong)}: config and weights are of different models. Take both from one checkpoint."
        )
    if report["error_msgs"]:
        raise ValueError(f"{path}: {'; '.join(report['error_msgs'])}")
    if new := sorted([*missing, *shapes]):
        logger.warning("%s: %s drawn anew, to be trained.", path, _names(new))


def _tensors_of_saved_class(config: PreTrainedConfig) -> set[str] | None:
    """Names in the state of the class that the config names; None where neither hfseq nor transformers has it."""
    name = (config.architectures or [""])[0]
    saved_class = getattr(hfseq, name, None) or getattr(transformers, name, None) if name else None
    if saved_class is None:
        return None
    with torch.device("meta"):
        return set(saved_class(config).state_dict())


def check_finite(model: PreTrainedModel, path: str) -> None:
    """ValueError where a weight is NaN or infinite, by its name, with the file and what to do."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(
                f"{_file_of(path, name)}: {name} holds numbers that are not finite: the training diverged. Train again "
                "with a lower learning rate, or take an earlier checkpoint."
            )


def _file_of(path: str, tensor: str | None = None) -> str:
    """The file of a local checkpoint that holds the tensor, as far as it is known."""
    folder = Path(path)
    index = folder / "model.safetensors.index.json"
    if tensor and index.is_file():
        shard = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).get(tensor)
        return str(folder / shard) if shard else str(index)
    single = folder / "model.safetensors"
    return str(single) if single.is_file() else path


def _names(names: Iterable[str]) -> str:
    names = list(names)
    return names[0] + _further(names)


def _further(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _shape(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


__all__ = ["build_model", "check_finite", "check_tokenizer", "load_config", "load_model"]
