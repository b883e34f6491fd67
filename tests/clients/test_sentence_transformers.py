"""sentence-transformers: a text's vector is the mean of what the model says of its tokens."""

from __future__ import annotations

import pytest
import torch

package = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]


def test_sentence_transformers(case, saved, texts):
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    body = Transformer(saved)
    width = case.config().hidden_size if case.family == "encoder" else case.config().output_size
    made = package.SentenceTransformer(modules=[body, Pooling(width, "mean")], device="cpu")
    vectors = torch.tensor(made.encode(texts, batch_size=3))
    model = case.model_class.from_pretrained(saved).eval()
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor([[int(word[1:-1]) for word in text.split()]])
        with torch.no_grad():
            expected = model(ids).last_hidden_state.mean(1)[0]
        assert torch.allclose(vector, expected, atol=1e-5)
