"""`hfseq plan` on a small text, and what it refuses."""

import json

import pytest

from hfseq.commands import plan

RECIPE = """
data: {train_file: verses.txt, txt_document: line}
tokenizer: {type: bpe, vocab_size: 300}
objective: {type: causal, streams: 8, segment_length: 16}
model: {model_type: hfseq_lstm, hidden_size: 32, num_hidden_layers: 2}
training: {learning_rate: 1e-2, optimizer: muon, num_train_epochs: 2}
"""


def fill(folder):
    lines = [f"And in the year {year} the king of the {year % 7}th city did well." for year in range(400)]
    (folder / "verses.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "mine.yaml").write_text(RECIPE, encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HFSEQ_CACHE", str(tmp_path / "cache"))
    fill(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The plan of the recipe as it is."""
    folder = tmp_path_factory.mktemp("usual")
    fill(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HFSEQ_CACHE", str(folder / "cache"))
        return planned()


# Sizes at which nothing of a recipe's data is left out, and little is computed.
SMALL = ["--tokenizer.vocab_size", "500", "--tokens_per_update", "1024"]
NARROW = [*SMALL, "--hidden_size", "48", "--intermediate_size", "64", "--num_hidden_layers", "1"]
NARROW_PAIRS = [*SMALL, "--d_model", "64", "--encoder_ffn_dim", "64", "--decoder_ffn_dim", "64"]
NARROW_PAIRS += ["--encoder_layers", "1", "--decoder_layers", "1"]


def planned(*words):
    plan.main(["mine.yaml", "--device", "h100", "--output", "plan.json", *words])
    with open("plan.json", encoding="utf-8") as file:
        return json.load(file)


def test_a_plan_says_what_pretraining_would_need(folder, capsys):
    facts = planned()
    said = capsys.readouterr().out
    assert "fits" in said
    assert "limited by" in said
    assert "not measured by us" in said
    work = facts["heaviest_micro_batch"]
    assert facts["prediction"]["memory"]["weights"] == work["parameter_bytes"]
    assert work["recurrent_steps"] == 2 * 16
    assert facts["prediction"]["updates"] > 10
    assert not (folder / "outputs").exists()


def test_devices_divide_the_streams(folder, usual):
    one, four = usual, planned("--devices", "4")
    assert one["heaviest_micro_batch"]["flops"] == pytest.approx(
        4 * four["heaviest_micro_batch"]["flops"], rel=0.05
    )
    assert one["prediction"]["updates"] == four["prediction"]["updates"]
    assert "buckets" in four["prediction"]["memory"]


def test_max_steps_and_fields_on_the_command_line(folder, usual):
    assert planned("--max_steps", "5")["prediction"]["updates"] == 5
    wide = planned("--hidden_size", "64")["heaviest_micro_batch"]
    assert wide["parameters"] > usual["heaviest_micro_batch"]["parameters"]


def test_what_does_not_fit_says_what_to_try(folder, capsys):
    planned("--hidden_size", "60000", "--embedding_size", "16")
    assert "DOES NOT FIT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--devices", "0"], "--devices must be at least 1, not 0"),
        (["--devices", "3"], "streams"),
        (["--device", "h10"], "Unknown device 'h10'.*'h100'"),
        (["--network", "0"], "--network must be above 0"),
        (["--hiden_size", "3"], "'hidden_size'"),
        (["--output", "."], "is a directory"),
        (["--tokens", "0"], "--tokens must be a number of tokens, 1 or more, not 0"),
        (["--train_file", "gone.txt"], "No file or folder gone.txt.*To plan without the data.*--tokens 1e9"),
        (["--tokens", "1e6", "--tokenizer.path", "gone"], "(?s)tokenizer.path 'gone'.*say how large it is"),
    ],
)
def test_what_is_refused(folder, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        plan.main(["mine.yaml", "--device", "h100", *words])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert __import__("re").search(message, said), said


def test_without_the_data_the_plan_is_nearly_the_same(folder, capsys):
    """The same vocabulary, the same number of tokens: what an update takes is the same, and as many are made."""
    real = planned("--tokenizer.type", "word")
    tokens = 8 * 16 * real["prediction"]["updates"] / 2  # of 8 streams, in two epochs
    (folder / "verses.txt").unlink()
    assumed = planned("--tokenizer.type", "word", "--tokens", str(tokens))
    said = capsys.readouterr().out
    assert "made up, with a vocabulary of 300; documents of 150 tokens" in said
    assert assumed["assumed"].startswith("a vocabulary of 300") and real["assumed"] is None
    names = ("flops", "peak_bytes", "parameters", "recurrent_steps")
    for name in names:
        work = assumed["heaviest_micro_batch"][name]
        assert work == pytest.approx(real["heaviest_micro_batch"][name], rel=0.01), name
    assert assumed["prediction"]["updates"] == pytest.approx(real["prediction"]["updates"], abs=2)


def test_more_tokens_are_more_updates_though_no_more_are_made(folder):
    few, many = planned("--tokens", "1e6"), planned("--tokens", "1e9")
    assert many["heaviest_micro_batch"] == few["heaviest_micro_batch"]
    assert many["prediction"]["updates"] == pytest.approx(1000 * few["prediction"]["updates"], rel=0.001)
    assert not list((folder / "cache").glob("*"))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("encoder-wiki-imdb", NARROW),
        pytest.param(
            "transformer-denoise-wiki",
            NARROW_PAIRS,
            marks=pytest.mark.long,
        ),
        ("transformer-iwslt14-de-en", NARROW_PAIRS),
        ("lstm-colours", SMALL),
    ],
)
def test_every_kind_of_data_can_be_made_up(folder, recipe, words):
    """What these recipes read is not here."""
    plan.main([recipe, "--device", "h100", "--output", "plan.json", "--tokens", "1e6", *words])
    facts = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert facts["prediction"]["updates"] > 0 and facts["assumed"]
