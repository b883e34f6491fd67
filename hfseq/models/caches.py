"""What is kept from one call to the next: the states of a recurrent network, and a Transformer's source.

`RecurrentCache` carries the state from one `forward` to the next while *generating*. It is a full
transformers `Cache`: beam search reorders it, assisted decoding crops it, `num_return_sequences` repeats
it. The stock `DynamicCache` layers do not fit: they count keys, and their updates are in place.

`CarriedStates` carries the state from one training segment of a text stream to the next (truncated
back-propagation through time, Merity et al. 2017, section 3), keyed by the stream's number. It is a plain
Python object: a registered buffer would be broadcast from rank 0 to every process by DDP.

`SourceCache` holds the source of an encoder-decoder while generating.

A *state* is a tuple of tensors [layers, batch, hidden]: (h,) for RNN and GRU, (h, c) for LSTM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from transformers.cache_utils import Cache, DynamicCache, LinearAttentionCacheLayerMixin

State = tuple[torch.Tensor, ...]


class RecurrentCacheLayer(LinearAttentionCacheLayerMixin):
    """The state of one fused block of recurrent layers, replaced (never written in place) at each update."""

    is_compileable = False

    def __init__(self) -> None:
        super().__init__()
        self.states: State | None = None
        # While recording: the state before the first recorded step, then the state after each step.
        self.history: list[State | None] = []

    def update(self, states: State, recorded: list[State] | None = None) -> None:
        """Replaces the state; `recorded` holds the state after each new token, needed only while recording."""
        if self.record_past:
            if recorded is None:
                raise ValueError(
                    "This cache records its past (for `crop`): pass the state after every token."
                )
            if not self.history:
                self.history = [self.states]
            self.history.extend(recorded)
        self.states = states

    def crop(self, tokens_to_remove: int) -> None:
        removed = abs(tokens_to_remove)
        if removed:
            recorded = max(len(self.history) - 1, 0)
            if removed > recorded:
                raise RuntimeError(
                    f"Cannot remove {removed} tokens from a recurrent cache that recorded {recorded}: a state cannot "
                    "be computed backwards. Call `activate_past_recording()` before those tokens."
                )
            self.states = self.history[-1 - removed]
        self.history = []

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        def apply(states: State | None) -> State | None:
            return None if states is None else tuple(function(s) for s in states)

        self.states = apply(self.states)
        self.history = [apply(states) for states in self.history]

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self._map(lambda s: s.index_select(1, beam_idx.to(s.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._map(lambda s: s[:, indices.to(s.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda s: s.repeat_interleave(repeats, dim=1))

    def reset(self) -> None:
        self.states, self.history = None, []

    @property
    def is_croppable(self) -> bool:
        return True

    @property
    def batch_size(self) -> int:
        return -1 if self.states is None else self.states[0].shape[1]

    def get_max_length(self) -> int:
        return -1  # a recurrent state has no length

    def lazy_initialization(self, *args: object, **kwargs: object) -> None:
        """Nothing to allocate: the first update brings the state."""

    def update_conv_state(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("A recurrent cache has no convolution state.")

    def update_recurrent_state(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("Use `RecurrentCacheLayer.update(states)`: a recurrent state is a tuple of tensors.")

    def offload(self) -> None:
        """States are a few kilobytes: they stay where they are."""

    def prefetch(self) -> None:
        """See `offload`."""


class RecurrentCache(Cache):
    """Hidden states between two calls of `forward`, one `RecurrentCacheLayer` per fused block.

    Args:
        num_blocks: how many fused blocks the model has (`model.num_blocks`).
    """

    is_recurrent_cache = True  # the model file's own copy of this class may differ: remote code

    def __init__(self, num_blocks: int) -> None:
        super().__init__(layers=[RecurrentCacheLayer() for _ in range(num_blocks)])
        self.seen_tokens = 0

    @property
    def is_recording(self) -> bool:
        return self.layers[0].record_past

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen_tokens

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.seen_tokens + query_length, 0

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        return self.layers[layer_idx or 0].states is not None

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last `-tokens_to_remove` tokens (zero only forgets the recorded past).

        A positive number is the length to keep, as `DynamicCache.crop` had it before transformers 5.
        """
        if tokens_to_remove > 0:
            tokens_to_remove = min(tokens_to_remove - self.seen_tokens, 0)
        super().crop(tokens_to_remove)
        self.seen_tokens += tokens_to_remove

    def reset(self) -> None:
        super().reset()
        self.seen_tokens = 0


class CarriedStates:
    """States of text streams between training segments, addressed by `stream_id`; apart for evaluation.

    Values are detached copies: gradients stop at the segment's border. `reserve(streams)` allocates the
    tables up front; without it the first batches grow them, which on a GPU costs a synchronisation each.
    """

    def __init__(self) -> None:
        self._reserved = 0
        # By mode (training or not): tensors [layers, streams, hidden] by name, and which streams were written.
        self._tables: dict[bool, dict[str, torch.Tensor]] = {True: {}, False: {}}
        self._written: dict[bool, torch.Tensor] = {}

    def reserve(self, num_streams: int) -> None:
        """Announces stream ids 0 ... num_streams - 1 for training."""
        if num_streams < 1:
            raise ValueError(f"num_streams must be at least 1, not {num_streams}.")
        self._reserved = num_streams

    def clear(self, training: bool | None = None) -> None:
        """Forgets everything, or only the training (True) or evaluation (False) states."""
        for mode in (True, False) if training is None else (training,):
            self._tables[mode] = {}
            self._written.pop(mode, None)

    def read(
        self,
        stream_id: torch.Tensor,
        starts_anew: torch.Tensor | None,
        shapes: list[list[tuple[int, int]]],
        like: torch.Tensor,
        training: bool,
    ) -> list[State]:
        """The states of `stream_id` [batch], zero where `starts_anew` [batch] or never written.

        `shapes[block]` lists (layers, hidden) of each tensor of that block's state; `like` gives dtype and device.
        """  # fmt: skip
        table = self._tables[training]
        rows = self._rows(stream_id, training)
        self._written[training] = _grown(self._written.get(training), (rows,), 0, torch.bool, like.device)
        keep = None if starts_anew is None else (~starts_anew.bool()).to(like.dtype).view(1, -1, 1)
        blocks = []
        for block, tensors in enumerate(shapes):
            state = []
            for number, (layers, hidden) in enumerate(tensors):
                name = f"block{block}.state{number}"
                table[name] = _grown(table.get(name), (layers, rows, hidden), 1, like.dtype, like.device)
                value = table[name].index_select(1, stream_id)
                state.append(value if keep is None else value * keep)
            blocks.append(tuple(state))
        return blocks

    @torch.no_grad()
    def write(self, stream_id: torch.Tensor, blocks: list[State], training: bool) -> None:
        """Stores the final states of a segment that was `read` before, detached."""
        table = self._tables[training]
        for block, state in enumerate(blocks):
            for number, value in enumerate(state):
                name = f"block{block}.state{number}"
                # Out of place: a table begun under inference_mode could not be written in place outside it.
                table[name] = table[name].index_copy(1, stream_id, value.detach().to(table[name].dtype))
        self._written[training] = self._written[training].index_fill(0, stream_id, True)

    def _rows(self, stream_id: torch.Tensor, training: bool) -> int:
        known = len(self._written.get(training, ()))
        if training and self._reserved:
            return max(known, self._reserved)
        return max(known, int(stream_id.max()) + 1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The training states that this process wrote, on the CPU: another one has trained what was only loaded.

        Returns:
            {"stream_id": [streams], "block0.state0": [layers, streams, hidden], ...}, or {} if there are none.
        """
        if True not in self._written or not self._written[True].any():
            return {}
        streams = self._written[True].nonzero().squeeze(1)
        states = {k: v.index_select(1, streams).cpu() for k, v in self._tables[True].items()}
        return {"stream_id": streams.cpu(), **states}

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Merges saved training states; may be called once for the file of each process."""
        if not state_dict:
            return
        if "stream_id" not in state_dict:
            raise ValueError(f"Not a carried state: keys {sorted(state_dict)} lack 'stream_id'.")
        stream_id = state_dict["stream_id"]
        rows, table = self._rows(stream_id, training=True), self._tables[True]
        self._written[True] = _grown(self._written.get(True), (rows,), 0, torch.bool, stream_id.device)
        for name, value in state_dict.items():
            if name != "stream_id":
                shape = (value.shape[0], rows, value.shape[2])
                table[name] = _grown(table.get(name), shape, 1, value.dtype, value.device)
                table[name].index_copy_(1, stream_id, value)


def _grown(
    stored: torch.Tensor | None, shape: tuple[int, ...], axis: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """`stored`, lengthened with zeros to `shape` along `axis`, in that dtype and on that device."""
    if stored is None:
        return torch.zeros(shape, dtype=dtype, device=device)
    stored = stored.to(dtype=dtype, device=device)
    missing = shape[axis] - stored.shape[axis]
    if missing == 0:
        return stored
    padding = stored.new_zeros((*shape[:axis], missing, *shape[axis + 1 :]))
    return torch.cat([stored, padding], dim=axis)


class SourceCache(DynamicCache):
    """Keys and values of the source, in generate() alone.

    Beam search moves hypotheses about, but only among those of one source, which have the same source: reordering would
    copy every layer's keys and values at every step, for nothing.
    """

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Nothing to do: `beam_idx` never leads from one source to another."""
