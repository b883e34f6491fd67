"""What a model is given to read: ids, or vectors, and never both or neither."""

from __future__ import annotations

import pytest
import torch

from hfseq import EncoderConfig, EncoderForMaskedLM, EncoderForPreTraining
from hfseq.models.inputs import one_of

IDS, VECTORS = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, 8)


def test_the_one_that_is_given():
    assert one_of(IDS, None) is IDS
    assert one_of(None, VECTORS) is VECTORS


@pytest.mark.parametrize("given", [(IDS, VECTORS), (None, None)], ids=["both", "neither"])
def test_both_or_neither(given):
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        one_of(*given)
    with pytest.raises(ValueError, match="exactly one of a and b"):
        one_of(*given, "a and b")


@pytest.mark.parametrize("kind", [EncoderForMaskedLM, EncoderForPreTraining])
def test_labels_alone_say_what_is_missing(kind):
    config = EncoderConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        kind(config).train()(labels=IDS)
