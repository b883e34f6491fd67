"""Tables of texts with vectors, their split, their batches, and what is said of broken ones."""

import importlib.metadata
import json
import math

import numpy as np
import pytest

from hfseq import data
from hfseq.data import FeaturePlan, FeatureTable, load_features
from hfseq.data.colours import lab_of, rgb_of

NAMES = [
    f"{shade} {colour} {n}" for n in range(12) for shade in ("light", "dark") for colour in ("red", "blue")
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    rows = [f"{name},{i / 10},{-i}" for i, name in enumerate(NAMES)]
    path.write_text("name,x,y\n" + "\n".join(rows) + "\n")
    return path


def load(path, **options) -> FeatureTable:
    options = {"feature_columns": ["x", "y"], "text_column": "name", **options}
    return load_features(train_file=str(path), validation_share=0.2, test_share=0.2, **options)


@pytest.fixture
def arrays(table, tmp_path):
    loaded = load(table)
    tokenizer = data.train_tokenizer(loaded.texts["train"], "character", 60)
    return loaded, tokenizer, data.build_token_arrays(loaded.corpus(), tokenizer, tmp_path / "cache")


def test_a_vector_stays_with_its_text_from_file_to_batch(arrays):
    loaded, tokenizer, sides = arrays
    assert loaded.width == 2 and sum(len(texts) for texts in loaded.texts.values()) == len(NAMES)
    seen = {}
    for side, array in sides.items():
        plan = FeaturePlan(array, loaded.features[side], tokens_per_update=100)
        for index in range(len(plan)):
            batch = plan[index]
            for labels, mask, vector in zip(
                batch["labels"], batch["attention_mask"], batch["features"], strict=True
            ):
                ids = labels[mask.bool()].tolist()
                assert ids[-1] == tokenizer.eos_token_id
                seen[tokenizer.decode(ids[:-1])] = vector.tolist()
    assert seen == {name: pytest.approx([i / 10, -i]) for i, name in enumerate(NAMES)}


def test_jsonl_with_lists_and_columns_in_order(tmp_path):
    path = tmp_path / "table.jsonl"
    rows = [{"name": name, "x": [i, i + 0.5], "y": str(-i)} for i, name in enumerate(NAMES)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    loaded = load(path, feature_columns=["y", "x"])
    vectors = {
        text: vector.tolist()
        for side, texts in loaded.texts.items()
        for text, vector in zip(texts, loaded.features[side], strict=True)
    }
    assert vectors[NAMES[7]] == [-7, 7, 7.5]


def test_equal_names_are_on_one_side_whatever_their_case_and_vector(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("name,x,y\n" + "".join(f"{n},0,1\n{n.upper()},1,0\n{n}  ,2,0\n" for n in NAMES))
    loaded = load(path)
    sides = [{text.lower().strip() for text in texts} for texts in loaded.texts.values()]
    assert len(sides) == 3 and not any(a & b for a in sides for b in sides if a is not b)
    assert len(loaded.features["train"]) == 3 * len(sides[0])


def test_sides_of_their_own(table, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("name,x,y\nlight red 0,5,6\n")
    loaded = load(table, validation_file=str(other))
    assert loaded.texts["validation"] == ["light red 0"] and loaded.features["validation"].tolist() == [
        [5, 6]
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("good,nan,1", "line 2, column 'x': 'nan' is not finite"),
        ("good,1,-inf", "line 2, column 'y': '-inf' is not finite"),
        ("good,,1", "line 2, column 'x': '' is no number"),
        ("good,red,1", "'red' is no number"),
        (" ,0,1", "line 2: column 'name' holds ' ', which is no text"),
    ],
)
def test_broken_rows_are_named(tmp_path, row, words):
    path = tmp_path / "table.csv"
    path.write_text(f"name,x,y\n{row}\n")
    with pytest.raises(ValueError, match=words):
        load(path)


def test_broken_json_rows_are_named(tmp_path):
    path = tmp_path / "table.jsonl"
    for text, words in (
        ('{"name": "a", "x": [1, NaN], "y": 1}', "line 1, column 'x': nan is not finite"),
        ('{"name": "a", "x": true, "y": 1}', "True is no number"),
        ('{"name": "a", "x": null, "y": 1}', "None is no number"),
        ('{"name": 3, "x": 1, "y": 1}', "holds 3, which is no text"),
        ('{"name": "a", "x": 1}', "no column 'y'; there are 'name', 'x'"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: a list, not a JSON object"),
    ):
        path.write_text(text + "\n")
        with pytest.raises(ValueError, match=words):
            load(path)
    path.write_text(
        "".join(json.dumps({"name": n, "x": [1] * (1 + (n == NAMES[3])), "y": 0}) + "\n" for n in NAMES)
    )
    with pytest.raises(ValueError, match=r"line 4: 3 numbers, but the first row .* has 2"):
        load(path)


def test_wrong_calls_say_what_to_do(table, tmp_path):
    with pytest.raises(ValueError, match="no column 'z'.*feature_columns"):
        load(table, feature_columns="z")
    with pytest.raises(ValueError, match="no column 'text'"):
        load(table, text_column="text")
    with pytest.raises(ValueError, match="feature_columns is empty"):
        load(table, feature_columns=None)
    with pytest.raises(ValueError, match="twice: x, x"):
        load(table, feature_columns=["x", "x"])
    with pytest.raises(ValueError, match="'colors'.*Did you mean 'colours'"):
        load_features("colors")
    with pytest.raises(ValueError, match="neither"):
        load_features()
    with pytest.raises(FileNotFoundError, match="nothing.csv"):
        load("nothing.csv")
    (tmp_path / "text.txt").write_text("words")
    with pytest.raises(ValueError, match=r"cannot read .txt; known: .csv, .tsv, .jsonl"):
        load(tmp_path / "text.txt")
    (tmp_path / "one.csv").write_text("name,x,y\nred,0,1\n")
    with pytest.raises(ValueError, match="no row fell on the"):
        load(tmp_path / "one.csv")


# ---- colours


def test_colours_as_numbers():
    assert rgb_of("#ff8000") == rgb_of("FF8000") == (1.0, pytest.approx(128 / 255), 0.0)
    for code in ("#ff80", "#gg0000", "red"):
        with pytest.raises(ValueError, match="is no colour.*#c93f38"):
            rgb_of(code)
    # published CIELAB values of sRGB's primaries, D65
    for rgb, lab in (
        ((1, 1, 1), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)), ((0, 0, 1), (32.30, 79.19, -107.86)),
    ):  # fmt: skip
        assert math.dist(lab_of(rgb), lab) < 0.1


def test_the_packaged_colours():
    try:
        importlib.metadata.distribution("colourmapper-dev")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("colourmapper-dev is not installed (extra demo)")
    loaded = load_features("colours")
    assert sum(len(texts) for texts in loaded.texts.values()) == 30_222
    assert loaded.columns == ("red", "green", "blue")
    assert loaded.features["train"].min() >= 0 and loaded.features["train"].max() <= 1
    both = load_features("colours", feature_columns=["lightness", "red"])
    assert both.texts == loaded.texts
    np.testing.assert_array_equal(both.features["test"][:, 1], loaded.features["test"][:, 0])
    with pytest.raises(ValueError, match="no column 'rot'.*lightness"):
        load_features("colours", feature_columns=["rot"])
    place = loaded.texts["train"].index("18th Century Green")
    np.testing.assert_allclose(loaded.features["train"][place], rgb_of("#a59344"), rtol=1e-6)
