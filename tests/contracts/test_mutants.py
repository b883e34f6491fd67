"""The contracts must be able to fail: each broken model here must be caught, by the check that is there for it.

A model is broken in one place only; `caught_by` also wants the neighbouring checks that the fault does not touch to
pass, so that a check which fails for everything would not count.
"""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import nn
from transformers import EncoderDecoderCache

from hfseq import (
    EncoderForMaskedLM,
    EncoderForTokenClassification,
    LSTMForCausalLM,
    TransformerForSeq2SeqLM,
)
from hfseq.contracts import (
    CASES,
    ContractViolation,
    bad_input,
    caching,
    causality,
    loss,
    numerics,
    packing,
    padding,
    resuming,
    saving,
)
from hfseq.models import (
    attention,
    attention_layer,
    caches,
    modeling_encoder,
    modeling_recurrent,
    modeling_transformer,
    seq2seq,
)


def case_of(model_class=None, name="LSTMForCausalLM-tied", **changes):
    case = next(case for case in CASES if case.name == name)
    if model_class is not None:
        changes["model_class"] = model_class
    return dataclasses.replace(case, **changes)


def caught_by(check, case, *words):
    with pytest.raises(ContractViolation) as caught:
        check(case)
    for word in words:
        assert word in str(caught.value)


def broken(**methods):
    """LSTMForCausalLM with methods replaced; one that wants the original calls `LSTMForCausalLM.method(self, ...)`."""
    if "forward" in methods:  # Trainer reads its signature
        methods["forward"] = functools.wraps(LSTMForCausalLM.forward)(methods["forward"])
    return type("LSTMForCausalLM", (LSTMForCausalLM,), methods)


# --- 2 caching ------------------------------------------------------------------------------------------------------


def test_a_reorder_that_does_nothing(monkeypatch):
    monkeypatch.setattr(caches.RecurrentCacheLayer, "reorder_cache", lambda self, beam_idx: None)
    case = case_of()
    caught_by(caching.reordered_cache, case, "reorder_cache")
    caught_by(caching.beam_search, case, "beams with a cache")
    caching.greedy(case)


def test_a_repeat_in_the_wrong_order(monkeypatch):
    def tile(self, repeats):
        self._map(lambda s: s.repeat(1, repeats, 1))

    monkeypatch.setattr(caches.RecurrentCacheLayer, "batch_repeat_interleave", tile)
    caught_by(caching.repeated_cache, case_of(), "batch_repeat_interleave")


def test_a_selection_that_does_nothing(monkeypatch):
    monkeypatch.setattr(
        caches.RecurrentCacheLayer,
        "batch_select_indices",
        lambda self, indices: self._map(lambda s: s[:, : len(indices)]),
    )
    caught_by(caching.selected_cache, case_of(), "batch_select_indices")


def test_a_crop_that_only_forgets(monkeypatch):
    monkeypatch.setattr(caches.RecurrentCacheLayer, "crop", lambda self, n: setattr(self, "history", []))
    case = case_of()
    caught_by(caching.cropped_cache, case, "cropped")
    caught_by(caching.assisted_decoding, case, "assisted decoding")


def test_a_state_that_is_never_kept(monkeypatch):
    monkeypatch.setattr(caches.RecurrentCacheLayer, "update", lambda self, states, recorded=None: None)
    caught_by(caching.step_by_step, case_of(), "one token at a time")


def test_padding_that_moves_the_state():
    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, **kwargs):
        if past_key_values is not None:
            attention_mask = None
        return LSTMForCausalLM.forward(self, input_ids, attention_mask, past_key_values, **kwargs)

    case = case_of(broken(forward=forward))
    caught_by(caching.left_padded_step_by_step, case, "left-padded")
    caching.step_by_step(case)


def test_repeating_the_same_token_is_called_vacuous():
    caught_by(caching.greedy, case_of(sharpness=0.001), "vacuous")


# --- 3 padding ------------------------------------------------------------------------------------------------------


def test_a_mask_that_is_ignored():
    def forward(self, input_ids=None, attention_mask=None, *args, **kwargs):
        return LSTMForCausalLM.forward(self, input_ids, None, *args, **kwargs)

    case = case_of(broken(forward=forward))
    caught_by(padding.padded_on_the_left, case, "padded on the left")
    padding.padded_on_the_right(case)  # what comes after a token cannot reach it


def test_a_row_that_sees_its_neighbours():
    def forward(self, *args, **kwargs):
        output = LSTMForCausalLM.forward(self, *args, **kwargs)
        if output.logits is not None:
            output.logits = output.logits - 1e-6 * output.logits.mean(0, keepdim=True)
        return output

    case = case_of(broken(forward=forward))
    caught_by(padding.other_neighbours, case, "among others")
    caught_by(padding.padded_on_the_right, case)


def test_first_tokens_scored_on_padding(monkeypatch):
    """What stock causal models do under left padding."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        if labels is not None:
            kwargs["shift_labels"] = modeling_recurrent.next_token_labels(labels)
        return LSTMForCausalLM.forward(self, input_ids, attention_mask, **kwargs)

    case = case_of(broken(forward=forward))
    caught_by(padding.loss_padded_on_the_left, case, "evaluation loss")
    padding.loss_padded_on_the_right(case)


# --- 4 packing, 5 causality -----------------------------------------------------------------------------------------


def test_packed_rows_that_are_let_through(monkeypatch):
    monkeypatch.setattr(modeling_recurrent, "refuse_packed_rows", lambda *args: None)
    caught_by(packing.contract, case_of(), "was accepted")


def looking_ahead(self, input_ids=None, **kwargs):
    output = LSTMForCausalLM.forward(self, input_ids, **kwargs)
    if output.logits is not None and output.logits.shape[1] > 1:
        output.logits = output.logits + 1e-6 * output.logits.roll(-1, 1)
    return output


def test_a_look_into_the_future():
    caught_by(causality.evaluation_mode, case_of(broken(forward=looking_ahead)), "positions before")


def test_a_look_into_the_future_in_training_only():
    def forward(self, input_ids=None, **kwargs):
        chosen = looking_ahead if self.training else LSTMForCausalLM.forward
        return chosen(self, input_ids, **kwargs)

    case = case_of(broken(forward=forward))
    causality.evaluation_mode(case)
    caught_by(causality.training_mode, case, "positions before")


def test_a_loss_that_scores_the_current_token():
    def forward(self, input_ids=None, labels=None, **kwargs):
        if labels is not None:
            kwargs["shift_labels"] = labels
        return LSTMForCausalLM.forward(self, input_ids, **kwargs)

    case = case_of(broken(forward=forward))
    caught_by(causality.the_loss_scores_the_next_token, case)
    caught_by(loss.cross_entropy_by_hand, case)


# --- 6 loss ---------------------------------------------------------------------------------------------------------


def test_num_items_in_batch_ignored():
    def forward(self, *args, num_items_in_batch=None, **kwargs):
        return LSTMForCausalLM.forward(self, *args, **kwargs)

    case = case_of(broken(forward=forward))
    caught_by(loss.num_items_in_batch, case, "num_items_in_batch=")
    caught_by(loss.micro_batches_add_up, case, "micro-batches")
    caught_by(loss.sixteen_rows_are_four_times_four, case)


def test_an_auxiliary_mean_per_micro_batch(monkeypatch):
    """The cross-entropy right, the regulariser a mean: wrong by the number of accumulation steps."""
    original = modeling_recurrent.activation_penalty

    def mean(dropped, raw, labels, alpha, beta):
        counted = (labels != -100).sum().clamp(min=1)
        return original(dropped, raw, labels, alpha, beta) / counted * 20

    monkeypatch.setattr(modeling_recurrent, "activation_penalty", mean)
    case = case_of(name="LSTMForCausalLM-awd")
    caught_by(loss.micro_batches_add_up, case, "micro-batches")
    caught_by(loss.sixteen_rows_are_four_times_four, case)
    loss.cross_entropy_by_hand(case)


def test_nan_without_labels():
    def forward(self, *args, **kwargs):
        output = LSTMForCausalLM.forward(self, *args, **kwargs)
        labels = kwargs.get("labels")
        if labels is not None and bool((labels == -100).all()):
            output.loss = output.loss * torch.nan
        return output

    caught_by(loss.nothing_to_count, case_of(broken(forward=forward)), "nan")


def test_smoothing_in_evaluation():
    def forward(self, *args, **kwargs):
        output = LSTMForCausalLM.forward(self, *args, **kwargs)
        if output.loss is not None and not self.training:
            output.loss = output.loss * (1 - self.config.label_smoothing)
        return output

    caught_by(loss.label_smoothing, case_of(broken(forward=forward)), "evaluation loss")


def test_a_class_name_that_trainer_does_not_know():
    """Trainer then smooths unshifted labels without a word."""
    unknown = type("NobodyKnowsThisLM", (LSTMForCausalLM,), {})
    caught_by(loss.label_smoothing_by_trainer, case_of(unknown), "label_smoothing_factor")


# --- 1 saving -------------------------------------------------------------------------------------------------------


def registered(monkeypatch, model_class):
    """Makes the Auto classes load the broken class for the duration of a test."""
    import transformers

    auto = transformers.AutoModelForCausalLM
    monkeypatch.setattr(auto._model_mapping, "_extra_content", dict(auto._model_mapping._extra_content))
    auto.register(model_class.config_class, model_class, exist_ok=True)
    return case_of(model_class)


def test_loaded_weights_that_are_randomised_again(monkeypatch):
    """The neighbours of a missing one; where a module lacks none, transformers does not call `_init_weights` at all."""

    def _init_weights(self, module):
        for parameter in module.parameters(recurse=False):
            parameter.data.normal_()

    # Body and head are models of their own, and each initialises what it holds.
    monkeypatch.setattr(modeling_recurrent.RecurrentPreTrainedModel, "_init_weights", _init_weights)
    case = case_of()
    caught_by(saving.missing_weights_are_initialised, case, "lacks half of the weights")
    saving.round_trip_in_float32(case)


def test_missing_weights_that_are_not_initialised(monkeypatch):
    def _init_weights(self, module):
        for parameter in module.parameters(recurse=False):
            modeling_recurrent.init.constant_(parameter, 1e30)

    case = registered(monkeypatch, broken(_init_weights=_init_weights))
    # A fresh model is right, a loaded one is not.
    case = dataclasses.replace(case, model_class=LSTMForCausalLM)
    caught_by(saving.missing_weights_are_initialised, case, "missing in the checkpoint")


def test_a_tie_that_nobody_asked_for(monkeypatch):
    def initialise(self, config):
        LSTMForCausalLM.__init__(self, config)
        self.lm_head.weight = self.model.embed_tokens.weight

    fields = {"tie_word_embeddings": False, "hidden_size": 12}
    case = registered(monkeypatch, broken(__init__=initialise))
    make = case.make_config
    case = dataclasses.replace(case, make_config=lambda **overrides: make(**{**fields, **overrides}))
    caught_by(saving.ties, case, "tied")


# --- 7 numerics -----------------------------------------------------------------------------------------------------


def test_checkpointing_that_draws_other_masks():
    generator = torch.Generator().manual_seed(0)

    class Noisy(modeling_recurrent.RecurrentBlock):
        def forward(self, x, *state, **kwargs):
            noise = torch.rand(
                x.shape, generator=generator, dtype=x.dtype
            )  # torch's own state is restored, not this
            return super().forward(x * (1 + 0.01 * noise), *state, **kwargs)

    def initialise(self, config):
        LSTMForCausalLM.__init__(self, config)
        for block in self.model.blocks:
            block.__class__ = Noisy

    case = case_of(broken(__init__=initialise))
    caught_by(numerics.gradient_checkpointing, case, "gradient checkpointing")


def test_a_resize_that_forgets_the_config():
    def resize_token_embeddings(self, size, **kwargs):
        before = self.config.vocab_size
        result = LSTMForCausalLM.resize_token_embeddings(self, size, **kwargs)
        self.config.vocab_size = before
        return result

    case = case_of(broken(resize_token_embeddings=resize_token_embeddings))
    caught_by(numerics.resized_embeddings, case, "the config did not follow")


def test_a_loss_summed_in_bfloat16():
    def forward(self, *args, **kwargs):
        output = LSTMForCausalLM.forward(self, *args, **kwargs)
        if output.loss is not None:
            output.loss = output.loss.to(self.dtype)
        return output

    caught_by(numerics.bfloat16, case_of(broken(forward=forward)), "float32")


# --- 9 resuming, 11 bad input -----------------------------------------------------------------------------------------


def test_dropout_from_a_random_state_of_its_own():
    """No checkpoint holds it, so no resumed run repeats it."""
    generator = torch.Generator().manual_seed(0)

    def forward(self, *args, **kwargs):
        output = LSTMForCausalLM.forward(self, *args, **kwargs)
        if output.loss is not None and self.training:
            output.loss = output.loss * (1 + 0.1 * torch.rand((), generator=generator))
        return output

    caught_by(resuming.shuffled_rows, case_of(broken(forward=forward)), "differs")


def test_streams_that_lose_their_state(monkeypatch):
    monkeypatch.setattr(caches.CarriedStates, "load_state_dict", lambda self, state_dict: None)
    caught_by(resuming.contiguous_streams, case_of(), "differs")


def test_ids_and_embeddings_at_once():
    def forward(self, input_ids=None, inputs_embeds=None, **kwargs):
        if inputs_embeds is not None:
            input_ids = None
        return LSTMForCausalLM.forward(self, input_ids, inputs_embeds=inputs_embeds, **kwargs)

    caught_by(
        bad_input.forward_arguments, case_of(broken(forward=forward)), "both ids and embeddings: accepted"
    )


def test_an_error_that_names_nothing():
    def forward(self, input_ids=None, **kwargs):
        if input_ids is None or input_ids.shape[1] == 0:
            raise ValueError("wrong input")
        return LSTMForCausalLM.forward(self, input_ids, **kwargs)

    caught_by(bad_input.forward_arguments, case_of(broken(forward=forward)), "does not name")


def test_a_violation_reports_every_failed_check_and_raised_errors():
    def forward(self, *args, **kwargs):
        raise RuntimeError("no such luck")

    with pytest.raises(ContractViolation) as caught:
        padding.contract(case_of(broken(forward=forward)))
    text = str(caught.value)
    assert text.count("raised RuntimeError: no such luck") >= 5
    assert "padded on the left" in text and "other neighbours" in text


# --- the encoder ------------------------------------------------------------------------------------------------------


def encoder(name, model_class=None):
    return case_of(model_class, name=f"Encoder{name}")


def test_packed_rows_that_leak(monkeypatch):
    """Positions begin again as they should, but every segment sees the others."""
    original = modeling_encoder.find_packed

    def leaking(*arguments):
        packed = original(*arguments)
        if packed is not None:
            batch, time = packed.position_ids.shape
            borders = torch.arange(0, (batch + 1) * time, time, dtype=torch.int32)
            packed._segments = attention.Segments(borders, borders, time, time)
        return packed

    monkeypatch.setattr(modeling_encoder, "find_packed", leaking)
    case = encoder("ForMaskedLM-bert")
    caught_by(packing.outputs_of_packed_rows, case, "logits of 1 packed rows by position_ids")
    caught_by(packing.loss_and_gradients_of_packed_rows, case, "loss of 1 packed rows")
    padding.padded_on_the_right(case)


def test_packed_rows_that_leak_under_a_mask(monkeypatch):
    monkeypatch.setattr(modeling_encoder, "attends_by_segment", lambda *arguments: False)
    packing.outputs_of_packed_rows(encoder("Model-modern"))
    monkeypatch.setattr(
        modeling_encoder.Packed, "numbers", property(lambda self: torch.zeros_like(self.position_ids))
    )
    caught_by(packing.outputs_of_packed_rows, encoder("Model-modern"), "last_hidden_state of")


def test_packed_rows_of_one_answer_that_are_let_through(monkeypatch):
    monkeypatch.setattr(modeling_encoder, "refuse_packed", lambda *arguments: None)
    for head in ("ForPreTraining", "ForQuestionAnswering", "ForSequenceClassification", "ForMultipleChoice"):
        caught_by(packing.contract, encoder(f"{head}-bert"), "was accepted")


def test_padding_that_attention_sees(monkeypatch):
    monkeypatch.setattr(modeling_encoder, "create_bidirectional_mask", lambda **arguments: None)
    case = encoder("ForMaskedLM-bert")
    caught_by(padding.padded_on_the_right, case, "padded on the right")
    caught_by(padding.padded_on_the_left, case, "padded on the left")


def test_a_pooler_that_reads_padding(monkeypatch):
    monkeypatch.setattr(
        modeling_encoder,
        "first_columns",
        lambda example, mask: torch.zeros(len(example), 1, dtype=torch.long),
    )
    case = encoder("ForSequenceClassification-bert")
    caught_by(padding.padded_on_the_left, case, "padded on the left")
    padding.padded_on_the_right(case)


def test_a_mean_that_counts_padding(monkeypatch):
    monkeypatch.setattr(modeling_encoder, "mean_over_text", lambda hidden, mask: hidden.mean(1))
    for head in ("ForSequenceClassification", "ForMultipleChoice"):
        caught_by(padding.padded_on_the_right, encoder(f"{head}-modern"), "padded on the right")
        caught_by(padding.loss_padded_on_the_right, encoder(f"{head}-modern"), "evaluation loss")


def test_answers_that_may_lie_in_padding():
    original = modeling_encoder.EncoderForQuestionAnswering

    def forward(self, *arguments, start_positions=None, end_positions=None, **kwargs):
        output = original.forward(self, *arguments, **kwargs)
        if start_positions is not None:
            terms = ((output.start_logits, start_positions), (output.end_logits, end_positions))
            output.loss = sum(nn.functional.cross_entropy(*term) for term in terms) / 2
        return output

    wrapped = functools.wraps(original.forward)(forward)
    broken_class = type("EncoderForQuestionAnswering", (original,), {"forward": wrapped})
    caught_by(padding.loss_padded_on_the_right, encoder("ForQuestionAnswering-bert", broken_class), "loss")


def test_a_second_task_that_is_a_mean_per_micro_batch():
    """What BERT's own class does: wrong by the number of accumulation steps."""
    original = modeling_encoder.EncoderForPreTraining

    def forward(self, *arguments, next_sentence_label=None, **kwargs):
        output = original.forward(self, *arguments, **kwargs)
        if next_sentence_label is not None:
            mean = nn.functional.cross_entropy(output.seq_relationship_logits, next_sentence_label)
            output.loss = mean if output.loss is None else output.loss + mean
        return output

    wrapped = functools.wraps(original.forward)(forward)
    case = encoder("ForPreTraining-bert", type("EncoderForPreTraining", (original,), {"forward": wrapped}))
    caught_by(loss.micro_batches_add_up, case, "micro-batches")
    caught_by(loss.sixteen_rows_are_four_times_four, case)


def test_a_masked_language_model_that_takes_its_own_mean(monkeypatch):
    monkeypatch.setattr(
        modeling_encoder, "count_labels", lambda labels, items: (labels != -100).sum().clamp(min=1)
    )
    case = encoder("ForMaskedLM-bert")
    caught_by(loss.num_items_in_batch, case, "num_items_in_batch=")
    caught_by(loss.micro_batches_add_up, case, "micro-batches")
    loss.cross_entropy_by_hand(case)


def test_a_labelled_position_that_is_skipped(monkeypatch):
    """In training alone, where the loss is computed at the labels only."""
    original = modeling_encoder.MaskedLanguageModel._labelled

    def skipping(self, *arguments):
        columns, kept = original(self, *arguments)
        return columns[:, :-1], kept[:, :-1]

    monkeypatch.setattr(modeling_encoder.MaskedLanguageModel, "_labelled", skipping)
    case = encoder("ForMaskedLM-modern")
    caught_by(loss.loss_of_training_is_loss_of_evaluation, case, "loss in training mode")
    loss.cross_entropy_by_hand(case)


def test_a_pooler_that_no_loss_reaches():
    """DDP would wait for its gradient for ever."""

    def initialise(self, config):
        EncoderForTokenClassification.__init__(self, config)
        self.model.pooler = modeling_encoder.EncoderPooler(config)

    broken_class = type(
        "EncoderForTokenClassification", (EncoderForTokenClassification,), {"__init__": initialise}
    )
    case = encoder("ForTokenClassification-modern", broken_class)
    caught_by(numerics.resized_embeddings, case, "no gradient reaches", "pooler")


def test_a_tie_that_a_resize_breaks():
    def resize_token_embeddings(self, size, **kwargs):
        result = EncoderForMaskedLM.resize_token_embeddings(self, size, **kwargs)
        self.lm_head.weight = nn.Parameter(self.lm_head.weight.detach().clone())
        return result

    broken_class = type(
        "EncoderForMaskedLM", (EncoderForMaskedLM,), {"resize_token_embeddings": resize_token_embeddings}
    )
    caught_by(numerics.resized_embeddings, encoder("ForMaskedLM-bert", broken_class), "tied before")


# --- the Transformer --------------------------------------------------------------------------------------------------


def transformer(model_class=None, variant="paper", **changes):
    return case_of(model_class, name=f"TransformerForSeq2SeqLM-{variant}", **changes)


def test_a_target_that_sees_one_token_too_many(monkeypatch):
    def causal_mask(self, config, x, mask, cache, seen):
        return torch.ones(x.shape[1], seen + x.shape[1], dtype=torch.bool).tril(seen + 1)

    monkeypatch.setattr(modeling_transformer.TransformerDecoder, "_causal_mask", causal_mask)
    case = transformer()
    caught_by(causality.evaluation_mode, case, "positions before")
    caught_by(causality.training_mode, case, "positions before")
    caught_by(causality.no_gradient_from_the_past_to_the_future, case, "embeddings after it")
    loss.cross_entropy_by_hand(case)


def test_packed_targets_that_see_their_future(monkeypatch):
    """In packed rows alone, whose attention goes another way."""
    original = attention_layer.attend_segments

    def seeing(query, key, value, segments, scaling, dropout, causal):
        return original(query, key, value, segments, scaling, dropout, False)

    monkeypatch.setattr(attention_layer, "attend_segments", seeing)
    case = transformer()
    caught_by(packing.outputs_of_packed_rows, case, "logits of 1 packed rows")
    causality.evaluation_mode(case)


def test_padding_that_cross_attention_sees(monkeypatch):
    monkeypatch.setattr(modeling_transformer.TransformerDecoder, "_source_mask", lambda *arguments: None)
    case = transformer()
    caught_by(padding.padded_on_the_right, case, "padded on the right")
    caught_by(padding.padded_on_the_left, case, "padded on the left")
    caught_by(padding.loss_padded_on_the_right, case, "evaluation loss")
    caching.step_by_step(case)


def test_padding_that_the_encoder_sees(monkeypatch):
    monkeypatch.setattr(modeling_transformer, "create_bidirectional_mask", lambda **arguments: None)
    caught_by(padding.every_hidden_state, transformer(), "encoder_hidden_states[1]")


def test_padding_that_a_single_token_sees(monkeypatch):
    """On the short way of generate() alone."""
    original = modeling_transformer.TransformerAttention.step_to_source
    monkeypatch.setattr(
        modeling_transformer.TransformerAttention,
        "step_to_source",
        lambda self, x, cache, mask: original(self, x, cache, None),
    )
    case = transformer()
    caught_by(caching.left_padded_step_by_step, case, "no mask of the targets")
    caught_by(caching.greedy, case)
    caught_by(caching.batch_generation, case, "in a padded batch")
    caching.step_by_step(case)  # nothing is padded


@pytest.mark.parametrize("variant", ["paper", "modern"])
def test_a_single_token_whose_attention_is_not_scaled(monkeypatch, variant):
    original = modeling_transformer.TransformerAttention.step

    def step(self, *arguments):
        self.scaling, scaling = 1.0, self.scaling
        try:
            return original(self, *arguments)
        finally:
            self.scaling = scaling

    monkeypatch.setattr(modeling_transformer.TransformerAttention, "step", step)
    case = transformer(variant=variant)
    caught_by(caching.step_by_step, case, "no mask of the targets")
    caught_by(caching.greedy, case, "greedy with a cache")
    caching.in_ragged_chunks(dataclasses.replace(case, make_config=eager(case)))


def eager(case):
    """Configs whose attention is written out; a single token then takes no short way."""
    return lambda **overrides: case.make_config(attn_implementation="eager", **overrides)


def test_a_single_token_without_the_last_norm(monkeypatch):
    original = modeling_transformer.TransformerDecoder.step

    def step(self, *arguments):
        self.final_norm, norm = None, self.final_norm
        try:
            return original(self, *arguments)
        finally:
            self.final_norm = norm

    monkeypatch.setattr(modeling_transformer.TransformerDecoder, "step", step)
    caught_by(caching.step_by_step, transformer(variant="modern"), "no mask of the targets")
    caching.step_by_step(transformer())  # post-norm has none


@pytest.mark.parametrize(("variant", "method"), [("paper", "_embed"), ("modern", "_angles")])
def test_positions_that_stand_still_while_decoding(monkeypatch, variant, method):
    original = getattr(modeling_transformer.TransformerStack, method)
    monkeypatch.setattr(
        modeling_transformer.TransformerStack,
        method,
        lambda self, x, first, *arguments: original(self, x, 0, *arguments),
    )
    case = transformer(variant=variant)
    caught_by(caching.step_by_step, case, "one token at a time, no mask of the targets")
    caught_by(caching.in_ragged_chunks, case, "in chunks, no mask of the targets")
    caught_by(caching.greedy, case, "greedy with a cache")
    causality.evaluation_mode(case)


def test_a_source_that_is_not_reordered(monkeypatch):
    """`SourceCache` outside of generate(), where rows may change their places with any other."""

    class Fixed(EncoderDecoderCache):
        def __init__(self, target, source):
            super().__init__(target, caches.SourceCache())

    monkeypatch.setattr(modeling_transformer, "EncoderDecoderCache", Fixed)
    case = transformer()
    caught_by(caching.reordered_cache, case, "reorder_cache")
    caching.selected_cache(case)


def test_a_target_that_beams_do_not_reorder(monkeypatch):
    monkeypatch.setattr(EncoderDecoderCache, "reorder_cache", lambda self, beam_idx: None)
    case = transformer()
    caught_by(caching.reordered_cache, case, "reorder_cache")
    caught_by(caching.beam_search, case, "beams with a cache")
    caching.greedy(case)


def leaking_cross_attention(monkeypatch, change):
    """Packed rows whose cross-attention has the borders `change(cross)`; self-attention keeps its own."""
    original = modeling_transformer.TransformerDecoder._packed_contexts

    def contexts(self, *arguments):
        own, cross = original(self, *arguments)
        return own, dataclasses.replace(cross, segments=change(cross.segments))

    monkeypatch.setattr(modeling_transformer.TransformerDecoder, "_packed_contexts", contexts)


def whole_rows(s):
    return dataclasses.replace(s, queries=s.queries[[0, -1]], keys=s.keys[[0, -1]])


def borders_in_another_order(s):
    lengths = s.keys.diff().roll(1)
    return dataclasses.replace(s, keys=nn.functional.pad(lengths.cumsum(0), (1, 0)).to(s.keys.dtype))


@pytest.mark.parametrize("change", [whole_rows, borders_in_another_order])
def test_packed_pairs_that_leak_through_cross_attention(monkeypatch, change):
    leaking_cross_attention(monkeypatch, change)
    case = transformer()
    caught_by(packing.outputs_of_packed_rows, case, "logits of 1 packed rows by position_ids")
    caught_by(packing.loss_and_gradients_of_packed_rows, case, "loss of 1 packed rows")
    causality.training_mode(case)


def test_packed_pairs_that_leak_through_cross_attention_under_a_mask(monkeypatch):
    monkeypatch.setattr(modeling_transformer, "attends_by_segment", lambda *args: False)
    case = transformer(variant="modern")
    packing.outputs_of_packed_rows(case)
    original = modeling_transformer.within_segments

    def leaking(config, x, packed, source=None, states=None):
        return original(config, x, packed) if source is None else None

    monkeypatch.setattr(modeling_transformer, "within_segments", leaking)
    caught_by(packing.outputs_of_packed_rows, case, "logits of")
    caught_by(packing.loss_and_gradients_of_packed_rows, case, "loss of")


def test_packed_pairs_whose_positions_go_on(monkeypatch):
    """Given borders alone: their positions are the model's to count."""

    def positions_of(borders, batch, time):
        return torch.arange(time).expand(batch, time)

    monkeypatch.setattr(attention, "positions_of", positions_of)
    caught_by(packing.outputs_of_packed_rows, transformer(), "packed rows by cu_seq_lens")


def test_packed_sources_with_one_target(monkeypatch):
    monkeypatch.setattr(
        modeling_transformer.TransformerModel, "_packed", staticmethod(lambda *arguments: (None, None))
    )
    caught_by(bad_input.forward_arguments, transformer(), "packed sources, unpacked targets: accepted")


def test_a_translation_model_that_takes_its_own_mean(monkeypatch):
    monkeypatch.setattr(seq2seq, "count_labels", lambda labels, items: (labels != -100).sum().clamp(min=1))
    case = transformer()
    caught_by(loss.num_items_in_batch, case, "num_items_in_batch=")
    caught_by(loss.micro_batches_add_up, case, "micro-batches")
    caught_by(loss.sixteen_rows_are_four_times_four, case, "4 x 4")
    loss.cross_entropy_by_hand(case)


def test_smoothing_that_is_forgotten(monkeypatch):
    original = seq2seq.output_layer_loss
    monkeypatch.setattr(
        seq2seq,
        "output_layer_loss",
        lambda layer, hidden, labels, epsilon: original(layer, hidden, labels, 0.0),
    )
    case = transformer()
    caught_by(loss.label_smoothing, case, "training loss, label_smoothing=0.2")
    loss.loss_of_training_is_loss_of_evaluation(case)


def test_targets_that_trainer_shifts():
    """A sequence-to-sequence class under a name that Trainer takes for a causal one's."""
    unlucky = type("LSTMForCausalLM", (TransformerForSeq2SeqLM,), {})
    caught_by(loss.label_smoothing_by_trainer, transformer(unlucky), "label_smoothing_factor")


def test_labels_that_are_not_moved():
    def prepare(self, labels):
        return labels.clamp(min=0)

    fields = {"prepare_decoder_input_ids_from_labels": prepare}
    case = transformer(type("TransformerForSeq2SeqLM", (TransformerForSeq2SeqLM,), fields))
    caught_by(loss.targets_made_of_labels, case, "loss of labels alone")
    loss.cross_entropy_by_hand(case)


def test_an_output_layer_that_is_not_tied_when_asked(monkeypatch):
    def initialise(self, config):
        TransformerForSeq2SeqLM.__init__(self, config)
        self.lm_head.weight = nn.Parameter(self.lm_head.weight.detach().clone())

    broken_class = type("TransformerForSeq2SeqLM", (TransformerForSeq2SeqLM,), {"__init__": initialise})
    monkeypatch.setattr(TransformerForSeq2SeqLM, "tie_weights", lambda self, **arguments: None)
    caught_by(saving.ties, transformer(broken_class), "not tied")


def test_positions_that_loading_does_not_fill(monkeypatch):
    original = modeling_transformer.TransformerPreTrainedModel._init_weights

    def initialise(self, module):
        if not isinstance(module, modeling_transformer.SinusoidalPositions):
            original(self, module)

    monkeypatch.setattr(modeling_transformer.TransformerPreTrainedModel, "_init_weights", initialise)
    case = transformer()
    caught_by(saving.round_trip_in_float32, case, "embed_positions.table")
    saving.ties(case)


def test_a_resize_that_forgets_the_targets(monkeypatch):
    """The width of the logits is a number of its own in the config, which a resize has to change too."""
    monkeypatch.delattr(seq2seq.TwoSidedEmbeddings, "resize_token_embeddings")
    with pytest.raises(Exception, match="decoder_vocab_size"):
        numerics.resized_embeddings(transformer())


def test_two_vocabularies_that_one_number_resizes(monkeypatch):
    monkeypatch.delattr(seq2seq.TwoSidedEmbeddings, "resize_token_embeddings")
    caught_by(numerics.resized_embeddings, transformer(variant="separate"), "two vocabularies were resized")


def test_fast_dropout_with_a_random_state_of_its_own(monkeypatch):
    generator = torch.Generator().manual_seed(0)

    def dropout(x, p, training):
        kept = torch.rand(x.shape, generator=generator, dtype=x.dtype) >= p
        return x * kept / (1 - p) if training else x

    monkeypatch.setattr(modeling_transformer, "dropout", dropout)
    case = transformer()
    caught_by(numerics.gradient_checkpointing_with_dropout, case, "gradient checkpointing with dropout")
    caught_by(resuming.shuffled_rows, case, "differs")
    numerics.gradient_checkpointing(case)
