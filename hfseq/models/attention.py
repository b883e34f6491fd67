"""Attention that the families share: packed rows, rotary positions, the plain form.

Several sequences in one row must not see each other. There are two exact ways:

- a block-diagonal mask over the row, which every backend takes and which costs row length x row length;
- *borders*: the row is attended to segment by segment, which costs the sum of squared segment lengths.

`Segments` holds the borders. In float32 on a CPU one call per segment is never slower than the mask and up to three
times faster (8 rows of 512, heads of 64, forward and backward of one layer, one thread: segments of 60 tokens 39 ms
against 126, of 230 tokens 58 against 124; 32 rows of 128, segments of 25: 36 against 47);
in training in 16 bits the mask is faster where segments are many and rows short (`mask_pays`). On a GPU it is
`torch.nn.attention.varlen`, or flash attention where that is installed.

Training in 16 bits on a CPU, the formula itself is faster than torch's fused kernel, whose backward pass does not use
the units for such products (bfloat16, one core of a CPU that has them, forward and backward, fused against formula:
[40, 5, 128, 64] 60 ms and 11, [10, 8, 512, 64] 105 and 61, [64, 4, 20, 32] 15 and 2; in float32 they are equal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Angles = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of rotary positions, see `rotary_angles`."""


@dataclass(frozen=True)
class Segments:
    """Where the segments of packed rows begin and end, in rows laid one after the other.

    Args:
        queries, keys: int32 [n + 1], borders among the queries and among the keys; repeated borders are empty segments.
        longest_query, longest_key: at least the length of the longest segment.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    longest_query: int
    longest_key: int

    def of_positions(self, flat: torch.Tensor) -> Segments:
        """The same segments where only some positions ask: `flat` [n], ascending positions in the rows laid in line."""
        queries = torch.searchsorted(flat.to(torch.int32), self.keys, out_int32=True)
        return Segments(queries, self.keys, self.longest_query, self.longest_key)


def new_segment(position_ids: torch.Tensor) -> torch.Tensor:
    """True where a segment begins: positions [batch, time] that do not go on from their left neighbour."""
    first = torch.ones_like(position_ids[:, :1], dtype=torch.bool)
    return torch.cat([first, position_ids[:, 1:] != position_ids[:, :-1] + 1], dim=1)


def segments_of(position_ids: torch.Tensor) -> Segments:
    """Borders from positions [batch, time]; waits for the device, as their number is not known before."""
    total = position_ids.numel()
    begins = new_segment(position_ids).flatten().nonzero().flatten()
    borders = F.pad(begins, (0, 1), value=total).to(torch.int32)
    longest = int(borders.diff().max())
    return Segments(borders, borders, longest, longest)


def positions_of(borders: torch.Tensor, batch: int, time: int) -> torch.Tensor:
    """Positions [batch, time] that begin again at every border [n + 1]."""
    places = torch.arange(batch * time, device=borders.device)
    segment = torch.searchsorted(borders.to(places.dtype), places, right=True) - 1
    return (places - borders[segment]).view(batch, time)


class Packed:
    """Several sequences in one row: their borders, numbers and positions, each computed when somebody asks."""

    def __init__(self, position_ids: torch.Tensor, segments: Segments | None):
        self.position_ids = position_ids
        self._segments = segments

    @property
    def has_borders(self) -> bool:
        return self._segments is not None

    @property
    def segments(self) -> Segments:
        if self._segments is None:
            self._segments = segments_of(self.position_ids)
        return self._segments

    @property
    def numbers(self) -> torch.Tensor:
        """Each position's segment, counted in its row [batch, time]."""
        return new_segment(self.position_ids).cumsum(1)


def find_packed(
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None,
    max_length_q: int | torch.Tensor | None,
    seq_idx: torch.Tensor | None,
    batch: int,
    time: int,
) -> Packed | None:
    """The packed segments of a batch, None where every row is one sequence. Arguments as in `EncoderModel.forward`."""
    if position_ids is not None and (position_ids.ndim != 2 or position_ids.shape[1] != time):
        raise ValueError(
            f"position_ids must be [{batch}, {time}] (or [1, {time}]) like the input, not {list(position_ids.shape)}."
        )
    if position_ids is not None:
        positions = position_ids
        if cu_seq_lens_q is None and seq_idx is None and attention_mask is not None:
            return None
    elif cu_seq_lens_q is not None:
        positions = positions_of(cu_seq_lens_q, batch, time)
    elif seq_idx is not None:
        first = torch.cat([torch.ones_like(seq_idx[:, :1]), seq_idx.diff(dim=1) != 0], dim=1)
        places = torch.arange(time, device=seq_idx.device).expand(batch, time)
        positions = places - (places * first).cummax(dim=1).values
    else:
        return None
    if attention_mask is not None:
        raise ValueError(
            "Packed rows have no attention_mask: make padding a segment of its own and leave it out."
        )
    segments = None
    if cu_seq_lens_q is not None:
        longest = time if max_length_q is None else int(max_length_q)
        segments = Segments(cu_seq_lens_q, cu_seq_lens_q, longest, longest)
    if positions.shape != (batch, time):
        positions = positions.expand(batch, time)
    return Packed(positions, segments)


def attend_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scaling: float,
    dropout: float = 0.0,
    causal: bool = False,
) -> torch.Tensor:
    """Attention within each segment.

    Args:
        query: [queries, heads, width], rows laid one after the other; key, value: [keys, heads, width].
        dropout: on the attention weights; not on a GPU, whose kernel has none.
        causal: a query sees no key after it; queries and keys then have the same borders.

    Returns:
        [queries, heads, width].
    """
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        s = segments
        longest = s.longest_query, s.longest_key
        window = (-1, 0) if causal else (-1, -1)
        output = varlen_attn(
            query, key, value, s.queries, s.keys, *longest, scale=scaling, window_size=window
        )
        return output  # type: ignore[return-value]  # a tuple only where return_aux asks for more
    outputs = []
    parts = [
        (t.transpose(0, 1).split(borders.diff().tolist(), dim=1))
        for t, borders in ((query, segments.queries), (key, segments.keys), (value, segments.keys))
    ]
    for q, k, v in zip(*parts, strict=True):  # [heads, length, width]
        if q.shape[1] and not k.shape[1]:  # padding that has no keys at all: nobody reads it
            outputs.append(q.new_zeros(q.shape[1], q.shape[0], v.shape[2]))
        elif q.shape[1]:
            outputs.append(
                attention(q[None], k[None], v[None], None, scaling, dropout, causal)[0].transpose(0, 1)
            )
    return torch.cat(outputs)


def in_16_bits(x: torch.Tensor) -> bool:
    """Whether products of hidden states x are computed in 16 bits, by their type or by autocast."""
    return x.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(x.device.type)


def formula_pays(x: torch.Tensor) -> bool:
    """Whether the formula is faster than the fused kernel for hidden states or queries such as x, see the top."""
    return (
        x.device.type == "cpu"
        and in_16_bits(x)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def mask_pays(segments: Segments, x: torch.Tensor, heads: int) -> bool:
    """Whether, by the formula, rows [batch, time, width] under a mask are faster than segments one by one: each costs a
    third of a millisecond beside its arithmetic, as much as 90,000 scores."""
    if not formula_pays(x):
        return False
    lengths = segments.keys.diff()
    area = int((lengths * lengths).sum())
    return x.shape[0] * x.shape[1] ** 2 <= area + len(lengths) * 90_000 // heads


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    causal: bool = False,
) -> torch.Tensor:
    """Attention by torch's fused kernel, or by the formula where that is faster.

    Args:
        query: [batch, heads, queries, width]; key, value: [batch, heads, keys, width].
        mask: broadcast to [batch, heads, queries, keys]; bool, true where a query sees a key, or added to the scores.
        dropout: on the attention weights, in training.
        causal: a query sees no key after it; without a mask, and as many queries as keys.

    Returns:
        [batch, heads, queries, width].
    """
    if not formula_pays(query):
        return F.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=dropout, scale=scaling, is_causal=causal
        )
    scores = (query * scaling) @ key.transpose(-1, -2)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        if mask.dtype == torch.bool:  # a sum costs half of what masked_fill does
            mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(
                ~mask, torch.finfo(scores.dtype).min
            )
        scores = scores + mask
    return F.dropout(scores.softmax(-1), dropout) @ value


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The formula (Vaswani et al. 2017), and the only form that returns its weights.

    Args:
        query: [batch, heads, queries, width]; key, value: [batch, heads, keys, width].
        attention_mask: added to the scores, broadcast to [batch, heads, queries, keys].

    Returns:
        outputs [batch, queries, heads, width] and weights [batch, heads, queries, keys].
    """
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32 if scores.dtype.itemsize < 4 else None).to(query.dtype)
    weights = F.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def rotary_angles(positions: torch.Tensor, width: int, theta: float, dtype: torch.dtype) -> Angles:
    """Cosines and sines [batch or 1, 1, time, width] of rotary positions (Su et al. 2021), for `rotate`."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    frequencies = theta ** -(torch.arange(0, width, 2, device=positions.device, dtype=wide) / width)
    angles = positions.unsqueeze(-1).to(wide) * frequencies  # [batch, time, width / 2]
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


class _Rotation(torch.autograd.Function):
    """Of `rotate`: half by half into one block, and backwards the other way round. Autograd's own way keeps x and makes
    six blocks more; a [40, 5, 128, 64] of bfloat16 took 12 ms forward and backward on one core, 5 ms so."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        cos, sin = cos[..., :half], sin[..., :half]  # both halves have the same angles
        wide = x.to(torch.promote_types(x.dtype, cos.dtype))
        first, second = wide[..., :half], wide[..., half:]
        turned = torch.empty(x.shape, dtype=wide.dtype, device=x.device)
        torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=turned[..., half:]).addcmul_(first, sin)
        return turned.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _Rotation.apply(grad, cos, -sin), None, None


def rotate(x: torch.Tensor, angles: Angles) -> torch.Tensor:
    """Turns x [batch, heads, time, width]; number i of the first half is paired with number i of the second.

    Under autocast x has fewer bits than the angles; it keeps its type, as kernels want queries and values of one.
    """
    cos, sin = angles
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():  # the compiler fuses it
        first, second = x.chunk(2, dim=-1)
        return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
    return _Rotation.apply(x, cos, sin)
