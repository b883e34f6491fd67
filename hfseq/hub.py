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
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.dynamic_module_utils import custom_object_save

import hfseq
from hfseq.cards.published import PUBLISHED_TEXTS, name_repository, without_local_paths
from hfseq.loading import load_config, load_model

# What the client raises where no answer came: the base of the errors of the HTTP library that it stands on.
NO_ANSWER: type[Exception] = HfHubHTTPError.__bases__[0]


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
    directory: str | PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Uploads an exported directory to the Hub and returns the address of the commit.

    In the directory itself the Python block of README.md is made to name the repository, which the card's writer did
    not know, and the texts of the run lose the paths of this machine. What an interrupted upload has sent is not sent
    again by the next.

    Args:
        directory: what `export` wrote, with what else belongs to it (README.md, training_summary.json, images).
        repo_id: "name" or "organisation/name"; made if missing.
        private: whether a repository that is made now is private.
        token: an access token; by default the one that `hf auth login` or HF_TOKEN left.
        revision: a branch, made if missing; by default main.

    Raises:
        ValueError: the directory is not a whole export, an impossible repo_id, metadata that the Hub does not take, or
            `private` for a repository that everybody can read.
        PermissionError: there is no token, the Hub does not know it, or it may not write there.
        ConnectionError: the Hub is not reached or broke off.
    """
    huggingface_hub.utils.validate_repo_id(repo_id)
    check_export(directory)
    token = token or huggingface_hub.get_token()
    if token is None:
        raise PermissionError(
            "No Hub token: run `hf auth login` once or set HF_TOKEN (huggingface.co/settings/tokens)."
        )
    api = huggingface_hub.HfApi(token=token)
    with _refusals_of_the_hub(repo_id):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise ValueError(
                f"{repo_id} exists and everybody can read it: make it private in its settings, name another "
                "repository, or leave private out. Nothing was uploaded."
            )
        if revision not in (None, "main"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        _prepare_texts(Path(directory), repo_id, revision)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(directory),
            commit_message=f"hfseq {hfseq.__version__}",
            ignore_patterns=["checkpoint-*/**", ".*", ".*/**"],
            revision=revision,
        )
    return commit.commit_url


def _prepare_texts(directory: Path, repo_id: str, revision: str | None) -> None:
    for name in PUBLISHED_TEXTS:
        file = directory / name
        if file.is_file():
            text = without_local_paths(file.read_text(encoding="utf-8"))
            if name == "README.md":
                text = name_repository(text, repo_id, revision)
            file.write_text(text, encoding="utf-8")


@contextmanager
def _refusals_of_the_hub(repo_id: str) -> Iterator[None]:
    """What the client raises, with what the user can do about it."""
    try:
        yield
    except (HfHubHTTPError, NO_ANSWER, RuntimeError) as error:
        # A file that fails is told as a RuntimeError that names it, caused by what happened.
        found = error if isinstance(error, (HfHubHTTPError, NO_ANSWER)) else error.__cause__
        if not isinstance(found, (HfHubHTTPError, NO_ANSWER)):
            raise
        raise _in_our_words(found, repo_id) from error


def _in_our_words(error: BaseException, repo_id: str) -> OSError:
    again = "Run the same command again: what has arrived is not sent twice."
    endpoint = huggingface_hub.constants.ENDPOINT
    if not isinstance(error, HfHubHTTPError):
        reason = str(error) or type(error).__name__
        return ConnectionError(f"The upload to {repo_id} at {endpoint} broke off: {reason}. {again}")
    status = error.response.status_code
    reason = error.server_message or str(error).splitlines()[0]
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return PermissionError(
            f"{endpoint} does not know this token ({reason}): run `hf auth login` again or set HF_TOKEN to a token "
            "that is still valid."
        )
    if status in (401, 403, 404):
        return PermissionError(
            f"This token may not write to {repo_id} ({reason}): name a repository of your own or of an organisation "
            "that you write for, and use a token with the right to write. `hf auth whoami` says whose it is."
        )
    return ConnectionError(f"{endpoint} refused the upload to {repo_id} with {status} ({reason}). {again}")


__all__ = ["check_export", "export", "load_checkpoint", "push"]
