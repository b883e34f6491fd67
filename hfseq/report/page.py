"""The page: one HTML file with its pictures and its style inside, for a phone, a desktop and paper.

No script and no network. Every sentence about a result comes from an experiment's `section`; what is written here only
explains words.
"""

from __future__ import annotations

import csv
import html
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.report import write_json
from .drawing import data_uri, svg_of
from .experiment import Context, Experiment, Picture, Section, Table
from .headline import NAME as HEADLINE
from .headline import headline
from .markdown import markdown_of
from .runner import results_of, seconds_of
from .wording import counted

STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--soft:#555;--line:#d5d5d5;--tint:#f3f6f9;--link:#0b5cad;
--shade:#0004}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#16181b;--soft:#b4b4b4;--line:#3a3d42;--tint:#202429;
--link:#7ab8f5;--shade:#fff5}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.55 system-ui,sans-serif;overflow-wrap:break-word}
main{max-width:46rem;margin:0 auto;padding:1rem 1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:1rem 0 .5rem}
h2{font-size:1.35rem;line-height:1.25;margin:3rem 0 .5rem;border-top:1px solid var(--line);padding-top:1.2rem}
h3{font-size:1.05rem;margin:1.4rem 0 .3rem}
a{color:var(--link)}
.soft,figcaption,.setup{color:var(--soft);font-size:.9rem}
.warn{border-left:4px solid #D55E00;background:var(--tint);padding:.6rem .9rem}
.found{background:var(--tint);border-left:4px solid #0072B2;padding:.5rem .9rem;margin:1rem 0}
.found strong{display:block}.found ul{margin:.3rem 0;padding-left:1.1rem}.found li{margin:.3rem 0}
.steps{padding-left:1.4rem}.steps h3{margin:0}.steps p{margin:.2rem 0}.steps li{margin:0 0 1.1rem}
figure{margin:1.4rem 0;break-inside:avoid}
figure img{display:block;width:100%;max-width:30rem;height:auto;background:#fff;border-radius:6px;margin:0 auto}
figure.wide img{max-width:none}
.made{display:block;margin-top:.2rem}
.swipe{display:none}
code{font-size:.85em;background:var(--tint);padding:.05em .3em;border-radius:3px;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:1rem 0;
background:linear-gradient(90deg,var(--paper) 30%,transparent) 0 0/40px 100% local,
linear-gradient(270deg,var(--paper) 30%,transparent) 100% 0/40px 100% local,
linear-gradient(90deg,var(--shade),transparent) 0 0/10px 100% scroll,
linear-gradient(270deg,var(--shade),transparent) 100% 0/10px 100% scroll;background-repeat:no-repeat}
figure .scroll{margin:0}
table{border-collapse:collapse;font-size:.88rem;min-width:60%}
caption{text-align:left;color:var(--soft);padding:.3rem 0}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{vertical-align:bottom}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.n{white-space:nowrap}
dt{font-weight:600;margin-top:.6rem}dd{margin:0 0 .2rem}
nav ol{padding-left:1.5rem}nav li{margin:.4rem 0}nav .soft{display:block}
@media (max-width:40rem){.swipe{display:block}}
@page{margin:16mm 15mm}
@media print{:root{color-scheme:light;--ink:#000;--paper:#fff;--soft:#333;--line:#bbb;--tint:#fff;--link:#000}
body{font-size:10pt;line-height:1.4}main{max-width:none;padding:0}
h1,h2,h3,.reading,caption,.found strong{break-after:avoid}.soft,figcaption,.setup{font-size:8.5pt}h2{margin-top:1.6rem}
p{orphans:3;widows:3}.found li,.steps li,nav li,dd,tr,.warn{break-inside:avoid}thead{display:table-header-group}
table{break-inside:avoid}
figure{max-width:11cm;margin:.8rem auto}figure.wide{max-width:none}figure.wide img{min-width:0!important}
figure img{max-width:100%}.scroll{overflow:visible;background:none}.swipe{display:none}
table{font-size:8.5pt}a{color:inherit;text-decoration:none}}
"""


@dataclass(frozen=True)
class Step:
    """One of the story: what was missing, and what came; what is usually told, which the sections measure."""

    name: str
    missing: str
    came: str
    measured: tuple[str, ...]
    """Names of the experiments about it."""


STEPS = (
    Step(
        "Recurrent network (RNN; Elman 1990)",
        "a network took so many words and no more; a sentence may have any number.",
        "It reads one word after the other with the same weights, and keeps one state: a list of numbers that is all "
        "it knows of the words so far.",
        ("shapes", "memory"),
    ),
    Step(
        "LSTM (1997) and GRU (2014)",
        "the plain recurrent network writes over its whole state at every word. What it read fades, and so does the "
        "signal from which it could learn to remember.",
        "They give the state gates: small switches that decide what is kept, written and read, so that something can "
        "be held unchanged over many words.",
        ("gradient", "remembering"),
    ),
    Step(
        "Attention (Bahdanau 2015)",
        "a translator had to press the source sentence, however long, into one state before it wrote a word.",
        "It looks back: all source words stay there, and each step takes a weighted mean of them, with weights that "
        "depend on what is needed now. It began as a help for recurrent translators.",
        ("translation", "alignments", "remembering"),
    ),
    Step(
        "Transformer (2017)",
        "a recurrent network waits: no word can be computed before the one before it is done, and from a far word the "
        "way leads through all between.",
        "It has attention alone, so that all words of a text are computed at once and any two are one step apart. It "
        "has several attentions side by side, the heads, and is told the order of the words by positions.",
        ("step_time", "memory", "word_order", "heads", "translation"),
    ),
    Step(
        "BERT (2018)",
        "texts with labels are dear, and every task began from nothing; plain text is there in plenty.",
        "It is a Transformer that reads in both directions and first learns from plain text, by guessing words that "
        "were hidden (pretraining); then a little labelled data makes it a classifier.",
        ("pretraining",),
    ),
    Step(
        "Pervasive Attention (2018)",
        "the source is read once, before it is known what the translation will need of it.",
        "It has no encoder and no decoder: one network over all pairs of a source word and a target word, like an "
        "image, so that the source is read anew for each word of the translation.",
        ("translation", "alignments"),
    ),
    Step(
        "Mamba (2023)",
        "attention keeps every word, and what it keeps grows with the text.",
        "It goes back to a state of fixed size: a recurrent network of a new kind, whose gates depend on the input and "
        "whose steps can be computed side by side.",
        ("gradient", "remembering"),
    ),
)
WORDS = {
    "Token": "what a model reads and writes at a time: a word, or a piece of a rare one.",
    "Parameters": "the numbers inside a model, which training sets. An update moves all of them a little, after a few "
    "texts; the gradient says which way each should move, and how strongly.",
    "Loss, perplexity, bits per byte": "how little a model expected a text that it had not seen, told in three ways; "
    "lower is better. Perplexity is the number of equally likely choices that it hesitated between.",
    "BLEU": "how much a translation has in common with a person's, counted in runs of one to four words: from 0 to "
    "100, higher is better.",
    "Accuracy": "the share of right answers, from 0 to 1.",
    "FLOP": "one addition or multiplication of two numbers.",
}
INTERVALS = (
    "Every training is repeated with other random numbers, so-called seeds, and comes out a little different. A point "
    "is the mean; the band or whisker, in the text the number after ±, is its 95% interval (Student's t): the true "
    "mean may well be anywhere in it. Where two intervals overlap, the page says that this run shows no difference: "
    "with three seeds, intervals are wide. All models are small, and trained for minutes: a number says how far one "
    "gets with that, not how far the architecture goes."
)


def write_page(
    experiments: Sequence[Experiment], context: Context, facts: Mapping[str, Any], command: str
) -> Path:
    """Writes index.html into the report's directory, and beside it report.md, numbers.json, a CSV and an SVG for each
    figure, and headline.svg of the most telling ones together.

    Args:
        experiments: in the order of the page.
        facts: what `runner.begin` returned.
        command: that made the report, without --only.

    Returns:
        the page's path.
    """
    parts: list[str] = []
    headlines: list[tuple[Experiment, str]] = []
    sections: list[tuple[Experiment, Section]] = []
    numbers: dict[str, Any] = {"command": command, **facts, "experiments": {}}
    for experiment in experiments:
        results = results_of(experiment, context)
        section = experiment.section(results, context) if results else Section()
        expected = 0 if experiment.missing(context) else len(experiment.measurements(context))
        drawn = {picture.name: svg_of(picture.figure, picture.name) for picture in section.pictures}
        parts.append(_section(experiment, section, drawn, len(results), expected, context))
        sections.append((experiment, section))
        if section.sentences:
            headlines.append((experiment, section.sentences[0]))
        numbers["experiments"][experiment.name] = {"measurements": results, "sentences": section.sentences}
        for picture in section.pictures:
            _replace(context.directory / f"{picture.name}.csv", _csv(picture))
            _replace(context.directory / f"{picture.name}.svg", drawn[picture.name] + "\n")
    pictures = {picture.name: picture for _, section in sections for picture in section.pictures}
    if (whole := headline(pictures)) is not None:
        _replace(context.directory / f"{HEADLINE}.svg", svg_of(whole, HEADLINE) + "\n")
    write_json(context.directory / "numbers.json", numbers)
    _replace(context.directory / "report.md", markdown_of(sections, context, facts, command))
    minutes = seconds_of(experiments, context) / 60
    titles = {experiment.name: experiment.title for experiment, _ in headlines}
    head, made = _head(facts, context, minutes, command, titles)
    page = _frame(head, _contents(headlines) + made, parts)
    return _replace(context.directory / "index.html", page)


def _head(
    facts: Mapping[str, Any], context: Context, minutes: float, command: str, titles: Mapping[str, str]
) -> tuple[str, str]:
    """What the page begins with, and, after the list of what was found, where it comes from."""
    machine = facts["machine"]
    where = (
        machine.get("gpu")
        or f"{machine['processor']}, {counted(machine['cores'], 'core')}, {counted(machine['threads'], 'thread')}"
    )
    warning = ""
    if context.scale.toy_data:
        warning = (
            '<p class="warn">A trial of the command on made-up sentences: no number here means anything.</p>'
        )
    words = "".join(f"<dt>{_text(name)}</dt><dd>{_text(said)}</dd>" for name, said in WORDS.items())
    return (
        "<h1>Why each step happened</h1>"
        "<p>Networks that read and write texts have replaced each other for thirty years: RNN, LSTM, attention, "
        "Transformer, BERT. Each was built because something was missing in the one before. This page tells what that "
        "was, and measures whether it shows: all on the same data, budget and machine. It takes ten minutes, and "
        "asks for no knowledge of networks.</p>"
        f"{warning}"
        f'<h2>The steps</h2><ol class="steps">{"".join(_step(step, titles) for step in STEPS)}</ol>'
        f"<h2>How to read this page</h2><p>{_text(INTERVALS)}</p><p>Each section asks a question, says what this run "
        "shows of it (sentences that are chosen by the numbers), and how to read its pictures. Under each picture "
        f"stand the command that makes it and the file with its numbers.</p><dl>{words}</dl>"
    ), (
        f'<p class="soft">Made by <code>{_text(command)}</code> (hfseq {_text(machine["hfseq"])}, torch '
        f"{_text(machine['torch'])}, transformers {_text(machine['transformers'])}) on {_text(where)}; "
        f"measurements took {minutes:.0f} minutes. "
        'All numbers: <a href="numbers.json">numbers.json</a>.</p>'
    )


def _step(step: Step, titles: Mapping[str, str]) -> str:
    links = [f'<a href="#{name}">{_text(titles[name])}</a>' for name in step.measured if name in titles]
    measured = f"Measured: {' · '.join(links)}" if links else "Not measured in this run."
    return (
        f"<li><h3>{_text(step.name)}</h3><p><strong>What was missing:</strong> {_text(step.missing)}</p>"
        f'<p><strong>The step:</strong> {_text(step.came)}</p><p class="soft">{measured}</p></li>'
    )


def _contents(headlines: Sequence[tuple[Experiment, str]]) -> str:
    lines = "".join(
        f'<li><a href="#{e.name}">{_text(e.title)}</a> <span class="soft">{_text(said)}</span></li>'
        for e, said in headlines
    )
    return f"<nav><h2>What this run shows</h2><ol>{lines}</ol></nav>" if lines else ""


def _section(
    experiment: Experiment,
    section: Section,
    drawn: Mapping[str, str],
    done: int,
    expected: int,
    context: Context,
) -> str:
    out = [
        f'<section id="{experiment.name}"><h2>{_text(experiment.title)}</h2><p>{_text(experiment.story)}</p>'
    ]
    why = experiment.missing(context)
    if why and not done:
        out.append(f'<p class="warn">Not measured here: {_text(why)}</p>')
    elif done < expected:
        left = "not begun" if done == 0 else f"{done} of {expected} measurements"
        out.append(
            f'<p class="warn">This part is not finished ({left}): the same command goes on with it.</p>'
        )
    if section.sentences:
        found = "".join(f"<li>{_text(sentence)}</li>" for sentence in section.sentences)
        out.append(f'<div class="found"><strong>What this run shows</strong><ul>{found}</ul></div>')
    if section.pictures and experiment.reading:
        out.append(f'<p class="reading"><strong>How to read it:</strong> {_text(experiment.reading)}</p>')
    made = experiment.command(context)
    out += [_figure(picture, drawn[picture.name], made) for picture in section.pictures]
    out += [_table(table) for table in section.tables]
    if section.setup:
        out.append(f'<p class="setup"><strong>How:</strong> {_text(section.setup)}</p>')
    return "".join([*out, "</section>"])


PIXELS = 85
"""Of an inch of a wide picture, at least: narrower screens scroll it sideways, for smaller letters are not legible."""


def _figure(picture: Picture, svg: str, command: str) -> str:
    least = f' style="min-width:{picture.figure.get_figwidth() * PIXELS:.0f}px"' if picture.wide else ""
    image = f'<img src="{data_uri(svg)}" alt="{_text(picture.alt)}"{least}>'
    kind = swipe = ""
    if picture.wide:
        kind, image = ' class="wide"', _sideways(picture.caption, image)
        swipe = '<span class="swipe">(Wider than a phone: it moves sideways.)</span> '
    return (
        f"<figure{kind}>{image}<figcaption>{swipe}{_text(picture.caption)} "
        f'<span class="made">Made by <code>{_text(command)}</code>; numbers in '
        f'<a href="{picture.name}.csv">{picture.name}.csv</a>.</span></figcaption></figure>'
    )


def _sideways(name: str, inside: str) -> str:
    """What may be wider than the screen, in a frame that scrolls, by the keyboard too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(name)}">{inside}</div>'


def _table(table: Table) -> str:
    numeric = [
        bool(table.rows) and all(_is_number(row[i]) for row in table.rows) for i in range(len(table.heading))
    ]
    kinds = [' class="n"' if is_number else "" for is_number in numeric]
    head = "".join(f"<th{kind}>{_text(cell)}</th>" for kind, cell in zip(kinds, table.heading, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return _sideways(
        table.caption,
        f"<table><caption>{_text(table.caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>",
    )


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("", "-") or (cell[:1] in "-+" and cell[1:2].isdigit())


def _csv(picture: Picture) -> str:
    """series, x, mean, low, high, values; empty where one value has no interval."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["series", "x", "mean", "low", "high", "values"])
    for row in picture.rows:
        writer.writerow([row.series, row.x, row.mean, row.low, row.high, row.values])
    return out.getvalue()


def _frame(head: str, contents: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Why each step happened - hfseq</title><style>{STYLE}</style></head>"
        f"<body><main>{head}{contents}{''.join(parts)}</main></body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _replace(path: Path, text: str) -> Path:
    """Written whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


__all__ = ["write_page"]
