"""Sharing a checkpoint: export with code, the upload. (The card is written by `hfseq.cards`.)

`export` writes a directory that loads with `trust_remote_code=True` where hfseq is not installed: weights, tokenizer,
the files of `hfseq/models/` that the model needs, and in `config.json` an `auto_map` that names *every* head of the
family that the config allows, so that `AutoModel` and `AutoModelForCausalLM` both find their class. transformers' own
way, `register_for_auto_class`, marks the class for the rest of the process (each later save copies code) and names
only the head that was saved; here neither the class nor the model changes.
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import tempfile
from os import PathLike
from pathlib import Path

import huggingface_hub
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.dynamic_module_utils import custom_object_save

import hfseq
from hfseq.loading import load_config, load_model


def load_checkpoint(directory: str | PathLike[str], *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model of a checkpoint directory (or Hub id), with the head it was saved with.

    Args:
        trust_remote_code: whether code that the checkpoint brings may run; it is never asked.

    Raises:
        ValueError: the checkpoint is of no class of hfseq's, or its weights are not whole (`hfseq.loading`).
    """
    config = load_config(directory, trust_remote_code=trust_remote_code)
    name = (config.architectures or ["no class"])[0]
    model_class = getattr(hfseq, name) if name in hfseq.__all__ else None
    if model_class is None:
        raise ValueError(f"{directory} holds {name} ({config.model_type}), which is none of hfseq's models.")
    return load_model(model_class, directory, trust_remote_code=trust_remote_code)


# ----------------------------------------------------------------------------------------------- export with code


def export(
    model: PreTrainedModel,
    directory: str | PathLike[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Writes a checkpoint that loads with `trust_remote_code=True` where hfseq is not installed.

    Files of the same names in `directory` are replaced, others are left alone. Everything is written beside it first
    and moved into place at the end, `config.json` last: an interrupted export leaves nothing that loads.

    Args:
        model: any model of hfseq; its own head and all others of its family can be loaded from the directory.
        directory: made if missing.
        tokenizer: saved with it; without one `AutoTokenizer` finds nothing there.

    Raises:
        TypeError: the model is not of one of hfseq's families.
        ValueError: the tokenizer knows ids that the model does not have.
        FileExistsError: `directory` is a file.
    """
    auto_map = _auto_map(model)
    if tokenizer is not None and len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} entries, the model only {model.config.vocab_size}: "
            "export a model with the tokenizer it was trained with."
        )
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"Cannot export to {directory}: it is a file. Name a directory.")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=directory) as temporary:
        part = Path(temporary)
        model.save_pretrained(part)
        code = {Path(file).name for file in custom_object_save(model, part)}
        missing = {f"{reference.split('.')[0]}.py" for reference in auto_map.values()} - code
        if missing:
            raise TypeError(
                f"{type(model).__name__} does not import {', '.join(sorted(missing))} of its own family."
            )
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        config = part / "config.json"
        fields = json.loads(config.read_text(encoding="utf-8"))
        fields["auto_map"] = auto_map
        config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for file in sorted(part.iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, directory / file.name)


def _auto_map(model: PreTrainedModel) -> dict[str, str]:
    """{"AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.XModel", ...} for all heads of the family."""
    families = getattr(sys.modules[type(model).__module__], "AUTO_CLASSES", {})
    for config_class, heads in families.items():
        # By name: where code travelled, config and model come from different dynamic modules.
        if config_class.model_type == model.config.model_type:
            fitting = {auto: head for auto, head in heads.items() if _accepts(head, model)}
            classes = {"AutoConfig": config_class, **fitting}
            return {auto: f"{cls.__module__.split('.')[-1]}.{cls.__name__}" for auto, cls in classes.items()}
    raise TypeError(
        f"hfseq exports its own models, not {type(model).__name__} ({model.config.model_type}): "
        "its module has no AUTO_CLASSES with this model_type. Use its own save_pretrained."
    )


def _accepts(head: type[PreTrainedModel], model: PreTrainedModel) -> bool:
    """Whether the head can be made with the model's config, which a bidirectional language model, say, cannot."""
    if head is type(model):
        return True
    try:
        with torch.device("meta"):
            head(copy.deepcopy(model.config))
    except ValueError:
        return False
    return True


def check_export(directory: str | PathLike[str]) -> None:
    """Raises ValueError unless every file that `auto_map` names, and the weights, are in the directory."""
    directory = Path(directory)
    config = directory / "config.json"
    if not config.is_file():
        raise ValueError(f"{directory} holds no config.json: export a model there first.")
    auto_map = json.loads(config.read_text(encoding="utf-8")).get("auto_map")
    if not auto_map:
        raise ValueError(
            f"{config} has no auto_map: {directory} is an ordinary checkpoint, export it with its code."
        )
    missing = sorted(
        {f"{r.split('.')[0]}.py" for r in auto_map.values()} - {file.name for file in directory.iterdir()}
    )
    if not list(directory.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ValueError(f"{directory} is not whole, {', '.join(missing)} missing: export the model again.")


def push(
    directory: str | PathLike[str], repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Uploads an exported directory to the Hub and returns the address of the commit.

    The Python block of the directory's README.md is made to name the repository, which the card's writer did not know.

    Args:
        directory: what `export` wrote, with what else belongs to it (README.md, training_summary.json, images).
        repo_id: "name" or "organisation/name"; made if missing.
        private: whether a repository that is made now is private.
        token: an access token; by default the one that `hf auth login` or HF_TOKEN left.

    Raises:
        ValueError: the directory is not a whole export.
        PermissionError: there is no token.
    """
    check_export(directory)
    token = token or huggingface_hub.get_token()
    if token is None:
        raise PermissionError(
            "No Hub token: run `hf auth login` once or set HF_TOKEN (huggingface.co/settings/tokens)."
        )
    api = huggingface_hub.HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    card = Path(directory) / "README.md"
    if card.is_file():
        card.write_text(name_repository(card.read_text(encoding="utf-8"), repo_id), encoding="utf-8")
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=str(directory),
        commit_message=f"hfseq {hfseq.__version__}",
        ignore_patterns=["checkpoint-*/**", ".*", ".*/**"],
    )
    return commit.commit_url


def name_repository(card: str, repo_id: str) -> str:
    """The card with `path = "..."` of its Python block naming the repository that it is shown in."""
    line = f"path = {json.dumps(repo_id)}"
    return re.sub(r'^path = "(?:[^"\\]|\\.)*".*$', lambda _: line, card, flags=re.MULTILINE)


__all__ = ["check_export", "export", "load_checkpoint", "push"]
