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
from pathlib import Path
from typing import Any

from ..training.report import write_json
from .drawing import data_uri, svg_of
from .experiment import Context, Experiment, Picture, Section, Table
from .headline import NAME as HEADLINE
from .headline import headline
from .markdown import markdown_of
from .runner import results_of, seconds_of

STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--soft:#555;--line:#d5d5d5;--tint:#f3f6f9;--link:#0b5cad}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#16181b;--soft:#aaa;--line:#3a3d42;--tint:#202429;
--link:#7ab8f5}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.55 system-ui,sans-serif;overflow-wrap:break-word}
main{max-width:46rem;margin:0 auto;padding:1rem 1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:1rem 0 .5rem}
h2{font-size:1.35rem;line-height:1.25;margin:3rem 0 .5rem;border-top:1px solid var(--line);padding-top:1.2rem}
h3{font-size:1.05rem;margin:1.4rem 0 .3rem}
a{color:var(--link)}
.soft,figcaption,.setup{color:var(--soft);font-size:.9rem}
.warn{border-left:4px solid #D55E00;background:var(--tint);padding:.6rem .9rem}
.found{background:var(--tint);border-left:4px solid #0072B2;padding:.5rem .9rem .5rem 1.9rem;margin:1rem 0}
.found li{margin:.3rem 0}
figure{margin:1.4rem 0;break-inside:avoid}
figure img{display:block;width:100%;max-width:33rem;height:auto;background:#fff;border-radius:6px;margin:0 auto}
figure.wide img{max-width:100%}
code{font-size:.85em;background:var(--tint);padding:.05em .3em;border-radius:3px;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.88rem;min-width:60%}
caption{text-align:left;color:var(--soft);padding:.3rem 0}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
dt{font-weight:600;margin-top:.6rem}dd{margin:0 0 .2rem}
nav ol{padding-left:1.3rem}
@media print{body{font-size:10.5pt;background:#fff;color:#000}main{max-width:none;padding:0}nav{display:none}
h2{break-after:avoid}figure{max-width:14cm;margin-left:auto;margin-right:auto}figure.wide{max-width:none}
.scroll{overflow:visible}a{color:inherit;text-decoration:none}}
"""

WORDS = {
    "Recurrent network (RNN, Elman 1990)": "reads one word after the other and keeps one state, a list of numbers, "
    "that is all it knows of the words so far.",
    "LSTM (1997) and GRU (2014)": "recurrent networks whose state has gates: small switches that decide what is kept, "
    "written and read, so that something can be held unchanged over many steps.",
    "Attention (2015)": "looks back: instead of one state, all earlier words stay there, and each step takes a "
    "weighted mean of them, with weights that depend on what is asked. It began as a help for recurrent translators "
    "(Bahdanau).",
    "Transformer (2017)": "has attention alone: no step waits for the one before it, so a whole text is computed at "
    "once. It has several attentions side by side, the heads, and is told the order of the words by positions.",
    "BERT-style encoder (2018)": "a Transformer that reads in both directions and is first trained on plain text, to "
    "guess hidden words; then a little labelled data makes it a classifier.",
    "Pervasive Attention (2018)": "has no encoder and no decoder: a two-dimensional network over all pairs of a source "
    "word and a target word, like an image.",
    "Mamba (2023)": "a recurrent network of a new kind, whose gates depend on the input and whose steps can be "
    "computed side by side.",
}
HOW_TO_READ = (
    "Points are means over seeds (runs that differ by their random numbers alone); the band or whisker is the 95% "
    "interval of that mean (Student's t). Where two intervals overlap, the page says that this run shows no "
    "difference: with three seeds, intervals are wide. All models are small, and trained for minutes: a number "
    "says how far one gets with that, not how far the architecture goes."
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
    page = _frame(_head(facts, context, minutes, command), _contents(headlines), parts)
    return _replace(context.directory / "index.html", page)


def _head(facts: Mapping[str, Any], context: Context, minutes: float, command: str) -> str:
    machine = facts["machine"]
    where = (
        machine.get("gpu")
        or f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    )
    warning = ""
    if context.scale.toy_data:
        warning = (
            '<p class="warn">A trial of the command on made-up sentences: no number here means anything.</p>'
        )
    words = "".join(f"<dt>{_text(name)}</dt><dd>{_text(said)}</dd>" for name, said in WORDS.items())
    return (
        "<h1>Why each step happened</h1>"
        "<p>RNN, LSTM, Transformer, BERT and Pervasive Attention on the same data, budget and machine: what "
        "each can do that the one before it could not, measured.</p>"
        f"{warning}"
        f'<p class="soft">Made by <code>{_text(command)}</code> (hfseq {_text(machine["hfseq"])}, torch '
        f"{_text(machine['torch'])}, transformers {_text(machine['transformers'])}) on {_text(where)}; "
        f"measurements took {minutes:.0f} minutes. "
        'All numbers: <a href="numbers.json">numbers.json</a>.</p>'
        f"<h3>The models in a sentence each</h3><dl>{words}</dl>"
        f"<h3>How to read the pictures</h3><p>{_text(HOW_TO_READ)}</p>"
    )


def _contents(headlines: Sequence[tuple[Experiment, str]]) -> str:
    lines = "".join(
        f'<li><a href="#{e.name}">{_text(e.title)}</a> <span class="soft">{_text(said)}</span></li>'
        for e, said in headlines
    )
    return f"<nav><h3>What this run shows</h3><ol>{lines}</ol></nav>" if lines else ""


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
        out.append(f'<ul class="found">{"".join(f"<li>{_text(s)}</li>" for s in section.sentences)}</ul>')
    made = experiment.command(context)
    out += [_figure(picture, drawn[picture.name], made) for picture in section.pictures]
    out += [_table(table) for table in section.tables]
    if section.setup:
        out.append(f'<p class="setup"><strong>How:</strong> {_text(section.setup)}</p>')
    return "".join([*out, "</section>"])


def _figure(picture: Picture, svg: str, command: str) -> str:
    kind = ' class="wide"' if picture.wide else ""
    return (
        f'<figure{kind}><img src="{data_uri(svg)}" alt="{_text(picture.alt)}">'
        f"<figcaption>{_text(picture.caption)} Made by <code>{_text(command)}</code>; numbers in "
        f'<a href="{picture.name}.csv">{picture.name}.csv</a>.</figcaption></figure>'
    )


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
    return (
        f'<div class="scroll"><table><caption>{_text(table.caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
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
