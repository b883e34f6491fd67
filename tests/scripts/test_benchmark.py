"""scripts/benchmark.py runs, compares equal things and writes what it measured; how fast things are is not tested."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))  # as Python does for the script
try:
    import benchmark as script
    from benchmarks import encoder, gpu, measuring, recurrent, recurrent_seq2seq
finally:
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def report():
    return measuring.Report(measuring.Settings(quick=True))


@pytest.fixture
def size():
    return recurrent.Size(vocabulary=50, width=8, layers=2, rows=3, time=5)


def run(*arguments) -> str:
    """What the script prints. Its threads are left as they were."""
    threads, printed = torch.get_num_threads(), io.StringIO()
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
            patch.setenv("RAYON_NUM_THREADS", "1")
            # Spawned processes, in which memory is measured, import what they call by its name.
            patch.syspath_prepend(str(SCRIPTS))
            script.main()
    finally:
        torch.set_num_threads(threads)
    return printed.getvalue()


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    output = tmp_path_factory.mktemp("benchmark") / "result.json"
    printed = run("lstm", "--quick", "--output", output)
    return printed, json.loads(output.read_text())


@pytest.mark.long
def test_all_quick_writes_every_line_and_checks_every_comparison(tmp_path):
    run("all", "--quick", "--output", tmp_path / "result.json")
    written = json.loads((tmp_path / "result.json").read_text())
    names = {line["name"].split(",")[0] for line in written["lines"]}
    assert {
        "LSTM training",
        "LSTM training memory",
        "LSTM training on streams",
        "LSTM decoding",
        "LSTM encoder-decoder training",
        "Pervasive training",
        "Pervasive training memory",
        "Pervasive decoding",
        "LSTM encoder-decoder decoding",
        "import hfseq: seconds more",
        "tokenising",
        "batching [4 x 16]",
    } <= names
    for what in ("tokenising", "batching"):
        assert what in " ".join(written["checks"])
    assert all(check["error"] <= check["limit"] for check in written["checks"].values())
    assert written["failures"] == []


@pytest.mark.long
def test_quick_writes_every_line_of_the_language_model(result):
    _, written = result
    names = {line["name"].split(",")[0] for line in written["lines"]}
    assert {"LSTM training", "LSTM training memory", "LSTM training on streams", "LSTM decoding"} <= names
    for line in written["lines"]:
        assert all(math.isfinite(line[key]) and line[key] > 0 for key in ("ours", "theirs", "ratio")), line
    assert written["failures"] == []


@pytest.mark.long
def test_quick_run_measures_nothing_and_claims_nothing(result):
    _, written = result
    assert all(line["goal"] is None and line["met"] is None for line in written["lines"])


@pytest.mark.long
def test_both_clocks_and_every_turn_are_in_the_output(result):
    _, written = result
    training = next(line for line in written["lines"] if line["name"].startswith("LSTM training, "))
    for clock in ("cpu", "wall"):
        assert set(training["details"][clock]) == {"ours", "theirs", "ratio", "ratios"}
        assert len(training["details"][clock]["ratios"]) == 2
    assert training["ratio"] == training["details"]["cpu"]["ratio"]


@pytest.mark.long
def test_machine_versions_and_load_are_in_the_output(result):
    _, written = result
    assert written["machine"]["cores"] >= 1 and written["machine"]["cpu"]
    assert written["versions"]["torch"] == torch.__version__
    assert written["versions"]["hfseq"].startswith("0.")
    assert len(written["load average before"]) == 3


@pytest.mark.long
def test_every_comparison_was_checked_for_equality(result):
    _, written = result
    checked = " ".join(written["checks"])
    for what in ("training, ", ": gradients", "padded batches", "decoding"):
        assert what in checked
    assert all(check["error"] <= check["limit"] for check in written["checks"].values())


@pytest.mark.long
def test_table_ends_the_output(result):
    printed, written = result
    table = printed.strip().splitlines()[-len(written["lines"]) - 1 :]
    assert table[0].split()[:2] == ["what", "against"]
    for row, line in zip(table[1:], written["lines"], strict=True):
        assert row.startswith(line["name"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lstm", "--threads", "0"], "--threads must be at least 1, not 0"),
        (["lstm", "--output", "no/such/folder/x.json"], "there is no directory no/such/folder"),
        (["bert"], "invalid choice"),
        (["gpu"], "gpu measures a GPU: add --device cuda"),
        pytest.param(
            ["lstm", "--device", "cuda"],
            "torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_arguments_say_what_to_do(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_unequal_training_is_void(report, size):
    ours = recurrent.our_model(size, "cpu")
    peer = recurrent.with_our_weights(recurrent.NaiveLanguageModel(size), ours)
    batches = recurrent.stream_batches(size, 2, "cpu")
    recurrent.check_equal_training(report, "equal", ours, peer, batches)
    with torch.no_grad():
        peer.rnn.bias_hh_l1[0] += 0.01
    peer.state = None
    ours.carried_states.clear()
    with pytest.raises(measuring.VoidComparisonError, match="unequal"):
        recurrent.check_equal_training(report, "unequal", ours, peer, batches)


def test_unequal_encoder_decoders_are_void(report):
    size = recurrent_seq2seq.QUICK
    ours = recurrent_seq2seq.our_model(size, "cpu")
    peer = recurrent_seq2seq.naive_of(ours, size)
    ids = torch.randint(3, size.vocabulary, (3, 3, 7), generator=torch.Generator().manual_seed(0))
    batch = dict(zip(("input_ids", "decoder_input_ids", "labels"), ids, strict=True))
    batch["attention_mask"] = (torch.arange(7) < torch.tensor([[7], [3], [1]])).long()
    for loop in (False, True):
        loss = functools.partial(peer.loss, loop=loop)
        recurrent_seq2seq.check_equal(report, "equal", ours, peer, loss, batch)
    with torch.no_grad():
        peer.query.weight[0] += 0.1
    with pytest.raises(measuring.VoidComparisonError, match="unequal"):
        recurrent_seq2seq.check_equal(report, "unequal", ours, peer, peer.loss, batch)


def test_not_a_number_is_void(report):
    with pytest.raises(measuring.VoidComparisonError):
        report.check("losses", math.nan, 1.0)


def test_only_the_part_that_was_asked_for(tmp_path):
    output = tmp_path / "result.json"
    run("seq2seq", "--quick", "--only", "decoding", "--output", output)
    names = [line["name"] for line in json.loads(output.read_text())["lines"]]
    assert names and all("decoding" in name for name in names)
    with pytest.raises(SystemExit, match="--only decoding: import has no such part"):
        run("import", "--quick", "--only", "decoding")


def test_void_section_is_reported_and_the_next_one_runs(report, tmp_path):
    report.output = tmp_path / "result.json"
    report.section(lambda report: report.check("losses", 2.0, 1.0))
    report.section(lambda report: report.check("others", 0.5, 1.0))
    written = json.loads(report.output.read_text())
    assert len(written["failures"]) == 1 and "losses" in written["failures"][0]
    assert set(written["checks"]) == {"losses", "others"}


@pytest.mark.parametrize(
    "goal,at_least,met", [(1.3, True, True), (1.5, True, False), (1.5, False, True), (None, True, None)]
)
def test_verdict(goal, at_least, met):
    line = measuring.Line("a", "b", 1.0, 1.0, "x", 1.4, goal, at_least)
    assert line.met is met
    assert line.cells()[-2] == {True: "met", False: "NOT MET", None: ""}[met]


def test_ratio_is_the_median_over_turns_of_theirs_by_ours(report):
    ours = measuring.Times(wall=[1.0, 2.0, 4.0], cpu=[1.0, 1.0, 1.0])
    theirs = measuring.Times(wall=[3.0, 4.0, 12.0], cpu=[1.5, 2.0, 9.0])
    report.compare("line", "peer", "tokens/s", 10, ours, theirs)
    line = report.lines[0]
    assert (line.ratio, line.ours, line.theirs) == (2.0, 10.0, 5.0)
    assert line.details["wall"]["ratio"] == 3.0


def test_what_only_a_gpu_measures_runs_on_a_cpu_too(report, size):
    """So that a machine with a GPU is not lent for finding a typing error."""
    recurrent.device_checks(report)
    recurrent.precision_lines(report, size, "fp32")
    recurrent.decoding_paths(report, size)
    assert {
        "output loss",
        "carried state",
        "padding on the left",
        "generate() with and without cache",
    } <= set(report.checks)
    assert any(line.name.startswith("LSTM layers, fp32") for line in report.lines)


def test_what_only_a_gpu_measures_of_the_encoder_runs_on_a_cpu_too(report, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)  # takes minutes here
    size = encoder.EncoderSize(vocabulary=64, width=32, layers=2, rows=4, time=64)
    encoder.gpu_lines(report, size, "bf16")
    assert report.failures == [] and report.facts["MLM training, bf16, compiled: MFU"] > 0
    assert {line.name.split(",")[2].strip() for line in report.lines} >= {"full rows", "sentences of 8-128"}


@pytest.mark.long
def test_every_line_of_a_gpu_runs_on_a_cpu_too(report, monkeypatch):
    """And those that compile, without compiling."""
    gpu.gpu(report)
    assert report.failures == []
    left_out = {name for name in report.facts if name.endswith("left out")}
    assert left_out == {
        f"{part}_line, compiled: left out" for part in ("encoder", "transformer", "pervasive")
    }
    monkeypatch.setattr(torch, "compile", lambda model: model)
    for part in (gpu.encoder_line, gpu.transformer_line):
        report.section(part, compiled=True)
    report.section(gpu.pervasive_line, 6, compiled=True)
    assert report.failures == []
    for words in (
        "MLM training, full rows", "MLM training, bf16, sentences of 8-128", "Transformer training",
        "LSTM training, bf16", "LSTM layers, bf16", "Pervasive training",
    ):  # fmt: skip
        lines = [line for line in report.lines if line.name.startswith(words)]
        assert lines and all(math.isfinite(line.ratio) and line.ratio > 0 for line in lines), words
    shares = [line for line in report.lines if line.peer == "matmul peak"]
    assert sorted("compiled" in line.name for line in shares) == [False, False, True, True]
    assert {line.unit for line in shares} == {"TFLOP/s"}
    for words in (
        "matmul peak, bf16",
        "MLM training",
        "Transformer training",
        "LSTM training",
        "Pervasive training",
    ):
        assert any(
            # memory is what a CPU's process grew by: none, after tests that took more
            name.startswith(words) and (value > 0 or name.endswith("GiB"))
            for name, value in report.facts.items()
            if name not in left_out
        )


@pytest.mark.long
def test_token_arrays_of_a_large_file(tmp_path):
    """One process and two make the same arrays; memory is that of all processes."""
    output = tmp_path / "result.json"
    run("arrays", "--quick", "--output", output)
    written = json.loads(output.read_text())
    assert written["failures"] == [] and written["checks"]
    lines = {line["name"].partition(", ")[2]: line for line in written["lines"]}
    assert {"two processes", "two idle cores", "memory"} <= lines.keys()
    assert 50 < lines["memory"]["ours"] < 700
    one, two = (written["facts"]["builds"][number][0] for number in ("1", "2"))
    assert one["tokens"] == two["tokens"] > 1e6
    assert two["cpu"] > two["reader cpu"] > 0


def test_nothing_is_compiled_when_the_time_is_spent(report, monkeypatch):
    monkeypatch.setattr(gpu, "COMPILE_UNTIL", -1)
    monkeypatch.setattr(report, "section", lambda *part, **options: None)
    report.settings = measuring.Settings(device="cuda", quick=True)
    gpu.gpu(report)
    assert report.facts["encoder_line, compiled: left out"].endswith("s spent")


def test_peers_batch_holds_the_same_sentences_and_masks(report, monkeypatch):
    size = encoder.encoder_size(report.settings, 16384)
    (batch,), _ = encoder.plan_batches(size, report.settings, "documents", 1)
    padded = encoder.padded(batch)
    assert int(padded["attention_mask"].sum()) == encoder.real_tokens(batch)
    ours, theirs = ((b["labels"] != encoder.IGNORE_INDEX).sum() for b in (batch, padded))
    assert ours == theirs > 0
