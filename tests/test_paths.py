"""Paths as users write them mean the same in a recipe, a variable and on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfseq.data import cache, load_corpus, load_features, load_pairs
from hfseq.hints import nearest_hint
from hfseq.paths import user_path


def test_home_and_variables(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HERE", "~/here")
    home = tmp_path / "home"
    for written, meant in (
        ("~", home),
        ("~/a b", home / "a b"),
        ("$HERE/x", home / "here" / "x"),
        ("${HERE}x", home / "herex"),
        ("a/~/b", Path("a/~/b")),
        ("./~", Path("~")),
        ("org/name", Path("org/name")),
        (Path("~/c"), home / "c"),
        ("**/*.txt", Path("**/*.txt")),
    ):
        assert user_path(written) == meant, written


def test_a_name_with_a_dollar_that_is_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "price$EUR.txt").write_text("a")
    assert user_path("price$EUR.txt") == Path("price$EUR.txt")
    with pytest.raises(
        ValueError, match=r"Path 'cost\$EUR.txt': the environment variable 'EUR' is not set. Set it"
    ):
        user_path("cost$EUR.txt")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "An empty path"),
        ("  ", "An empty path"),
        (3, r"A path must be text, not 3 \(int\)"),
        (["a"], r"A path must be text, not \['a'\] \(list\)"),
        ("a\0b", "is no path: it holds the character U"),
        ("${NOT_SET_AT_ALL}/x", "variable 'NOT_SET_AT_ALL' is not set"),
        ("~nobody-of-that-name/x", r"no home directory of user 'nobody-of-that-name'.*'./~nobody"),
    ],
)
def test_what_is_no_path(written, message):
    with pytest.raises(ValueError, match=message):
        user_path(written)


def test_every_path_of_the_data_is_one(monkeypatch, tmp_path):
    """Nothing makes or looks for a folder called ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTS", "~/texts")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one\n\ntwo")
    (tmp_path / "texts" / "p.tsv").write_text("a\tb\n")
    (tmp_path / "texts" / "f.csv").write_text("text,x\na,1\n")
    shares = {"validation_share": 0.0, "test_share": 0.0}
    for files in ("~/texts/a.txt", "$TEXTS/*.txt", ["~/texts/a.txt"]):
        assert load_corpus(train_file=files, **shares).train == ["one", "two"]
    assert load_pairs(train_file="$TEXTS/p.tsv", **shares).texts["train"] == (["a"], ["b"])
    assert load_features(train_file="~/texts/f.csv", feature_columns="x", **shares).texts["train"] == ["a"]
    monkeypatch.setenv("HFSEQ_CACHE", "~/kept")
    assert cache.default_cache_dir() == tmp_path / "kept"
    monkeypatch.setenv("HFSEQ_CACHE", "$TEXTS/kept")
    assert cache.cache_folder(None) == tmp_path / "texts" / "kept"
    assert cache.cache_folder("~/other") == tmp_path / "other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts"]


def test_the_nearest_word():
    assert nearest_hint("cropus", ["corpus", "train_file"]) == " Did you mean 'corpus'?"
    assert nearest_hint("zzz", ["corpus"]) == ""
    assert nearest_hint(["a"], []) == nearest_hint(None, ["x"]) == ""
