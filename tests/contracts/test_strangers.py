"""The contracts on stock transformers models: they must hold where these are right, and find the faults they have.

This keeps the contracts general (encoder-decoders, bidirectional encoders, packed rows) before hfseq has such
families, and shows that a failure means a fault.
"""

from __future__ import annotations

import pytest
import transformers

from hfseq.contracts import (
    Case,
    ContractViolation,
    caching,
    causality,
    kinds,
    loss,
    numerics,
    packing,
    padding,
    resuming,
    saving,
)


def tiny(config_class, **fields):
    def make(**overrides):
        return config_class(**{**fields, **overrides})

    return make


SIZES = {
    "vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
LLAMA = Case(
    "llama", "stranger", transformers.LlamaForCausalLM, kinds.CAUSAL_LM,
    tiny(transformers.LlamaConfig, num_key_value_heads=1, **SIZES), packs=("position_ids",),
)  # fmt: skip
MARIAN = Case(
    "marian", "stranger", transformers.MarianMTModel, kinds.SEQ2SEQ_LM,
    tiny(
        transformers.MarianConfig, vocab_size=40, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3, forced_eos_token_id=None, d_model=16, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
        max_position_embeddings=64, tie_word_embeddings=False,
    ),
    sides=("right",),
)  # fmt: skip
BERT_CONFIG = tiny(transformers.BertConfig, max_position_embeddings=64, num_labels=3, **SIZES)
BERT = Case("bert", "stranger", transformers.BertForMaskedLM, kinds.MASKED_LM, BERT_CONFIG, sides=("right",))
CLASSIFIER = Case(
    "bert-classifier", "stranger", transformers.BertForSequenceClassification, kinds.SEQUENCE_CLASSIFICATION,
    BERT_CONFIG, sides=("right",),
)  # fmt: skip
TAGGER = Case(
    "bert-tagger", "stranger", transformers.BertForTokenClassification, kinds.TOKEN_CLASSIFICATION,
    BERT_CONFIG, sides=("right",),
)  # fmt: skip
PRETRAINER = Case(
    "bert-pretrainer",
    "stranger",
    transformers.BertForPreTraining,
    kinds.PRETRAINING,
    BERT_CONFIG,
    sides=("right",),
)
ANSWERER = Case(
    "bert-answerer", "stranger", transformers.BertForQuestionAnswering, kinds.QUESTION_ANSWERING,
    tiny(transformers.BertConfig, max_position_embeddings=64, num_labels=2, **SIZES), sides=("right",),
)  # fmt: skip
CHOOSER = Case(
    "bert-chooser", "stranger", transformers.BertForMultipleChoice, kinds.MULTIPLE_CHOICE, BERT_CONFIG,
    sides=("right",),
)  # fmt: skip


@pytest.mark.parametrize(
    ("contract", "case"),
    [
        (saving.contract, LLAMA),
        (caching.contract, LLAMA),
        (packing.contract, LLAMA),
        (causality.contract, LLAMA),
        (numerics.contract, LLAMA),
        (resuming.contract, LLAMA),
        (saving.contract, MARIAN),
        (caching.step_by_step, MARIAN),
        (caching.in_ragged_chunks, MARIAN),
        (caching.reordered_cache, MARIAN),
        (causality.contract, MARIAN),
        (padding.padded_on_the_right, MARIAN),
        (resuming.contract, MARIAN),
        (saving.contract, BERT),
        (padding.padded_on_the_right, BERT),
        (padding.whatever_the_padding_holds, BERT),
        (numerics.resized_embeddings, BERT),
        (saving.contract, CLASSIFIER),
        (padding.other_neighbours, CLASSIFIER),
        (saving.contract, TAGGER),
        (padding.padded_on_the_right, TAGGER),
        (padding.padded_on_the_right, PRETRAINER),
        (padding.whatever_the_padding_holds, ANSWERER),
        (padding.every_hidden_state, CHOOSER),
        (loss.cross_entropy_by_hand, CHOOSER),
    ],
    ids=lambda value: getattr(value, "name", None) or f"{value.__module__.split('.')[-1]}.{value.__name__}",
)
def test_what_stock_models_get_right(contract, case):
    contract(case)


@pytest.mark.parametrize(
    ("check", "case", "word"),
    [
        (padding.loss_padded_on_the_left, LLAMA, "evaluation loss"),  # scores a row's first token on padding
        (loss.nothing_to_count, LLAMA, "nan"),
        (loss.num_items_in_batch, MARIAN, "num_items_in_batch="),
        (loss.sixteen_rows_are_four_times_four, MARIAN, "4 x 4"),
        (loss.num_items_in_batch, BERT, "num_items_in_batch="),
        (numerics.bfloat16, BERT, "bfloat16"),
        (loss.micro_batches_add_up, CLASSIFIER, "micro-batches"),
        (loss.nothing_to_count, TAGGER, "nan"),
        (loss.micro_batches_add_up, PRETRAINER, "micro-batches"),
        (padding.loss_padded_on_the_right, ANSWERER, "evaluation loss"),  # answers may lie in padding
    ],
    ids=lambda value: getattr(value, "name", None) or getattr(value, "__name__", str(value)),
)
def test_what_stock_models_get_wrong(check, case, word):
    with pytest.raises(ContractViolation, match=word):
        check(case)
