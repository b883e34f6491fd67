"""The contracts on stock transformers models: they must hold where these are right, and find the faults they have.

This keeps the contracts general (encoder-decoders, bidirectional encoders, packed rows) before hfseq has such
families, and shows that a failure means a fault.
"""

from __future__ import annotations

import pytest
import transformers

from hfseq import EncoderForMaskedLM, TransformerForSeq2SeqLM, TransformerModel
from hfseq.contracts import (
    CASES,
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
from hfseq.contracts.checkpoints import checkpoint_case


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
BART = Case(
    "bart", "stranger", transformers.BartForConditionalGeneration, kinds.SEQ2SEQ_LM,
    tiny(
        transformers.BartConfig, vocab_size=40, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3, forced_eos_token_id=None, d_model=16, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
        max_position_embeddings=64,
    ),
    sharpness=0.4, sides=("right",),
)  # fmt: skip
T5 = Case(
    "t5", "stranger", transformers.T5ForConditionalGeneration, kinds.SEQ2SEQ_LM,
    tiny(
        transformers.T5Config, vocab_size=40, pad_token_id=0, eos_token_id=2, decoder_start_token_id=3, d_model=16,
        d_kv=8, d_ff=24, num_layers=2, num_heads=2,
    ),
    sharpness=0.4, sides=("right",),
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
        (loss.targets_made_of_labels, MARIAN),
        (saving.ties, BART),
        (caching.step_by_step, BART),
        (padding.padded_on_the_right, BART),
        (causality.evaluation_mode, BART),
        (numerics.resized_embeddings, BART),
        (caching.in_ragged_chunks, T5),
        (caching.reordered_cache, T5),
        (padding.loss_and_gradients_in_training, T5),
        (causality.contract, T5),
        (loss.label_smoothing_by_trainer, T5),
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
        (loss.num_items_in_batch, BART, "num_items_in_batch="),
        (loss.micro_batches_add_up, T5, "micro-batches"),
        (loss.nothing_to_count, T5, "nan"),
        (numerics.bfloat16, T5, "float32"),
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


# --- as checkpoints, which is how scripts/check.py meets them -------------------------------------------------------


@pytest.mark.parametrize(
    ("model_class", "kind"),
    [
        (TransformerForSeq2SeqLM, kinds.SEQ2SEQ_LM),
        (TransformerModel, kinds.SEQ2SEQ_BASE),
        (EncoderForMaskedLM, kinds.MASKED_LM),
    ],
)
def test_a_checkpoint_of_ours_is_known(model_class, kind, tmp_path):
    """Also where transformers' own lists do not hold the class."""
    case = next(case for case in CASES if case.model_class is model_class)
    case.model().save_pretrained(tmp_path)
    found = checkpoint_case(str(tmp_path))
    assert (found.model_class, found.kind) == (model_class, kind)
    assert found.packs == case.packs
    saving.ties(found)
    padding.padded_on_the_right(found)


@pytest.mark.parametrize("case", [MARIAN, BART, T5], ids=lambda case: case.name)
def test_a_checkpoint_of_a_stranger_that_translates(case, tmp_path):
    case.model().save_pretrained(tmp_path)
    found = checkpoint_case(str(tmp_path))
    assert (found.model_class, found.kind, found.family) == (case.model_class, kinds.SEQ2SEQ_LM, "stranger")
    assert found.sides == ("right",) and not found.packs
    caching.greedy(found)
    causality.evaluation_mode(found)


def test_a_translator_that_does_not_say_how_targets_begin(tmp_path):
    model = BART.model()
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="decoder_start_token_id is None; set it"):
        checkpoint_case(str(tmp_path))
