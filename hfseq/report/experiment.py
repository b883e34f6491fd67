"""What an experiment is: measurements, each of which is kept as soon as it is made, and what a page says of them.

An experiment is one file of `experiments/` and one line in `hfseq.report.EXPERIMENTS`. `measurements` lists what is to
be measured, `section` is asked for the page with whatever there is so far: it has to do with any part of the results,
and says nothing of the rest.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .scales import Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = dict[str, Any]
"""What a measurement found, as JSON has it."""


@dataclass
class Context:
    """What all experiments of a report share."""

    directory: Path
    scale: Scale
    seeds: int
    models: Sequence[Path] = ()
    """Trained runs that the user gave: what `hfseq pretrain` wrote."""

    @property
    def data(self) -> Path:
        """Where measurements are kept."""
        return self.directory / "data"

    def trained(self, name: str) -> Path:
        """Where the weights of a model that the report trains lie."""
        return self.directory / "models" / name

    @cached_property
    def device(self) -> str:
        """Where models run."""
        return self.scale.device


@dataclass(frozen=True)
class Measurement:
    """One number, or a few that are found together."""

    key: str
    """Unique within the experiment, and the name of its file."""
    measure: Callable[[], Result]

    @property
    def round(self) -> int:
        """Its seed, where the key begins with one: all of the first seed is measured before any of the second."""
        seed = self.key.partition("-")[0]
        return int(seed) if seed.isdigit() else 0


@dataclass
class Row:
    """A line of a figure's CSV."""

    series: str
    x: float | str
    mean: float
    low: float | None = None
    high: float | None = None
    values: int = 1
    """How many `mean` is the mean of."""


@dataclass
class Picture:
    """A figure of the page, with the numbers that it draws."""

    name: str
    """Unique within the report; the name of its CSV."""
    figure: Figure
    caption: str
    alt: str
    """What a reader who does not see the picture should know, with its numbers."""
    rows: list[Row]
    wide: bool = False
    """Of many panels: shown as wide as the page."""


@dataclass
class Table:
    """A table of the page."""

    caption: str
    heading: list[str]
    rows: list[list[str]]


@dataclass
class Section:
    """What the page says of an experiment."""

    sentences: list[str] = field(default_factory=list)
    """What the run shows, the most important first: it also stands in the summary."""
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    setup: str = ""
    """How it was measured."""


class Experiment(ABC):
    """One of the claims."""

    name: ClassVar[str]
    title: ClassVar[str]
    """A question that a newcomer would ask."""
    story: ClassVar[str]
    """What the experiment is about and what is usually said, in plain words; not a result."""
    reading: ClassVar[str] = ""
    """How to read its pictures: what is on the axes, and which way is better; not a result."""
    takes_models: ClassVar[bool] = False
    """Whether the user's trained runs (--models) are part of it."""

    def command(self, context: Context) -> str:
        """What makes its figures: directories by their names, for where they lie is the writer's matter."""
        words = ["hfseq", "compare", "--report", context.directory.name, "--scale", context.scale.name]
        words += ["--seeds", str(context.seeds), "--only", self.name]
        if self.takes_models and context.models:
            words += ["--models", *(path.resolve().name for path in context.models)]
        return shlex.join(words)

    def missing(self, context: Context) -> str | None:
        """Why it cannot run here, with the remedy; None: it can."""
        return None

    @abstractmethod
    def measurements(self, context: Context) -> list[Measurement]:
        """All that is to be measured, in the order in which the page profits most."""

    @abstractmethod
    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        """What can be said of these results; they may be some of the measurements, or none."""


def by_subject(results: Mapping[str, Result], subjects: Iterable[str]) -> dict[str, list[Result]]:
    """Results whose keys are SEED-SUBJECT or begin so, of each subject that has any, in the order of `subjects`."""
    found = {
        subject: [r for key, r in results.items() if key.split("-")[1] == subject] for subject in subjects
    }
    return {subject: own for subject, own in found.items() if own}


__all__ = [
    "Context",
    "Experiment",
    "Measurement",
    "Picture",
    "Result",
    "Row",
    "Section",
    "Table",
    "by_subject",
]
