"""Classifiers and taggers: RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .. import kinds
from ..cases import BadInput, Case, config_with
from ..kinds import Kind


def _recurrent_head_bad_inputs(kind: Kind) -> tuple[BadInput, ...]:
    def several_without_saying_so(model, batch):
        model.config.problem_type = "single_label_classification"
        return model(**batch, labels=torch.zeros(rows, 3))

    rows, time = 3, 5  # of the batches that `bad_input` spoils
    found = [
        BadInput(
            "an unknown pooling", config_with(classifier_pooling="first"), ("classifier_pooling", "attention")
        ),
        BadInput(
            "an unknown choice of layers", config_with(classifier_layers="top"), ("classifier_layers", "all")
        ),
        BadInput("a head of width 0", config_with(classifier_hidden_size=0), ("classifier_hidden_size", "0")),
        BadInput("a dropout of 1", config_with(classifier_dropout=1.0), ("classifier_dropout", "1.0")),
    ]
    if kind is kinds.TOKEN_CLASSIFICATION:
        short = torch.zeros(rows, time - 1).long()
        words = ("labels", f"[{rows}, {time}]", f"[{rows}, {time - 1}]")
        found += [
            BadInput("labels of another length", lambda model, batch: model(**batch, labels=short), words)
        ]
    else:
        many = torch.zeros(rows + 1).long()
        found += [
            BadInput(
                "labels of another batch", lambda model, batch: model(**batch, labels=many), (f"[{rows}]",)
            ),
            BadInput(
                "float labels for a classifier of one label",
                several_without_saying_so,
                ("int64", "multi_label_classification"),
            ),
        ]
    return tuple(found)


def _recurrent_head_cases() -> Iterator[Case]:
    from ...models import configuration_recurrent as configs
    from ...models import modeling_recurrent as models

    def tiny(config_class, **fields):
        def make(**overrides):
            return config_class(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "embedding_size": 12, "hidden_size": 10, "num_hidden_layers": 2, "num_labels": 3,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        return make

    variants = {
        "both-ways": {"bidirectional": True, "hidden_dropout": 0.2, "output_dropout": 0.2},
        # A classifier of a pretrained AWD-LSTM, with everything that a head can have.
        "all-layers": {
            "last_hidden_size": 12, "input_dropout": 0.2, "variational_dropout": True, "embedding_dropout": 0.1,
            "weight_dropout": 0.3, "classifier_layers": "all", "classifier_pooling": "attention",
            "classifier_hidden_size": 7, "classifier_dropout": 0.2,
        },
        "concat": {"bidirectional": True, "last_hidden_size": 6, "classifier_pooling": "concat"},
    }  # fmt: skip
    heads = {
        "ForSequenceClassification": kinds.SEQUENCE_CLASSIFICATION,
        "ForTokenClassification": kinds.TOKEN_CLASSIFICATION,
    }
    quick = {
        "LSTMForSequenceClassification": "both-ways", "LSTMForTokenClassification": "both-ways",
        "GRUForSequenceClassification": "all-layers", "GRUForTokenClassification": "all-layers",
        "RNNForSequenceClassification": "concat", "RNNForTokenClassification": "both-ways",
    }  # fmt: skip
    for cell in ("LSTM", "GRU", "RNN"):
        for head, kind in heads.items():
            name = f"{cell}{head}"
            for variant, fields in variants.items():
                if variant == "concat" and kind is kinds.TOKEN_CLASSIFICATION:
                    continue  # pools nothing
                yield Case(
                    f"{name}-{variant}",
                    family="recurrent",
                    model_class=getattr(models, name),
                    kind=kind,
                    make_config=tiny(getattr(configs, f"{cell}Config"), **fields),
                    bad_inputs=_recurrent_head_bad_inputs(kind),
                    full=variant != quick[name],
                    in_subprocesses=variant == quick[name],
                )


RECURRENT_HEADS = tuple(_recurrent_head_cases())
