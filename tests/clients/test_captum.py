"""captum: the attributions of the embedding's outputs add up to the change of the answer."""

from __future__ import annotations

import pytest
import torch

from hfseq.contracts.comparing import FLOAT32

attr = pytest.importorskip("captum.attr", reason="pip install captum")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]


def test_attribution(case):
    model = case.model(FLOAT32)
    batch = case.without_labels(case.batch(case.rows(model.config, [5]), model.config))
    ids = batch["input_ids"]
    others = {}
    if case.kind.is_encoder_decoder:
        # One module embeds both sides: the target is given as vectors, so that the source alone goes through it.
        others["decoder_inputs_embeds"] = model.get_input_embeddings()(batch["decoder_input_ids"]).detach()

    def answer(ids):
        """One of the last scores [rows]."""
        return model(input_ids=ids, **others).logits.reshape(len(ids), -1)[:, -3]

    method = attr.LayerIntegratedGradients(answer, model.get_input_embeddings())
    nothing = torch.full_like(ids, 4)
    found, delta = method.attribute(
        ids, nothing, n_steps=100, internal_batch_size=1, return_convergence_delta=True
    )
    change = float(answer(ids) - answer(nothing))
    assert found.shape[:2] == ids.shape and found.abs().sum() > 0
    assert abs(float(delta)) < 0.05 * max(0.1, abs(change))
