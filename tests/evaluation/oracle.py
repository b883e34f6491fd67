"""Log-probabilities one token at a time, one forward pass each, without batches, padding or shortcuts."""

from __future__ import annotations

import torch


def causal(model, tokenizer, text: str) -> list[float]:
    ids = [tokenizer.bos_token_id]
    values = []
    for token in tokenizer(text, add_special_tokens=False).input_ids:
        values.append(_next(model(torch.tensor([ids])).logits, token))
        ids.append(token)
    return values


def masked(model, tokenizer, text: str) -> list[float]:
    ids = tokenizer(text).input_ids  # [CLS] ... [SEP]
    values = []
    for place in range(1, len(ids) - 1):
        hidden = [*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]
        logits = model(torch.tensor([hidden])).logits[0, place]
        values.append(torch.log_softmax(logits, -1)[ids[place]].item())
    return values


def conditional(model, tokenizer, text: str, source: str = "") -> list[float]:
    read = torch.tensor([tokenizer(source).input_ids])
    ids = [model.config.decoder_start_token_id]
    values = []
    for token in tokenizer(text).input_ids[:-1]:  # without </s>
        values.append(_next(model(input_ids=read, decoder_input_ids=torch.tensor([ids])).logits, token))
        ids.append(token)
    return values


def _next(logits: torch.Tensor, token: int) -> float:
    return torch.log_softmax(logits[0, -1], -1)[token].item()
