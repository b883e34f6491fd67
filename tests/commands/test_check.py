"""hfseq check on a right checkpoint, on a wrong one, and on one that brings code."""

from __future__ import annotations

import dataclasses

import pytest
import transformers

from hfseq.contracts import CASES
from hfseq.contracts.distributed import folder_of
from hfseq.hub import export


@pytest.fixture
def check(run, capsys):
    """check(*words) -> exit code and what was printed."""

    def call(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as raised:
            run("check", *words)
        return raised.value.code, "".join(capsys.readouterr())

    return call


def case(name: str):
    return next(case for case in CASES if case.name == name)


def test_a_right_checkpoint_passes(check, tmp_path):
    case("GRUForCausalLM-tied").model().save_pretrained(tmp_path / "model")
    code, printed = check(tmp_path / "model", "--only", "padding", "causality")
    assert code == 0, printed
    assert "every contract that applies holds" in printed
    assert printed.count("passed") == 2


def test_a_wrong_checkpoint_fails_and_says_why(check, tmp_path):
    """A stock model whose loss ignores `num_items_in_batch`; what does not apply says why."""
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "model")
    code, printed = check(tmp_path / "model", "--only", "loss", "causality")
    assert code == 1, printed
    assert "FAILED" in printed and "num_items_in_batch" in printed
    assert "does not apply: nothing is known to be causal in it" in printed


def test_code_of_a_checkpoint_runs_only_when_asked(check, tmp_path):
    export(case("RNNForCausalLM-untied").model(), tmp_path / "model")
    planted = tmp_path / "ran"
    for file in (tmp_path / "model").glob("*.py"):
        text = file.read_text(encoding="utf-8").replace(
            "from __future__ import annotations",
            f"from __future__ import annotations\nopen({str(planted)!r}, 'w').close()", 1,
        )  # fmt: skip
        file.write_text(text, encoding="utf-8")
    code, printed = check(tmp_path / "model", "--only", "causality")
    assert code == 0, printed
    assert not planted.exists()


def test_no_checkpoint_is_an_error_that_names_it(check, tmp_path):
    code, printed = check(tmp_path / "nothing")
    assert code == 2 and "nothing" in printed


@pytest.mark.parametrize("form", ["absolute", "relative", "trailing slash", "stranger"])
def test_any_way_to_name_a_directory(form, tmp_path):
    """The contract with workers keeps a folder for each case, whose name is a checkpoint's path, or a Hub id."""
    path = tmp_path / "model"
    name = {"absolute": str(path), "relative": "here/model", "trailing slash": f"{path}/"}.get(
        form, "someone/model"
    )
    folder = folder_of(dataclasses.replace(case("GRUForCausalLM-tied"), name=name), tmp_path / "root")
    assert folder.parent == tmp_path / "root" and folder.name


@pytest.mark.full
@pytest.mark.parametrize("form", ["absolute", "relative", "trailing slash", "stranger"])
def test_the_contract_with_workers_runs_on_any_directory(check, form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if form == "stranger":
        config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=64)
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    else:
        case("GRUForCausalLM-tied").model().save_pretrained(tmp_path / "model")
    name = {"relative": "model", "trailing slash": f"{tmp_path / 'model'}/"}.get(
        form, str(tmp_path / "model")
    )
    code, printed = check(name, "--only", "distributed")
    assert code == 0, printed
