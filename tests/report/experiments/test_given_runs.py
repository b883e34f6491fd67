"""What is read of trained runs: the packaged cards' own summaries."""

import json

import pytest

from hfseq.report.experiment import Context
from hfseq.report.experiments.given_runs import GivenRuns
from hfseq.report.scales import SCALES
from hfseq.report.translators import given_run

NAMES = ("lstm-kjv", "rnn-kjv", "transformer-multi30k-en-de")


def test_runs_compare_within_their_data(repository, tmp_path):
    pytest.importorskip("matplotlib")
    context = Context(tmp_path, SCALES["tiny"], 1, [repository / "model_cards" / name for name in NAMES])
    results = {m.key: m.measure() for m in GivenRuns().measurements(context)}
    section = GivenRuns().section(json.loads(json.dumps(results)), context)
    assert [table.caption for table in section.tables] == [
        "Language models, kjv.",
        "Translators, multi30k en to de.",
    ]
    first, second = section.tables[0].rows
    assert first[0] == "lstm-kjv" and float(first[3]) < float(second[3])  # fewer bits per byte stand above
    assert "lstm-kjv 1.25" in section.sentences[0] and "One run each" in section.sentences[0]
    assert {picture.name for picture in section.pictures} == {
        "given_causal_kjv",
        "given_translation_multi30k_en_to_de",
    }


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="hfseq pretrain writes at its end"):
        given_run(tmp_path)
