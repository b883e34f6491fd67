"""One tiny model of each kind, untrained with sharp weights, in float64: what is equal is equal to nine digits."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from hfseq import (
    EncoderConfig,
    EncoderForMaskedLM,
    LSTMConfig,
    LSTMForCausalLM,
    TransformerConfig,
    TransformerForSeq2SeqLM,
    data,
)

TEXTS = [f"In the year {n} the king's men went to city {n % 5}, and came back." for n in range(30)]


def sharp(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


def fields_of(tokenizer, **more) -> dict:
    return {**data.tokenizer_config_fields(tokenizer), **more}


@pytest.fixture(scope="session")
def tokenizers() -> dict:
    made = {name: data.train_tokenizer(TEXTS, name, 330) for name in ("bpe", "character", "word")}
    made["unigram"] = data.train_tokenizer(TEXTS, "unigram", 120)
    made["wordpiece"] = data.train_tokenizer(TEXTS, "wordpiece", 120, masked=True)
    made["masked bpe"] = data.train_tokenizer(TEXTS, "bpe", 330, masked=True)
    made["translation"] = data.train_tokenizer(TEXTS, "bpe", 330, translation=True)
    return made


@pytest.fixture(scope="session")
def models(tokenizers) -> dict:
    """{name: (model, tokenizer)}"""
    made = {}
    for name in ("bpe", "character", "word", "unigram"):
        config = LSTMConfig(embedding_size=8, hidden_size=8, **fields_of(tokenizers[name]))
        made[f"lstm {name}"] = sharp(LSTMForCausalLM(config)), tokenizers[name]
    size = {"vocab_size": 384, "bos_token_id": 0, "eos_token_id": 0}
    made["gpt2"] = (
        sharp(GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=128, **size))),
        tokenizers["bpe"],
    )
    heads = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    for name in ("wordpiece", "masked bpe"):
        config = EncoderConfig(**heads, max_position_embeddings=64, **fields_of(tokenizers[name]))
        made[f"encoder {name}"] = sharp(EncoderForMaskedLM(config)), tokenizers[name]
    config = BertConfig(**heads, max_position_embeddings=64, vocab_size=128, pad_token_id=0)
    made["bert"] = sharp(BertForMaskedLM(config)), tokenizers["wordpiece"]
    layers = {
        f"{side}_{what}": n
        for side in ("encoder", "decoder")
        for what, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 8))
    }
    tokenizer = tokenizers["translation"]
    start = {"decoder_start_token_id": tokenizer.bos_token_id}
    config = TransformerConfig(d_model=8, **layers, **fields_of(tokenizer, **start))
    made["transformer"] = sharp(TransformerForSeq2SeqLM(config)), tokenizer
    config = BartConfig(
        d_model=8, **layers, max_position_embeddings=64, vocab_size=384, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    made["bart"] = sharp(BartForConditionalGeneration(config)), tokenizer
    return made
