"""lm-evaluation-harness: its likelihoods are those that the logits give."""

from __future__ import annotations

import pytest

huggingface = pytest.importorskip("lm_eval.models.huggingface", reason="pip install 'hfseq[lm-eval]'")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]


def test_lm_eval(case, saved, texts):
    from lm_eval.api.instance import Instance

    pairs = [(text.rsplit(" ", 2)[0], text[len(text.rsplit(" ", 2)[0]) :]) for text in texts[:3]]
    backend = "seq2seq" if case.kind.is_encoder_decoder else "default"
    made = huggingface.HFLM(pretrained=saved, backend=backend, device="cpu", batch_size=3, dtype="float32")
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    for (context, rest), (found, is_greedy) in zip(pairs, made.loglikelihood(asked), strict=True):
        if case.kind.is_encoder_decoder:
            source, target = (made.tokenizer(text, return_tensors="pt").input_ids for text in (context, rest))
            logits = made.model(input_ids=source, labels=target).logits
        else:
            ids = made.tokenizer(context + rest, return_tensors="pt").input_ids
            target = made.tokenizer(rest, return_tensors="pt").input_ids
            logits = made.model(ids).logits[:, -target.shape[1] - 1 : -1]
        scores = logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).sum()
        assert found == pytest.approx(float(scores), rel=1e-4)
        assert is_greedy == bool((logits.argmax(-1) == target).all())
    until = [
        Instance("generate_until", {}, (text, {"until": [], "max_gen_toks": 4, "do_sample": False}), i)
        for i, text in enumerate(texts[:2])
    ]
    answers = made.generate_until(until)
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
