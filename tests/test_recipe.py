"""Recipes: what is read, what the command line changes, what is refused."""

import pytest
import yaml

from hfseq import data
from hfseq.objectives import OBJECTIVES, load_recipe
from hfseq.objectives.old_recipes import modernise
from hfseq.recipe import find_recipe, packaged_recipes, read_sections

RECIPE = """
data:
  corpus: kjv
objective:
  type: causal
model:
  model_type: hfseq_lstm
  hidden_size: 32
training:
  output_dir: 1e3
  learning_rate: 1e-3
  save_strategy: no
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_what_yaml_reads_otherwise_than_people(path):
    recipe = load_recipe(path, ["--eval_strategy", "no", "--bf16", "no", "--prompt", "#c04e01"])
    arguments = recipe.training_arguments
    assert arguments["learning_rate"] == 0.001
    assert arguments["save_strategy"] == arguments["eval_strategy"] == "no"
    assert arguments["bf16"] is False
    assert arguments["output_dir"] == "1e3"
    assert recipe.training.prompt == "#c04e01"
    assert load_recipe(path, ["--prompt", "He said: go"]).training.prompt == "He said: go"
    assert load_recipe(path, ["--prompt", "[MASK] is"]).training.prompt == "[MASK] is"
    assert load_recipe(path, ["--prompt=null"]).training.prompt is None


def test_the_command_line_comes_on_top(path):
    recipe = load_recipe(path, ["--hidden_size", "48", "--data.corpus", "null", "--train_file=a.txt"])
    assert recipe.model["hidden_size"] == 48
    assert (recipe.data.corpus, recipe.data.train_file) == (None, "a.txt")
    assert recipe.overrides == ["--hidden_size", "48", "--data.corpus", "null", "--train_file=a.txt"]
    assert load_recipe(path).model["hidden_size"] == 32


def test_the_command_line_may_choose_the_model(path):
    words = ["--model_type", "gpt2", "--n_embd", "32", "--row_length", "16"]
    path.write_text(RECIPE.replace("  hidden_size: 32\n", ""), encoding="utf-8")
    recipe = load_recipe(path, words)
    assert recipe.model == {"model_type": "gpt2", "n_embd": 32} and recipe.objective.row_length == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a list", "must hold sections such as data and model, not a list"),
        ("datta: {}", r"unknown section 'datta'.*'data'"),
        ("model: {model_type: hfseq_lstm, hiden_size: 3}", "no field 'hiden_size'.*'hidden_size'"),
        ("model: {hidden_size: 3}", "needs a model_type: .*hfseq_lstm"),
        ("objective: {type: causal, streams: many}", r"objective\.streams must be int, not 'many'"),
        ("objective: {type: causal, streams: 2.5}", r"objective\.streams must be int, not 2\.5"),
        ("objective: {type: causal, streams: true}", r"objective\.streams must be int, not True"),
        ("objective: {type: casual}", "unknown objective.type 'casual'.*'causal'"),
        ("objective: {streams: 3}", "objective section needs a type, one of causal, .*masked"),
        ("tokenizer: {type: bpee}", "type 'bpee' is none of the algorithms"),
        (
            "objective: {type: causal, mask_rate: 5}",
            "no field 'mask_rate': that is a field of objective masked",
        ),
        ("training: {learning_rat: 1}", "no field 'learning_rat'.*'learning_rate'"),
        ("training: {optim: sgd}", r"no field 'optim'.*set here \(optimizer\)"),
        ("training: {label_smoothing_factor: 0.1}", "the model's own label_smoothing"),
        (
            "data: {corpus: kjv, validation_share: .nan}",
            r"data\.validation_share must be a finite number, not nan",
        ),
        ("objective: {type: causal, streams: 1" + "0" * 20 + "}", r"objective\.streams is beyond all"),
        (
            "tokenizer: {type: bpe, path: somewhere}",
            "path 'somewhere' names a tokenizer as it is: type would change",
        ),
        ("model: [", "is not valid YAML"),
        ("model: " + "[" * 5000, "is not valid YAML"),
    ],
)
def test_what_is_refused(tmp_path, content, message):
    path = tmp_path / "wrong.yaml"
    whole = yaml.safe_load(RECIPE)
    try:
        own = yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError):
        own = None
    if isinstance(own, dict):
        content = yaml.safe_dump({**whole, **own})
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


@pytest.mark.parametrize(
    ("line", "again"), [("objective:", "objective: {type: masked}"), ("  corpus: kjv", "  corpus: wiki")]
)
def test_a_key_that_stands_twice(path, line, again):
    """YAML takes the last; the first would be gone without a word."""
    path.write_text(
        f"{RECIPE}{again}\n" if line == "objective:" else RECIPE.replace(line, f"{line}\n{again}")
    )
    key = line.strip().partition(":")[0]
    with pytest.raises(ValueError, match=f"'{key}' stands twice, in lines [0-9]+ and [0-9]+"):
        load_recipe(path)


def test_a_tokenizer_is_trained_or_there(path):
    """The command line's takes the place of the file's, and what a run saves can be read again."""
    path.write_text(f"{RECIPE}tokenizer: {{type: unigram, vocab_size: 900}}\n")
    there = load_recipe(path, ["--tokenizer.path", "somewhere"])
    assert there.tokenizer.path == "somewhere" and there.tokenizer.vocab_size is None
    path.write_text(yaml.safe_dump(there.as_dict()))
    assert load_recipe(path).tokenizer == there.tokenizer
    trained = load_recipe(path, ["--tokenizer.type", "word"]).tokenizer
    assert (trained.type, trained.vocab_size, trained.lowercase, trained.path) == ("word", 4096, False, None)
    for words in (["--tokenizer.path", "x", "--tokenizer.type", "bpe"], ["--lowercase", "true"]):
        with pytest.raises(ValueError, match="names a tokenizer as it is"):
            load_recipe(path, words)


def test_another_optimizer_has_its_own_arguments():
    """The recipe's are Muon's, which AdamW would refuse."""
    own = {"split_gates": True}
    assert load_recipe("lstm-kjv").training.optimizer_arguments == own
    assert load_recipe("lstm-kjv", ["--optimizer", "muon"]).training.optimizer_arguments == own
    for option in ("--optimizer", "--training.optimizer"):
        assert load_recipe("lstm-kjv", [option, "adamw"]).training.optimizer_arguments == {}
    chosen = load_recipe("lstm-kjv", ["--optimizer", "ntasgd", "--optimizer_arguments", "{nonmono: 3}"])
    assert chosen.training.optimizer_arguments == {"nonmono": 3}


@pytest.mark.parametrize(
    ("name", "near"), [("lstm-kvj", "'lstm-kjv'"), ("nowhere/lstm-kjv.yaml", "'lstm-kjv'")]
)
def test_a_missing_recipe(name, near):
    with pytest.raises(
        FileNotFoundError, match=f"none of the packaged recipes has that name. Did you mean {near}"
    ):
        load_recipe(name)


def test_packaged_recipes_are_found_by_name_and_files_by_path(path, monkeypatch):
    assert find_recipe("lstm-kjv") == packaged_recipes()["lstm-kjv"]
    monkeypatch.chdir(path.parent)
    assert load_recipe("./small.yaml").name == "small"


# Those of fine-tuning have no objective, and a test beside their command.
PRETRAINING = [name for name, path in packaged_recipes().items() if "objective" in read_sections(path)]


@pytest.mark.parametrize("name", PRETRAINING)
def test_every_packaged_recipe_is_one(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.training_arguments["output_dir"] == f"outputs/{name}"


@pytest.mark.parametrize(
    ("loader", "objective"),
    [(data.load_corpus, "causal"), (data.load_pairs, "translation"), (data.load_features, "vector_to_text")],
)
def test_a_data_section_has_what_its_loader_takes(loader, objective):
    import dataclasses
    import inspect

    fields = {f.name for f in dataclasses.fields(OBJECTIVES[objective].data_section)}
    taken = {p.name for p in inspect.signature(loader).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert taken <= fields


def test_old_recipes_lose_nothing_that_was_used():
    old = {
        "data": {
            "corpus": "kjv",
            "tokenizer": "bpe",
            "tokenizer_vocab_size": 300,
            "streams": 4,
            "mask_rate": 0.3,
        },
        "model": {"model_type": "hfseq_gru"},
        "training": {"learning_rate": 1e-3, "num_beams": 5},
    }
    assert modernise(old) == {
        "data": {"corpus": "kjv"},
        "tokenizer": {"type": "bpe", "vocab_size": 300},
        "objective": {"type": "causal", "streams": 4},
        "model": {"model_type": "hfseq_gru"},
        "training": {"learning_rate": 1e-3},
    }


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("tokenizer: {type: bpe}\n", "the objective section needs a type"),
        ("objectiv: {type: causal}\n", "unknown section 'objectiv'. Did you mean 'objective'?"),
        ("traning: {max_steps: 3}\n", "unknown section 'traning'. Did you mean 'training'?"),
        ("task: {type: regression}\n", "`hfseq finetune` takes it"),
        ("training: {max_steps: 3}\n", "is a recipe of hfseq 0.1"),
    ],
)
def test_a_section_that_is_missing_or_misspelt_is_not_the_old_form(tmp_path, sections, message):
    """A new recipe without its objective was rewritten as an old one, its misspelt section dropped without a word."""
    (tmp_path / "r.yaml").write_text("data: {corpus: kjv}\nmodel: {model_type: hfseq_gru}\n" + sections)
    with pytest.raises(ValueError) as raised:
        load_recipe(str(tmp_path / "r.yaml"))
    assert message in str(raised.value)
