"""What was measured is kept: a run that was stopped goes on, the first seed of everything first."""

import json

import pytest

from hfseq.report.experiment import Context, Experiment, Measurement, Section
from hfseq.report.runner import begin, measure, results_of
from hfseq.report.scales import SCALES


class Counting(Experiment):
    title = story = "x"

    def __init__(self, name, log, stop_at=None):
        self.name, self.log, self.stop_at = name, log, stop_at

    def measurements(self, context):
        return [Measurement(f"{seed}-a", lambda s=seed: self.note(s)) for seed in range(context.seeds)]

    def note(self, seed):
        if (self.name, seed) == self.stop_at:
            raise KeyboardInterrupt
        self.log.append((self.name, seed))
        return {"value": seed}

    def section(self, results, context):
        return Section()


def test_it_goes_on_where_it_was_stopped(tmp_path):
    context, log = Context(tmp_path, SCALES["tiny"], 2), []
    begin(context)
    stopped = [Counting("one", log), Counting("two", log, stop_at=("two", 0))]
    with pytest.raises(KeyboardInterrupt):
        measure(stopped, context, progress=False)
    assert log == [("one", 0)]
    whole = [Counting("one", log), Counting("two", log)]
    measure(whole, context, progress=False)
    assert log == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    measure(whole, context, progress=False)
    assert len(log) == 4
    assert results_of(whole[0], context) == {"0-a": {"value": 0}, "1-a": {"value": 1}}


def test_a_report_has_one_scale(tmp_path):
    begin(Context(tmp_path, SCALES["tiny"], 1))
    with pytest.raises(ValueError, match="report of --scale tiny, not of cpu: name another directory"):
        begin(Context(tmp_path, SCALES["cpu"], 1))
    facts = json.loads((tmp_path / "data" / "report.json").read_text())
    assert facts["scale"] == "tiny" and facts["machine"]["torch"]
