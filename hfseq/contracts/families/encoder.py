"""The BERT-style encoder and its heads."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .. import kinds
from ..cases import BadInput, Case, config_with


def _encoder_bad_inputs(class_name: str) -> tuple[BadInput, ...]:
    """What an encoder class refuses; the last one concerns learned positions alone."""

    def longer(model, batch):
        ids = batch["input_ids"]
        return model(input_ids=ids.repeat(*[1] * (ids.ndim - 1), 10))

    def spoilt(**others):
        return lambda model, batch: model(**{**batch, **others})

    def in_training(**others):
        return lambda model, batch: model.train()(**{**batch, **others})

    def packed_with_a_mask(name, value):
        def call(model, batch):
            return model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **{name: value}
            )

        return call

    rows, time = 3, 5  # of the batches that `bad_input` spoils
    found = [
        BadInput("hidden_size 0", config_with(hidden_size=0), ("hidden_size", "0")),
        BadInput(
            "a hidden_size that the heads do not divide",
            config_with(hidden_size=20, num_attention_heads=3),
            ("hidden_size", "20", "num_attention_heads", "3"),
        ),
        BadInput(
            "rotary positions in heads of odd width",
            config_with(hidden_size=15, num_attention_heads=3, position_embedding_type="rotary"),
            ("even", "15", "3"),
        ),
        BadInput(
            "an unknown kind of positions",
            config_with(position_embedding_type="relative"),
            ("position_embedding_type", "relative", "rotary"),
        ),
        BadInput("an unknown activation", config_with(hidden_act="gelo"), ("hidden_act", "gelo")),
        BadInput("a dropout of 1", config_with(hidden_dropout_prob=1.0), ("hidden_dropout_prob", "1.0")),
        BadInput(
            "a negative dropout",
            config_with(attention_probs_dropout_prob=-0.1),
            ("attention_probs_dropout_prob", "-0.1"),
        ),
        BadInput("a classifier dropout of 2", config_with(classifier_dropout=2), ("classifier_dropout", "2")),
        BadInput("label smoothing of 1.5", config_with(label_smoothing=1.5), ("label_smoothing", "1.5")),
        BadInput("segment types below none", config_with(type_vocab_size=-1), ("type_vocab_size", "-1")),
    ]
    if class_name != "EncoderForMultipleChoice":
        borders = torch.arange(0, (rows + 1) * time, time, dtype=torch.int32)
        found += [
            BadInput(
                "packed rows with a mask, by borders",
                packed_with_a_mask("cu_seq_lens_q", borders),
                ("acked", "attention_mask") if class_name in PACKING_ENCODERS else ("packed",),
            ),
            BadInput(
                "packed rows with a mask, by numbers",
                packed_with_a_mask("seq_idx", torch.zeros(rows, time, dtype=torch.long)),
                ("acked", "attention_mask") if class_name in PACKING_ENCODERS else ("packed",),
            ),
        ]
    if class_name in ("EncoderForMaskedLM", "EncoderForPreTraining"):
        short, wide = torch.zeros(rows, time - 1).long(), torch.zeros(rows - 1, 2).long()
        found += [
            BadInput("labels of another length", in_training(labels=short), ("labels", f"[{rows}, {time}]")),
            BadInput(
                "evaluation labels of another length",
                lambda model, batch: model.eval()(**batch, labels=short),
                ("labels", f"[{rows}, {time}]"),
            ),
            BadInput(
                "masked positions of another batch",
                in_training(labels=torch.zeros(rows, time).long(), masked_positions=wide),
                ("masked_positions", f"[{rows}, ", f"[{rows - 1}, 2]"),
            ),
            BadInput(
                "masked positions in one line",
                in_training(labels=torch.zeros(rows, time).long(), masked_positions=wide.flatten()),
                ("masked_positions", f"[{rows}, "),
            ),
        ]
    if class_name == "EncoderForPreTraining":
        found += [
            BadInput(
                "sentence labels of another batch",
                spoilt(next_sentence_label=torch.zeros(rows + 1).long()),
                ("next_sentence_label", f"[{rows}]", f"[{rows + 1}]"),
            )
        ]
    if class_name == "EncoderForTokenClassification":
        found += [
            BadInput(
                "labels of another length",
                spoilt(labels=torch.zeros(rows, time - 1).long()),
                ("labels", f"[{rows}, {time}]", f"[{rows}, {time - 1}]"),
            )
        ]
    if class_name == "EncoderForSequenceClassification":

        def several_without_saying_so(model, batch):
            model.config.problem_type = "single_label_classification"
            return model(**batch, labels=torch.zeros(rows, 3))

        found += [
            BadInput("labels of another batch", spoilt(labels=torch.zeros(rows + 1).long()), (f"[{rows}]",)),
            BadInput(
                "float labels for a classifier of one label",
                several_without_saying_so,
                ("int64", "multi_label_classification"),
            ),
        ]
    if class_name == "EncoderForQuestionAnswering":
        found += [
            BadInput(
                "answers of another batch",
                spoilt(
                    start_positions=torch.zeros(rows + 1).long(), end_positions=torch.zeros(rows + 1).long()
                ),
                ("start_positions", f"[{rows}]", f"[{rows + 1}]"),
            ),
            BadInput(
                "beginnings without ends",
                spoilt(start_positions=torch.zeros(rows).long()),
                ("start_positions", "end_positions"),
            ),
        ]
    if class_name == "EncoderForMultipleChoice":
        found += [
            BadInput(
                "inputs without choices",
                lambda model, batch: model(input_ids=batch["input_ids"][:, 0]),
                ("[batch, choices, time]", f"[{rows}, {time}]"),
            ),
            BadInput(
                "labels of another batch",
                spoilt(labels=torch.zeros(rows + 1).long()),
                ("labels", f"[{rows}]", f"[{rows + 1}]"),
            ),
        ]
    return (*found, BadInput("more positions than there are", longer, ("max_position_embeddings", "16")))


PACKING_ENCODERS = ("EncoderModel", "EncoderForMaskedLM", "EncoderForTokenClassification")


def _encoder_cases() -> Iterator[Case]:
    from ...models import modeling_encoder as models
    from ...models.configuration_encoder import EncoderConfig

    def tiny(**fields):
        def make(**overrides):
            return EncoderConfig(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 24, "max_position_embeddings": 16, "num_labels": 3,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3,
        }  # fmt: skip
        return make

    # "bert" is published BERT, with its dropout and its ties; "modern" is everything that is not.
    modern = {
        "pre_norm": True, "position_embedding_type": "rotary", "gated_mlp": True, "hidden_act": "silu",
        "use_bias": False, "type_vocab_size": 0,
    }  # fmt: skip
    variants = {
        "bert": {},
        "modern": modern,
        "bert-untied": {"tie_word_embeddings": False},
        "modern-untied": {**modern, "tie_word_embeddings": False, "hidden_act": "gelu"},
    }
    heads = {
        "Model": (kinds.BASE, ("bert", "modern")),
        "ForMaskedLM": (kinds.MASKED_LM, ("bert", "modern", "bert-untied")),
        "ForPreTraining": (kinds.PRETRAINING, ("bert",)),
        "ForSequenceClassification": (kinds.SEQUENCE_CLASSIFICATION, ("bert",)),
        "ForTokenClassification": (kinds.TOKEN_CLASSIFICATION, ("modern",)),
        "ForQuestionAnswering": (kinds.QUESTION_ANSWERING, ("bert",)),
        "ForMultipleChoice": (kinds.MULTIPLE_CHOICE, ("bert",)),
    }
    averaging = {"classifier_pooling": "mean"}  # what heads of one answer per text do in the modern variant
    for head, (kind, quick) in heads.items():
        name = f"Encoder{head}"
        for variant, fields in variants.items():
            if variant.endswith("untied") and kind not in (kinds.MASKED_LM, kinds.PRETRAINING):
                continue  # nothing to tie
            if variant == "modern" and kind in (kinds.SEQUENCE_CLASSIFICATION, kinds.MULTIPLE_CHOICE):
                fields = {**fields, **averaging}
            bad_inputs = _encoder_bad_inputs(name)
            yield Case(
                f"{name}-{variant}",
                family="encoder",
                model_class=getattr(models, name),
                kind=kind,
                make_config=tiny(**fields),
                sharpness=0.4,
                packs=kinds.PACKED_FORMS if name in PACKING_ENCODERS else (),
                # Rotary positions have no last one.
                bad_inputs=bad_inputs[:-1] if variant.startswith("modern") else bad_inputs,
                full=variant not in quick,
                in_subprocesses=variant == quick[0],
            )


ENCODER = tuple(_encoder_cases())
