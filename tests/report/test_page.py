"""The page is for a person: on a phone and on paper, and for one who knows none of the architectures."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from hfseq.plots.figure import new_figure
from hfseq.report import EXPERIMENTS
from hfseq.report.experiment import Context, Experiment, Measurement, Picture, Row, Section, Table
from hfseq.report.page import PIXELS, STEPS, write_page
from hfseq.report.runner import begin, measure
from hfseq.report.scales import SCALES


class Heads(Experiment):
    name, title, story, reading = "heads", "What do several heads see?", "A story.", "Dark is where it looks."

    def measurements(self, context):
        return [Measurement("0-a", lambda: {})]

    def section(self, results, context):
        rows = [Row("a", 1.0, 2.0)]
        pictures = [
            Picture("small", new_figure(4, 2), "Small.", "1 line", rows),
            Picture("maps", new_figure(8, 2), "Maps of <heads>.", "2 maps", rows, wide=True),
        ]
        return Section(
            ["Head 3 & 4 are needed."], pictures, [Table("Costs.", ["model", "n"], [["a", "1 ± 0"]])]
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    context = Context(tmp_path_factory.mktemp("page"), SCALES["tiny"], 1)
    facts = begin(context)
    measure([Heads()], context, progress=False)
    write_page([Heads()], context, facts, "hfseq compare")
    return context.directory


def test_the_story_comes_first_and_leads_to_what_was_measured(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    places = [
        text.index(words) for words in ("The steps", "How to read this page", "<nav><h2>What this run shows")
    ]
    assert places == sorted(places) and places[-1] < text.index('<section id="heads">')
    story = text[places[0] : places[1]]
    assert all(step.name in story for step in STEPS)
    assert '<a href="#heads">What do several heads see?</a>' in story
    assert "#gradient" not in story and story.count("Not measured in this run.") == len(STEPS) - 1
    section = text[text.index('<section id="heads">') :]
    order = ("A story.", "Head 3 &amp; 4", "Dark is where it looks.", "<figure>", "Costs.")
    assert [section.index(words) for words in order] == sorted(section.index(words) for words in order)
    assert "How to read it: Dark is where it looks." in (folder / "report.md").read_text(encoding="utf-8")


def test_headings_leave_no_level_out(folder):
    levels = [int(n) for n in re.findall(r"<h(\d)>", (folder / "index.html").read_text(encoding="utf-8"))]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))


def test_what_is_wider_than_a_phone_scrolls_in_a_frame_of_its_own(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    frames = re.findall(r'<div class="scroll" role="region" tabindex="0" aria-label="([^"]+)"><(\w+)', text)
    assert frames == [("Maps of &lt;heads&gt;.", "img"), ("Costs.", "table")]
    assert text.count(f'style="min-width:{8 * PIXELS}px"') == text.count('style="min-width') == 1


def test_the_steps_name_experiments_and_every_picture_is_explained():
    assert {name for step in STEPS for name in step.measured} <= set(EXPERIMENTS)
    assert [name for name, experiment in EXPERIMENTS.items() if not experiment.reading] == ["side_by_side"]
