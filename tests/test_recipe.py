"""Recipes: what is read, what the command line changes, what is refused."""

import pytest

from hfseq import data
from hfseq.recipe import DataSection, load_recipe

RECIPE = """
data:
  corpus: kjv
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
    arguments = load_recipe(path, ["--eval_strategy", "no", "--bf16", "no"]).training_arguments
    assert arguments["learning_rate"] == 0.001
    assert arguments["save_strategy"] == arguments["eval_strategy"] == "no"
    assert arguments["bf16"] is False
    assert arguments["output_dir"] == "1e3"


def test_the_command_line_comes_on_top(path):
    recipe = load_recipe(path, ["--hidden_size", "48", "--data.corpus", "null", "--train_file", "a.txt"])
    assert recipe.model["hidden_size"] == 48
    assert (recipe.data.corpus, recipe.data.train_file) == (None, "a.txt")
    assert recipe.overrides == ["--hidden_size", "48", "--data.corpus", "null", "--train_file", "a.txt"]
    assert load_recipe(path).model["hidden_size"] == 32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a list", "must hold the sections data, model and training, not a list"),
        ("model: {model_type: hfseq_lstm}\ndatta: {}", "unknown section 'datta'.*data"),
        ("model: {model_type: hfseq_lstm, hiden_size: 3}", "no field 'hiden_size'.*hidden_size"),
        ("model: {hidden_size: 3}", "needs a model_type, one of .*hfseq_lstm"),
        ("model: {model_type: hfseq_lstm}\ndata: {streams: many}", "streams.*'many'"),
        ("model: [", "is not valid YAML"),
    ],
)
def test_what_is_refused(tmp_path, content, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_a_missing_recipe(tmp_path):
    with pytest.raises(FileNotFoundError, match="scripts/recipes"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("load", [data.load_corpus, data.load_pairs, data.load_features])
def test_the_data_section_has_what_loaders_take(load):
    section = DataSection(validation_share=0.25)
    arguments = section.arguments_of(load)
    assert arguments["validation_share"] == 0.25
    assert "corpus" not in arguments  # given by position
