"""What of a run may be shown to everybody: a card that names its repository, texts without paths of one machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

# What a run writes beside the weights, in words, and that belongs to the published model.
PUBLISHED_TEXTS = ("README.md", "training_summary.json", "finetune_summary.json", "recipe.yaml")

# The line of a card's Python block that says where the model is, in either form that `name_repository` writes.
_STRING = r'"(?:[^"\\]|\\.)*"'
_PATH_LINE = re.compile(
    rf"^(?:from huggingface_hub import snapshot_download\n)?path = (?:{_STRING}|snapshot_download\([^\n]*\))[^\n]*$",
    re.MULTILINE,
)
# Up to the last part of an absolute path. What follows a letter, a dot or a colon belongs to a URL or a relative path.
_LOCAL_FOLDER = re.compile(
    r"""(?:file://|(?<![\w.:/~-])~?)/(?:[\w.@+~-]+/)+(?=[^\s'"`])|(?<![\w.:/-])~/(?=[^\s'"`])"""
    r"""|(?<![\w.:\\/-])[A-Za-z]:(?:\\{1,2}[\w.@+~ -]+(?=\\))+\\{1,2}(?=[^\s'"`\\])"""
    r"""|(?<![\w.:\\/-])[A-Za-z]:/(?:[\w.@+~-]+/)+(?=[^\s'"`])"""
)


def name_repository(card: str, repo_id: str, revision: str | None = None) -> str:
    """The card with `path = "..."` of its Python block naming the repository that it is shown in.

    On a branch other than the first the lines fetch that branch: the id alone would load another model than the card's.
    """
    line = f"path = {json.dumps(repo_id)}"
    if revision not in (None, "main"):
        line = (
            "from huggingface_hub import snapshot_download\n"
            f"path = snapshot_download({json.dumps(repo_id)}, revision={json.dumps(revision)})"
        )
    return _PATH_LINE.sub(lambda _: line, card)


def without_local_paths(text: str) -> str:
    """The text with the last part of each absolute path in place of the whole.

    Commands and recipes name what a run read and wrote; where that lay on the machine, and the name of its user, is
    nobody's business and no use to anyone. This user's own folder goes first: its name may have spaces in it.
    """
    home = str(Path.home())
    if len(Path(home).parts) > 1:
        text = text.replace(f"{home}/", "~/")
    return _LOCAL_FOLDER.sub("", text)


__all__ = ["PUBLISHED_TEXTS", "name_repository", "without_local_paths"]
