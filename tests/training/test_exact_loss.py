"""Which models divide by num_items_in_batch, and what the others should have returned."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from hfseq import LSTMConfig, LSTMForCausalLM
from hfseq.training.exact_loss import honours_item_count, loss_from_logits, summed_loss

TINY = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "vocab_size": 32}


@pytest.fixture
def batch():
    ids = torch.randint(0, 32, (3, 7), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, 4:] = -100
    return {"input_ids": ids, "labels": labels}


def models():
    torch.manual_seed(0)
    return {
        "gpt2": GPT2LMHeadModel(GPT2Config(**TINY, n_positions=8, bos_token_id=0, eos_token_id=0)),
        "bert": BertForMaskedLM(BertConfig(**TINY, intermediate_size=16)),
        "lstm": LSTMForCausalLM(LSTMConfig(hidden_size=16, embedding_size=8, vocab_size=32)),
    }


@pytest.mark.parametrize(("name", "honours"), [("gpt2", True), ("bert", False), ("lstm", True)])
def test_it_is_asked_of_the_model(batch, name, honours):
    model = models()[name].train()
    before = torch.random.get_rng_state()
    assert honours_item_count(model, batch) is honours
    assert model.training and torch.equal(before, torch.random.get_rng_state())


def test_the_loss_from_logits_is_the_models_own(batch):
    model = models()["gpt2"].eval()
    with torch.no_grad():
        outputs = model(**batch, num_items_in_batch=11)
        own = loss_from_logits(outputs, batch["labels"], 11, shifts=True)
        torch.testing.assert_close(own, outputs.loss)
        for honours in (True, False):
            total = summed_loss(model, batch, honours=honours, shifts=True)
            torch.testing.assert_close(total.float(), 11 * outputs.loss)


def test_unshifted_labels_by_hand():
    logits = torch.log_softmax(torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1)), -1)
    labels = torch.tensor([[1, -100, 4], [0, 2, -100]])
    expected = -(logits[0, 0, 1] + logits[0, 2, 4] + logits[1, 0, 0] + logits[1, 1, 2])
    torch.testing.assert_close(loss_from_logits({"logits": logits}, labels, 1, shifts=False), expected)
    torch.testing.assert_close(loss_from_logits({"logits": logits}, labels, None, shifts=False), expected / 4)
    nothing = torch.full_like(labels, -100)
    assert loss_from_logits({"logits": logits}, nothing, None, shifts=False) == 0
