"""What says that a row is packed, what does not, and the refusal."""

from __future__ import annotations

import pytest
import torch

from hfseq import (
    EncoderConfig,
    EncoderForSequenceClassification,
    LSTMConfig,
    LSTMForCausalLM,
    LSTMForSeq2SeqLM,
    LSTMSeq2SeqConfig,
)
from hfseq.models.packed_rows import begins_again, refuse_packed_rows

IDS = torch.tensor([[5, 9, 3, 7, 11, 4], [8, 3, 6, 10, 5, 5]])
COUNTED = torch.arange(6).expand(2, 6)
PACKED = torch.tensor([[0, 1, 2, 0, 1, 2]]).expand(2, 6)
MODELS = {
    "recurrent": lambda: LSTMForCausalLM(LSTMConfig(vocab_size=24, embedding_size=8, hidden_size=8)),
    "seq2seq": lambda: LSTMForSeq2SeqLM(
        LSTMSeq2SeqConfig(
            vocab_size=24, embedding_size=8, hidden_size=8, decoder_start_token_id=1, pad_token_id=0
        )
    ),
    "classifier": lambda: EncoderForSequenceClassification(
        EncoderConfig(
            vocab_size=24,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=12,
            max_position_embeddings=16,
        )
    ),
}


@pytest.fixture(params=MODELS)
def call(request):
    model = MODELS[request.param]().eval()
    decoder = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    return lambda **options: model(input_ids=IDS, **decoder, **options)


@pytest.mark.parametrize("positions", [COUNTED, COUNTED[:1], COUNTED + 3], ids=["rows", "one row", "from 3"])
def test_positions_that_only_count_are_no_packed_rows(call, positions):
    call(position_ids=positions)


def test_positions_beside_a_mask_say_nothing():
    """As TRL and `generate` send them for rows that are padded on the left."""
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    for filler in (0, 1):
        positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, filler)
        for model in (MODELS["recurrent"](), MODELS["classifier"]()):
            model.eval()
            given = model(IDS, attention_mask=mask, position_ids=positions).logits
            if model.can_generate():  # it has no positions
                assert torch.equal(given, model(IDS, attention_mask=mask).logits)


def test_positions_that_begin_again_are_refused_with_the_way_out(call):
    with pytest.raises(
        ValueError, match='begin again, without an attention_mask.*packing_strategy="wrapped"'
    ):
        call(position_ids=PACKED)


@pytest.mark.parametrize("name", ["cu_seq_lens_q", "seq_idx"])
def test_borders_are_refused(call, name):
    with pytest.raises(ValueError, match=f"packed rows .{name}"):
        call(**{name: torch.tensor([0, 3, 6])})


def test_the_targets_positions_have_their_own_mask():
    model = MODELS["seq2seq"]().eval()
    model(IDS, decoder_input_ids=IDS, decoder_position_ids=COUNTED)
    model(
        IDS, decoder_input_ids=IDS, decoder_position_ids=PACKED, decoder_attention_mask=torch.ones_like(IDS)
    )
    with pytest.raises(ValueError, match="decoder_position_ids that begin again"):
        model(IDS, decoder_input_ids=IDS, decoder_position_ids=PACKED, attention_mask=torch.ones_like(IDS))


def test_what_begins_again():
    assert begins_again(PACKED) and not begins_again(COUNTED)
    assert begins_again(torch.tensor([[0, 0, 0]]))  # three sequences of one token
    refuse_packed_rows("A refuses", "b", "C.", {"position_ids": None, "cu_seq_lens": None})
    with pytest.raises(ValueError, match="A refuses packed rows .cu_seq_lens.: b. C."):
        refuse_packed_rows("A refuses", "b", "C.", {"cu_seq_lens": 1})
