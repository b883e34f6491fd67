"""Every contract on every class of hfseq; `-m "full or not full"` (make contracts) adds the remaining variants."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from transformers import PreTrainedModel

import hfseq
from hfseq.contracts import CASES, CONTRACTS, RUN, TABLE, Row, cell
from hfseq.contracts.families import SOURCE
from hfseq.contracts.table import families

# In this order the encoder-decoders are those with attention, at either place.
CELLS = ("RNN", "GRU", "LSTM")


def one_cell_per_head():
    """One case for each class, but of the recurrent ones a single cell for each head, the cells in turn.

    The three cells share every line of their heads, and a compiled recurrent model costs 5 to 18 seconds: what compiles
    or is distributed with one cell is so with the others. The full matrix runs them all.
    """
    chosen, heads = [], []
    for case in CASES:
        if not case.in_subprocesses:
            continue
        cell_name, head = re.fullmatch(f"({'|'.join(CELLS)})?(.+)", case.model_class.__name__).groups()
        if cell_name and head not in heads:
            heads.append(head)
        if not cell_name or cell_name == CELLS[heads.index(head) % len(CELLS)]:
            chosen.append(case)
    return chosen


ONE_EACH = one_cell_per_head()
# What is traced, to be compiled or exported, is the slowest: once for each way through the code. Models without a head
# are inside those with one, and these heads are a linear layer on what others have.
INSIDE_OTHERS = ("Model", "ForQuestionAnswering", "ForMultipleChoice", "RNNForTokenClassification")
TRACED = [case for case in ONE_EACH if not case.model_class.__name__.endswith(INSIDE_OTHERS)]
# Heads on one body compile as they are exported, the body's training alone is another matter: once for each body.
HEADS_EXPORTED = (
    "ForSequenceClassification", "ForTokenClassification", "EncoderForPreTraining",
)  # fmt: skip
COMPILED = [case for case in TRACED if not case.model_class.__name__.endswith(HEADS_EXPORTED)]
BY_DEFAULT = {"compiling": COMPILED, "distributed": ONE_EACH, "resuming": ONE_EACH, "clients": TRACED}
# Of language models the cache is that of the cell, whatever the weights are tied to.
ONE_CACHE = re.compile(r"2-caching-(RNN|GRU|LSTM|RNN-relu)ForCausalLM-(tied|untied)")


def in_process():
    for contract in CONTRACTS:
        for case in CASES:
            if not contract.per_family and cell(case, contract) == RUN:
                name = f"{contract.number}-{contract.key}-{case.name}"
                by_default = case in BY_DEFAULT.get(contract.key, [case]) and not ONE_CACHE.fullmatch(name)
                marks = [] if by_default and not case.full else [pytest.mark.full]
                yield pytest.param(contract, case, id=name, marks=marks)


def in_subprocesses():
    """One subprocess for what stands for all classes: starting it costs as much as ten of the models."""
    for contract in CONTRACTS:
        if contract.per_family:
            name = f"{contract.number}-{contract.key}"
            running = [case for case in CASES if cell(case, contract) == RUN]
            # Of exporting each class's files are what it is about.
            by_default = BY_DEFAULT.get(contract.key, [case for case in running if case.in_subprocesses])
            chosen = [case for case in running if case in by_default]
            yield pytest.param(contract, chosen, id=name)
            for family, cases in families():
                others = [case for case in cases if case in running and case not in chosen]
                if others:
                    yield pytest.param(contract, others, id=f"{name}-{family}", marks=pytest.mark.full)


# The longest first: what comes last is what a second process waits for.
@pytest.mark.parametrize(("contract", "cases"), list(in_subprocesses()))
def test_contract_in_a_subprocess(contract, cases):
    contract.run(cases, SOURCE)


@pytest.mark.parametrize(("contract", "case"), list(in_process()))
def test_contract(contract, case):
    contract.run(case)


# --- the table itself ---------------------------------------------------------------------------------------------


def model_classes() -> set[str]:
    return {
        name
        for name in hfseq.__all__
        if isinstance(getattr(hfseq, name), type) and issubclass(getattr(hfseq, name), PreTrainedModel)
    }


def test_every_class_has_a_row_and_every_row_a_class():
    assert set(TABLE) == model_classes()


def test_every_class_has_cases_that_run_by_default_and_in_the_subprocesses():
    assert {case.model_class.__name__ for case in CASES if not case.full} == model_classes()
    assert {case.model_class.__name__ for case in CASES if case.in_subprocesses} == model_classes()


def test_every_head_is_distributed_by_default_and_so_is_every_cell():
    chosen = {case.model_class.__name__ for case in ONE_EACH}

    def head(name):
        return re.sub("^(LSTM|GRU|RNN)", "", name)

    assert {head(name) for name in chosen} == {head(name) for name in model_classes()}
    assert {name[:3] for name in chosen} >= {"LST", "GRU", "RNN"}
    assert len(chosen) < len(model_classes())
    traced = {case.model_class.__name__ for case in TRACED}
    assert {head(name) for name in chosen - traced} == {
        "Model", "Seq2SeqModel", "EncoderModel", "TransformerModel", "PervasiveModel",
        "EncoderForQuestionAnswering", "EncoderForMultipleChoice", "ForTokenClassification",
    }  # fmt: skip


def test_every_column_is_a_contract():
    assert [field.name for field in fields(Row)] == [contract.key for contract in CONTRACTS]


def test_a_row_with_a_missing_cell_cannot_be_written():
    with pytest.raises(TypeError, match="bad_input"):
        Row(**{field.name: RUN for field in fields(Row) if field.name != "bad_input"})


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_does_not_apply_says_why(name):
    for field in fields(Row):
        value = getattr(TABLE[name], field.name)
        assert value == RUN or len(value.split()) >= 3, f"{name}.{field.name}: {value!r} is no reason"


def test_what_a_variant_cannot_promise_says_why():
    for case in CASES:
        assert set(case.broken) <= {contract.key for contract in CONTRACTS}
        assert all(len(reason.split()) >= 3 for reason in case.broken.values())


def test_the_contracts_of_the_design_are_all_there():
    assert {contract.number for contract in CONTRACTS} == set(range(1, 13))


def test_names_of_cases_are_unique():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
