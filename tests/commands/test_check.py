"""hfseq check on a right checkpoint, on a wrong one, and on one that brings code."""

from __future__ import annotations

import pytest
import transformers

from hfseq.contracts import CASES
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
