"""The report's findings as Markdown beside the page, with its pictures as files: for a site or a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .experiment import Context, Experiment, Section
from .wording import counted


def markdown_of(
    sections: Sequence[tuple[Experiment, Section]], context: Context, facts: Mapping[str, Any], command: str
) -> str:
    """What was measured: for each experiment with results its question, findings, pictures (NAME.svg) and how.

    Args:
        sections: in the order of the page.
        facts: what `runner.begin` returned.
        command: that made the report, without --only.
    """
    machine = facts["machine"]
    where = (
        machine.get("gpu")
        or f"{machine['processor']}, {counted(machine['cores'], 'core')}, {counted(machine['threads'], 'thread')}"
    )
    lines = [
        "# Why each step happened",
        "",
        f"Measured by `{command}` (hfseq {machine['hfseq']}, torch {machine['torch']}, transformers "
        f"{machine['transformers']}) on {where}. Every sentence under *Measured* was chosen by the numbers; where two "
        "95% intervals overlap, it says that the run shows no difference.",
    ]
    if context.scale.toy_data:
        lines += ["", "A trial of the command on made-up sentences: no number here means anything."]
    for experiment, section in sections:
        if not section.sentences:
            continue
        lines += ["", f"## {experiment.title}", "", experiment.story, "", "Measured:", ""]
        lines += [f"- {_plain(sentence)}" for sentence in section.sentences]
        if section.pictures and experiment.reading:
            lines += ["", f"How to read it: {experiment.reading}"]
        for picture in section.pictures:
            lines += [
                "",
                f"![{_plain(picture.alt)}]({picture.name}.svg)",
                "",
                f"*{_plain(picture.caption)}* `{experiment.command(context)}`, [numbers]({picture.name}.csv)",
            ]
        lines += ["", f"How: {_plain(section.setup)}"]
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    """On one line, without what Markdown would take for its own."""
    for mark in "\\*_[]<>`|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


__all__ = ["markdown_of"]
