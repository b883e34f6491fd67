"""Segments, the eager formula and rotary positions against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hfseq.models.attention import (
    Segments,
    attend_segments,
    eager_attention,
    new_segment,
    positions_of,
    rotary_angles,
    rotate,
    segments_of,
)

HEADS, WIDTH = 2, 6


def tensors(*shape, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)
    ]


def plain_attention(q, k, v, scaling):
    """One segment, one query at a time: q [n, heads, width], k and v [m, heads, width]."""
    outputs = torch.empty_like(q)
    for i in range(len(q)):
        for h in range(q.shape[1]):
            weights = torch.softmax(torch.stack([q[i, h] @ k[j, h] * scaling for j in range(len(k))]), 0)
            outputs[i, h] = sum(w * v[j, h] for j, w in enumerate(weights))
    return outputs


def by_segment(q, k, v, queries, keys, scaling):
    parts = zip(queries, queries[1:], keys, keys[1:], strict=False)
    return torch.cat([plain_attention(q[a:b], k[c:d], v[c:d], scaling) for a, b, c, d in parts if a < b])


@pytest.mark.parametrize(
    ("queries", "keys"),
    [
        ([0, 3, 4, 9], [0, 3, 4, 9]),
        ([0, 3, 4, 9, 9, 9], [0, 3, 4, 9, 9, 9]),  # repeated at the end: shapes that stay the same
        ([0, 0, 2, 9], [0, 4, 5, 9]),  # fewer queries than keys, none in the first segment
        ([0, 9], [0, 9]),
    ],
)
def test_segments_against_a_loop(queries, keys):
    q, k, v = tensors(9, HEADS, WIDTH)
    borders = Segments(torch.tensor(queries).int(), torch.tensor(keys).int(), 9, 9)
    got = attend_segments(q, k, v, borders, 0.3)
    expected = by_segment(q, k, v, queries, keys, 0.3)
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weights).sum(), (q, k, v)),
        torch.autograd.grad((expected * weights).sum(), (q, k, v)),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=0, atol=1e-11)


def test_dropout_acts_on_the_weights():
    q, k, v = tensors(9, HEADS, WIDTH)
    borders = Segments(torch.tensor([0, 4, 9]).int(), torch.tensor([0, 4, 9]).int(), 5, 5)
    torch.manual_seed(0)
    first = attend_segments(q, k, torch.ones_like(v), borders, 0.3, dropout=0.5)
    # With values of one, an output is the sum of the weights: 1 without dropout.
    assert first.std() > 0.1 and abs(float(first.detach().mean()) - 1) < 0.35


class OnGpu:
    """A tensor that says it is on a GPU."""

    def __init__(self, tensor):
        self.tensor, self.is_cuda = tensor, True


def test_a_gpu_gets_one_call_with_all_borders(monkeypatch):
    """The kernel is replaced by one of the same signature that computes on the CPU."""
    import inspect

    from torch.nn.attention import varlen

    given = {}
    signature = inspect.signature(varlen.varlen_attn)

    def fake(*arguments, **options):
        given.update(signature.bind(*arguments, **options).arguments)
        q, k, v = (given[name].tensor for name in ("query", "key", "value"))
        return by_segment(q, k, v, given["cu_seq_q"].tolist(), given["cu_seq_k"].tolist(), given["scale"])

    monkeypatch.setattr(varlen, "varlen_attn", fake)
    q, k, v = tensors(9, HEADS, WIDTH)
    queries, keys = torch.tensor([0, 2, 3, 9]).int(), torch.tensor([0, 4, 5, 9]).int()
    borders = Segments(queries, keys, 6, 4)
    got = attend_segments(OnGpu(q), OnGpu(k), OnGpu(v), borders, 0.3)
    assert (given["max_q"], given["max_k"]) == (6, 4)
    assert torch.allclose(got, attend_segments(q, k, v, borders, 0.3), rtol=0, atol=1e-12)


def test_borders_and_positions_say_the_same():
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3], [0, 1, 2, 3, 4]])
    found = segments_of(positions)
    assert found.queries.tolist() == found.keys.tolist() == [0, 3, 5, 6, 10, 15]
    assert found.queries.dtype == torch.int32 and found.longest_query == found.longest_key == 5
    assert torch.equal(positions_of(found.queries, 3, 5), positions)
    repeated = torch.cat([found.queries, found.queries[-1:].repeat(4)])
    assert torch.equal(positions_of(repeated, 3, 5), positions)
    assert new_segment(positions).sum() == 5


def test_a_row_that_begins_in_the_middle_is_one_segment():
    assert segments_of(torch.tensor([[7, 8, 9], [3, 4, 0]])).queries.tolist() == [0, 3, 5, 6]


def test_segments_of_some_positions():
    """Borders among the positions that ask: segment i keeps those that lie in it, perhaps none."""
    keys = torch.tensor([0, 3, 5, 6, 10]).int()
    asked = Segments(keys, keys, 4, 4).of_positions(torch.tensor([1, 2, 5, 6, 9]))
    assert asked.queries.tolist() == [0, 2, 2, 3, 5]
    assert torch.equal(asked.keys, keys) and asked.longest_key == 4


def test_eager_against_a_loop():
    q, k, v = tensors(2, HEADS, 5, WIDTH)
    allowed = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    mask = torch.zeros(2, 1, 1, 5, dtype=torch.float64).masked_fill(~allowed[:, None, None], -1e300)
    got, weights = eager_attention(nn.Identity().eval(), q, k, v, mask, 0.4, dropout=0.5)
    for row in range(2):
        real = allowed[row]
        arguments = (t[row].transpose(0, 1) for t in (q, k[:, :, real], v[:, :, real]))
        assert torch.allclose(got[row], plain_attention(*arguments, 0.4), rtol=0, atol=1e-12)
    assert torch.allclose(weights.sum(-1), torch.ones(2, HEADS, 5, dtype=torch.float64))
    assert (weights[0, :, :, 3:] == 0).all()


def test_rotary_turns_pairs_by_angles_that_grow_with_the_position():
    """Su et al. 2021, number by number: pair i of a vector at position p is turned by p / theta^(2 i / width)."""
    (x,) = tensors(2, HEADS, 4, WIDTH, count=1)
    positions = torch.tensor([[0, 1, 2, 3], [5, 6, 0, 1]])
    theta, half = 100.0, WIDTH // 2
    got = rotate(x, rotary_angles(positions, WIDTH, theta, torch.float64))
    for row in range(2):
        for t in range(4):
            for i in range(half):
                angle = float(positions[row, t]) / theta ** (2 * i / WIDTH)
                pair = torch.complex(x[row, :, t, i], x[row, :, t, i + half])
                turned = pair * complex(math.cos(angle), math.sin(angle))
                assert torch.allclose(got[row, :, t, i], turned.real, rtol=0, atol=1e-12)
                assert torch.allclose(got[row, :, t, i + half], turned.imag, rtol=0, atol=1e-12)


def test_rotary_products_depend_on_the_distance_alone():
    q, k = tensors(1, 1, 1, WIDTH, count=2)

    def product(p, s):
        turned = [
            rotate(x, rotary_angles(torch.tensor([[n]]), WIDTH, 10000.0, torch.float64))
            for x, n in ((q, p), (k, s))
        ]
        return (turned[0] * turned[1]).sum()

    assert torch.isclose(product(3, 7), product(103, 107), rtol=0, atol=1e-12)
    assert not torch.isclose(product(3, 7), product(3, 8))


def test_rotary_angles_are_computed_in_float32_at_least():
    positions = torch.tensor([[511]])
    cos, _ = rotary_angles(positions, WIDTH, 10000.0, torch.bfloat16)
    exact, _ = rotary_angles(positions, WIDTH, 10000.0, torch.float64)
    assert cos.dtype == torch.bfloat16
    assert (cos.double() - exact).abs().max() < 0.005
