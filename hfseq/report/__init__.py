"""The report: the claims about each architecture, measured, on one page (`hfseq compare --report DIRECTORY`).

    experiment.py   what an experiment is; experiments/ has one file for each, EXPERIMENTS lists them
    scales.py       how much is measured: cpu, gpu, tiny
    runner.py       measures what is missing, one file a measurement
    page.py         index.html, numbers.json, one CSV a figure
    wording.py      sentences that are chosen by the numbers; statistics.py: intervals
    drawing.py      pictures

Needs matplotlib (`pip install 'hfseq[report]'`), sacrebleu for BLEU, and the data that each experiment names.
"""

from __future__ import annotations

from .experiment import Experiment
from .experiments.alignments import Alignments
from .experiments.given_runs import GivenRuns
from .experiments.gradient import Gradient
from .experiments.heads import Heads
from .experiments.language_models import LanguageModels
from .experiments.memory import Memory
from .experiments.pretraining import Pretraining
from .experiments.remembering import Remembering
from .experiments.shapes import Shapes
from .experiments.side_by_side import SideBySide
from .experiments.step_time import StepTime
from .experiments.translation import Translation
from .experiments.word_order import WordOrder
from .writing import write_report

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        Shapes(),
        Gradient(),
        Remembering(),
        StepTime(),
        Memory(),
        WordOrder(),
        Translation(),
        Alignments(),
        Heads(),
        SideBySide(),
        Pretraining(),
        LanguageModels(),
        GivenRuns(),
    )
}
"""All, by name, in the order of the page."""

__all__ = ["EXPERIMENTS", "Experiment", "write_report"]
