"""A module for `evaluate.load`: perplexity of texts under a causal language model, or of the losses of tokens.

Needs hfseq and no network: `hfseq.metrics.load("perplexity")`.
"""

import math

import datasets
import evaluate

from hfseq.metrics.language_model import perplexity_per_token


class Perplexity(evaluate.Metric):
    """`compute` returns {"perplexities": [...], "mean_perplexity": ...} of texts, {"perplexity": ...} of losses."""

    def _info(self) -> evaluate.MetricInfo:
        features = [
            datasets.Features({"predictions": datasets.Value("float64")}),
            datasets.Features({"predictions": datasets.Value("string")}),
        ]
        return evaluate.MetricInfo(
            description="exp of the mean negative log-likelihood of tokens: of each text under a model, or of all that "
            "are given.",
            citation="",
            inputs_description="predictions: texts, with model_id (a directory or Hub id), batch_size, device, "
            "add_start_token and max_length; or the negative log-likelihood of each token, in nats.",
            features=features,
        )

    def _compute(
        self,
        predictions,
        model_id=None,
        batch_size=16,
        add_start_token=True,
        device=None,
        max_length=None,
    ):
        if not isinstance(predictions[0], str):
            return {"perplexity": perplexity_per_token(math.fsum(predictions), len(predictions))}
        if model_id is None:
            raise ValueError("Texts have a perplexity under a model: name it by model_id.")
        perplexities = text_perplexities(
            predictions, model_id, batch_size, add_start_token, device, max_length
        )
        return {"perplexities": perplexities, "mean_perplexity": sum(perplexities) / len(perplexities)}


def text_perplexities(texts, model_id, batch_size, add_start_token, device, max_length):
    """Perplexity of each text's own tokens; the start token is read before them and not counted."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hfseq.accelerators import available_accelerator
    from hfseq.loading import load_model

    device = device or available_accelerator() or "cpu"
    tokenizer = AutoTokenizer.from_pretrained(model_id)
    model = load_model(AutoModelForCausalLM, model_id).to(device)
    start = [tokenizer.bos_token_id] if add_start_token else []
    if start == [None]:
        raise ValueError(f"{model_id} has no start token: set add_start_token=False.")
    options = {} if max_length is None else {"truncation": True, "max_length": max_length - len(start)}
    options |= {"add_special_tokens": False, "split_special_tokens": True}  # spelled out, they are text
    rows = [start + ids for ids in tokenizer(texts, **options)["input_ids"]]
    empty = [text for text, row in zip(texts, rows, strict=True) if len(row) < 2]
    if empty:
        raise ValueError(f"{empty[0]!r} has no token that is predicted: leave such texts out.")
    perplexities = []
    for first in range(0, len(rows), batch_size):
        batch = [torch.tensor(row) for row in rows[first : first + batch_size]]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(device)  # [batch, time]
        lengths = torch.tensor([len(row) for row in batch], device=device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask.long()).logits.float()
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
        )
        means = losses.mul(mask[:, 1:]).sum(1) / (lengths - 1)
        perplexities += means.exp().tolist()
    return perplexities
