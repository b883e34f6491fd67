"""The chunked output loss against the obvious one, and what the others weigh."""

import pytest
import torch
import torch.nn.functional as F

from hfseq.models import losses
from hfseq.models.losses import (
    activation_penalty,
    count_labels,
    cross_entropy,
    linear_cross_entropy,
    next_token_labels,
)

ROWS, WIDTH, VOCABULARY = 37, 8, 19


def reference_linear_cross_entropy(hidden, weight, bias, labels, label_smoothing=0.0):
    """Summed cross-entropy of `hidden @ weight.T + bias` [rows, vocabulary] against `labels` [rows]: the oracle."""
    logits = F.linear(hidden, weight, bias)
    logits = logits if hidden.dtype == torch.float64 else logits.float()
    return F.cross_entropy(
        logits, labels, ignore_index=-100, reduction="sum", label_smoothing=label_smoothing
    )


@pytest.fixture(params=[1 << 22, 5 * VOCABULARY, 1], ids=["one chunk", "five rows a chunk", "a row a chunk"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(losses, "CPU_CHUNK_ELEMENTS", request.param)
    monkeypatch.setattr(losses, "CPU_HALF_CHUNK_ELEMENTS", request.param)
    monkeypatch.setattr(
        losses, "CPU_BLOCK_ELEMENTS", max(1, request.param // 2)
    )  # two rows of five, then one


def tensors(dtype=torch.float64, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, offsets = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((ROWS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    )
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    labels[[3, 11, 36]] = -100
    return hidden, weight, offsets if bias else None, labels


def loss_and_gradients(function, hidden, weight, bias, labels, smoothing=0.0):
    leaves = [t for t in (hidden, weight, bias) if t is not None]
    loss = function(hidden, weight, bias, labels, smoothing)
    return [loss, *torch.autograd.grad(loss * 0.3, leaves)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.03)]
)
def test_equals_the_reference(chunks, dtype, tolerance, bias, smoothing):
    ours = loss_and_gradients(linear_cross_entropy, *tensors(dtype, bias), smoothing)
    theirs = loss_and_gradients(reference_linear_cross_entropy, *tensors(dtype, bias), smoothing)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= tolerance * (b.abs().max() + 1)


def test_reference_is_what_it_says():
    """Label smoothing by hand, on one row."""
    hidden, weight, bias, _ = tensors()
    log_p = (hidden[:1] @ weight.T + bias).log_softmax(1)[0]
    expected = -(0.9 * log_p[4] + 0.1 * log_p.mean())
    assert torch.isclose(
        reference_linear_cross_entropy(hidden[:1], weight, bias, torch.tensor([4]), 0.1), expected
    )


def test_strided_hidden_states(chunks):
    hidden, weight, bias, labels = tensors()
    strided = hidden.detach().t().contiguous().t().requires_grad_()
    for a, b in zip(
        loss_and_gradients(linear_cross_entropy, strided, weight, bias, labels),
        loss_and_gradients(linear_cross_entropy, hidden, weight, bias, labels), strict=True,
    ):  # fmt: skip
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_frozen_weight_and_frozen_hidden_states():
    hidden, weight, bias, labels = tensors()
    full = torch.autograd.grad(linear_cross_entropy(hidden, weight, bias, labels), [hidden, weight, bias])
    (only_hidden,) = torch.autograd.grad(
        linear_cross_entropy(hidden, weight.detach(), bias.detach(), labels), [hidden]
    )
    (only_weight,) = torch.autograd.grad(
        linear_cross_entropy(hidden.detach(), weight, bias.detach(), labels), [weight]
    )
    assert torch.allclose(only_hidden, full[0]) and torch.allclose(only_weight, full[1])


def test_no_label_no_loss(chunks):
    hidden, weight, bias, labels = tensors()
    results = loss_and_gradients(linear_cross_entropy, hidden, weight, bias, torch.full_like(labels, -100))
    assert all((result == 0).all() for result in results)
    assert cross_entropy(hidden @ weight.T, torch.full_like(labels, -100)) == 0
    assert count_labels(torch.full_like(labels, -100), None) == 1


def test_autocast_casts_and_gradients_come_back_in_float32():
    hidden, weight, bias, labels = tensors(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, bias, labels)
    loss.backward()
    expected = reference_linear_cross_entropy(hidden, weight, bias, labels)
    assert loss.dtype == weight.grad.dtype == torch.float32
    assert abs(loss - expected) < 0.02 * expected
    assert loss != expected  # it did run in bfloat16


def test_blocks_of_sixteen_bits_change_nothing(monkeypatch):
    """They are widened block by block; all that is summed over is the chunk."""
    whole = loss_and_gradients(linear_cross_entropy, *tensors(torch.bfloat16), 0.1)
    monkeypatch.setattr(losses, "CPU_BLOCK_ELEMENTS", 3 * VOCABULARY)
    loss, of_hidden, of_weight, of_bias = loss_and_gradients(
        linear_cross_entropy, *tensors(torch.bfloat16), 0.1
    )
    assert torch.equal(of_hidden, whole[1]) and torch.equal(of_weight, whole[2])
    assert torch.allclose(of_bias, whole[3]) and torch.allclose(loss, whole[0])


def test_a_second_backward_is_refused_not_wrong():
    loss = linear_cross_entropy(*tensors())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError):
        loss.backward()


def test_the_count_that_divides():
    labels = torch.tensor([[1, -100, 2]])
    assert count_labels(labels, None) == 2
    assert count_labels(labels, 7) == 7
    assert count_labels(labels, torch.tensor(5)) == 5
    assert count_labels(labels, 0) == 1


def test_labels_move_left():
    labels = torch.tensor([[5, 6, 7], [8, 9, -100]])
    assert next_token_labels(labels).tolist() == [[6, 7, -100], [9, -100, -100]]


class TestActivationPenalty:
    """AR and TAR (Merity et al. 2017), by hand."""

    def test_values(self):
        raw = torch.tensor([[[1.0, 3.0], [2.0, 5.0], [2.0, 5.0]]])
        dropped = raw * 2
        labels = torch.tensor([[4, 4, 4]])
        ar = activation_penalty(dropped, raw, labels, 2.0, 0.0)
        assert ar.item() == pytest.approx(2.0 * ((4 + 36) / 2 + (16 + 100) / 2 + (16 + 100) / 2))
        tar = activation_penalty(dropped, raw, labels, 0.0, 3.0)
        # the mean over the two changes, for each of three labels
        assert tar.item() == pytest.approx(3.0 * ((1 + 4) / 2 + 0) / 2 * 3)

    def test_equals_the_published_means_where_every_position_counts(self):
        torch.manual_seed(0)
        raw, labels = torch.randn(3, 7, 4), torch.zeros(3, 7, dtype=torch.long)
        expected = 2 * raw.pow(2).mean() + (raw[:, 1:] - raw[:, :-1]).pow(2).mean()
        assert torch.isclose(activation_penalty(raw, raw, labels, 2.0, 1.0) / labels.numel(), expected)

    def test_unlabelled_positions_do_not_count(self):
        raw = torch.randn(2, 5, 3)
        labels = torch.tensor([[1, 1, 1, -100, -100], [-100] * 5])
        noisy = raw.clone()
        noisy[0, 3:], noisy[1] = 100.0, -100.0
        clean, dirty = (activation_penalty(x, x, labels, 1.0, 1.0) for x in (raw, noisy))
        assert torch.isclose(clean, dirty)
