"""RNN, GRU and LSTM language models, classifiers and taggers: one stack, one cache, thin classes.

Decisions, and what they buy (two CPU cores, 2 x 512 LSTM, 8k words unless said; see scripts/benchmarks/):

- Parameters live in `nn.RNN/GRU/LSTM` under torch's own names, layers of equal width in one *block* that is one
  fused call. AWD-LSTM's regularisers act functionally on those parameters: no weight is renamed, and with the
  regularisers off nothing leaves the fused kernel.
- Inside, tensors are time-major [time, batch, width], the kernels' own layout; the embedding looks ids up in
  that order, so that no activation is ever transposed in memory.
- One token at a time (generation) runs `*_cell` functions instead: the fused CPU kernel re-packs its weights at
  every call, which for one step costs several times the arithmetic.
- Padding: a fused call computes right outputs for right-padded rows. Any other mask is turned into right padding by
  moving each row's tokens to the front (and the outputs back). Only where *final states* of rows of unequal lengths
  are wanted (a prompt of `generate`) do rows run as a `PackedSequence`.
- In training with labels the loss never materialises the logits (`losses.py`), and `logits` is None.
- `stream_id` carries the state from one training segment to the next (`caches.CarriedStates`).
- With `config.feature_size` a text begins in a state made from a vector, `features`, in place of zeros
  (`FeatureProjection`): vector-to-sequence, from any encoder or table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple

from .caches import CarriedStates, RecurrentCache, State
from .configuration_recurrent import GRUConfig, LSTMConfig, RecurrentConfig, RNNConfig
from .generation import HfseqGenerationMixin
from .inputs import one_of
from .layer_list import LayerList
from .layouts import linear, one_row_weight
from .losses import (
    IGNORE_INDEX,
    activation_penalty,
    check_labels,
    classification_loss,
    count_labels,
    cross_entropy,
    next_token_labels,
    output_layer_loss,
)
from .packed_rows import refuse_packed_rows
from .plain_layers import has_hooks, is_plain
from .pretrained import HfseqPreTrainedModel
from .processors import autocast_pays

RNN_CLASSES = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN_TANH": nn.RNN, "RNN_RELU": nn.RNN}
Show = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""`expose` of a batch: x [time, batch, width] -> (what the caller sees of it, x made of that)."""
WEIGHT_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def dropout(x: torch.Tensor, p: float, training: bool, locked: bool) -> torch.Tensor:
    """Dropout of x [time, batch, width]; `locked` draws one mask [1, batch, width] for all time steps."""
    if not training or p == 0:
        return x
    if not locked:
        return F.dropout(x, p)
    return x * F.dropout(x.new_ones(1, *x.shape[1:]), p)


class _ReverseRows(torch.autograd.Function):
    """A permutation that is its own inverse, and so its own gradient: nothing is scattered or added."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(order)
        return x.flatten(0, 1).index_select(0, order).view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        (order,) = ctx.saved_tensors
        return _ReverseRows.apply(gradient, order), None


def reversal(ends: torch.Tensor, time: int) -> torch.Tensor:
    """The order that `_ReverseRows` takes for [time, batch, width]: each row's first `ends` [batch] steps backwards."""
    steps = torch.arange(time, device=ends.device).unsqueeze(1)  # [time, 1]
    mirrored = torch.where(steps < ends, ends - 1 - steps, steps)  # [time, batch]
    return (mirrored * ends.shape[0] + torch.arange(ends.shape[0], device=ends.device)).flatten()


class RecurrentBlock(GradientCheckpointingLayer):
    """Recurrent layers of equal width: the unit of one fused call, of checkpointing and of sharding.

    Backwards over rows of unequal lengths a fused call would begin in the padding. Each layer then runs as two
    calls in one direction, the second over rows turned round within their own length. Against a `PackedSequence`
    (2 x 256 LSTM, 200 rows, one CPU thread): 1.15 times as fast where lengths are 18 to 20, as in bucketed
    batches, 0.9 times where a third is padding; and a GPU need not wait for lengths on the CPU.

    The kernels are given the weights of `rnn`. Where somebody hung hooks on it, or put another class in its place
    (`quantize_dynamic`), `rnn` is called instead; then nothing can be done between its layers.
    """

    def __init__(
        self,
        config: RecurrentConfig,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.mode = config.rnn_mode
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.bidirectional = bidirectional
        self.hidden_dropout = config.hidden_dropout
        self.weight_dropout = config.weight_dropout
        self.variational_dropout = config.variational_dropout
        options = {"nonlinearity": config.nonlinearity} if self.mode.startswith("RNN") else {}
        self.rnn = RNN_CLASSES[self.mode](
            input_size, hidden_size, num_layers, bidirectional=bidirectional, **options
        )
        self._flattened: int | None = None

    @property
    def state_tensors(self) -> int:
        return 2 if self.mode == "LSTM" else 1

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def forward(
        self,
        x: torch.Tensor,
        *state: torch.Tensor,
        lengths: torch.Tensor | None = None,
        show: Show | None = None,
        ends: torch.Tensor | None = None,
    ) -> tuple:
        """Runs all layers.

        Args:
            x: [time, batch, input]; rows, if unequal, padded on the right.
            state: tensors [layers * directions, batch, hidden], empty for zeros.
            lengths: CPU tensor [batch]; given where final states of ragged rows are wanted.
            show: also return each layer's output, as this function shows it.
            ends: the same lengths on the device of x, for two directions without `lengths`: the outputs of ragged rows
                are then right, and so is the final h; an LSTM's final c is not known and left out.

        Returns:
            (output [time, batch, hidden * directions], with `show` each layer's output, *final state): flat, because
            what lies in a list has no gradient under reentrant checkpointing

        Raises:
            ValueError: `rnn` must be called, and something is wanted of its layers one by one.
        """
        state = state or self.zero_state(x)
        between_layers = self.training and self.hidden_dropout > 0 and self.num_layers > 1
        # cuDNN's dropout keeps a random state of its own, outside torch's: neither checkpointing nor a resumed run
        # could repeat it.
        fused_dropout = not (self.variational_dropout or x.is_cuda or self.gradient_checkpointing)
        if lengths is not None and torch.compiler.is_compiling():
            return self._unrolled(x, state, lengths.to(x.device), show)
        p = self.hidden_dropout if between_layers else 0.0
        by_layer = {
            "the output of every layer": show is not None and self.num_layers > 1,
            "weight_dropout": self.training and self.weight_dropout > 0,
            "dropout between the layers": between_layers and not fused_dropout,
        }
        if not self._is_readable():
            if any(by_layer.values()):
                wanted = ", ".join(what for what, is_wanted in by_layer.items() if is_wanted)
                raise ValueError(
                    f"{type(self.rnn).__name__} has hooks or replaces a layer of torch.nn, so it is called as a whole, "
                    f"which does not allow: {wanted}. Hang hooks on the block around it, or leave that out."
                )
            if lengths is None and ends is not None:
                lengths = ends.cpu()
            output, final = self._call_module(x, state, p, lengths)
            shown, output = ([], output) if show is None else show(output)
            return output, *([] if show is None else [shown]), *final
        if not (any(by_layer.values()) or show is not None or (ends is not None and lengths is None)):
            output, final = self._call(
                x, state, self._weights(range(self.num_layers)), self.num_layers, p, lengths
            )
            return output, *final

        outputs, finals, ways = [], [], self.directions
        order = None if ends is None or lengths is not None else reversal(ends, x.shape[0])
        for layer in range(self.num_layers):
            layer_state = tuple(s[layer * ways : (layer + 1) * ways] for s in state)
            weights = self._dropped_weights(layer)
            if ends is None or order is None:
                x, final = self._call(x, layer_state, weights, 1, 0.0, lengths)
            else:
                x, final = self._both_ways(x, layer_state, weights, ends, order)
            if show is not None:
                shown, x = show(x)
                outputs.append(shown)
            finals.append(final)
            if layer < self.num_layers - 1:
                x = dropout(x, self.hidden_dropout, self.training, self.variational_dropout)
        final = tuple(torch.cat(tensors) for tensors in zip(*finals, strict=True))
        return x, *outputs, *final

    def step(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """One time step in evaluation mode: x [batch, input] -> ([batch, hidden], state)."""
        if not self._is_readable():
            output, state = self._call_module(x.unsqueeze(0), state, 0.0, None)
            return output[0], state
        cell = getattr(torch._VF, f"{self.mode.lower()}_cell")
        layers = []
        for layer in range(self.num_layers):
            weights = self._weights([layer])
            weights[:2] = (one_row_weight(matrix, x) for matrix in weights[:2])
            if self.mode == "LSTM":
                new = cell(x, (state[0][layer], state[1][layer]), *weights)
            else:
                new = (cell(x, state[0][layer], *weights),)
            x = new[0]
            layers.append(new)
        if self.num_layers == 1:
            return x, tuple(t.unsqueeze(0) for t in layers[0])
        return x, tuple(torch.stack(tensors) for tensors in zip(*layers, strict=True))

    def _both_ways(
        self,
        x: torch.Tensor,
        state: State,
        weights: list[torch.Tensor],
        ends: torch.Tensor,
        order: torch.Tensor,
    ) -> tuple[torch.Tensor, State]:
        """One layer in two directions over ragged rows; see the class."""
        half = len(weights) // 2
        forwards, _ = self._call(x, tuple(s[:1] for s in state), weights[:half], 1, 0.0, None)
        x = _ReverseRows.apply(x, order)
        backwards, _ = self._call(x, tuple(s[1:] for s in state), weights[half:], 1, 0.0, None)
        last = (ends - 1).view(1, -1, 1).expand(1, -1, self.hidden_size)
        final = torch.cat([forwards.gather(0, last), backwards.gather(0, last)])
        return torch.cat([forwards, _ReverseRows.apply(backwards, order)], dim=-1), (final,)

    def _is_readable(self) -> bool:
        """Whether the kernel may be given the weights. A hook on every module of the process does not count here."""
        return isinstance(self.rnn, nn.RNNBase) and not has_hooks(self.rnn)

    def _call_module(
        self, x: torch.Tensor, state: State, p: float, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, State]:
        """The layer as a module: as `_call`, for all of its layers."""
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not autocast_pays("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._call_module(x.float(), tuple(s.float() for s in state), p, lengths)
        self.rnn.dropout = p
        hx = state if self.mode == "LSTM" else state[0]
        if lengths is None:
            output, final = self.rnn(x.contiguous(), hx)
        else:
            packed, final = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False), hx)
            output, _ = pad_packed_sequence(packed, total_length=x.shape[0])
        return output, final if self.mode == "LSTM" else (final,)

    def _unrolled(self, x: torch.Tensor, state: State, lengths: torch.Tensor, show: Show | None) -> tuple:
        """Final states of ragged rows in a graph, which cannot hold a `PackedSequence`: one cell after the other."""
        cell = getattr(torch._VF, f"{self.mode.lower()}_cell")
        order, outputs, finals = reversal(lengths, x.shape[0]), [], []
        for layer in range(self.num_layers):
            weights, ways = self._dropped_weights(layer), []
            for way in range(self.directions):
                number = layer * self.directions + way
                now = tuple(s[number] for s in state)
                matrices = weights[way * len(WEIGHT_NAMES) :][: len(WEIGHT_NAMES)]
                steps, inputs = [], _ReverseRows.apply(x, order) if way else x
                for t in range(x.shape[0]):
                    new = cell(inputs[t], now if self.mode == "LSTM" else now[0], *matrices)
                    new = new if self.mode == "LSTM" else (new,)
                    now = tuple(
                        torch.where((t < lengths).unsqueeze(1), n, o) for n, o in zip(new, now, strict=True)
                    )
                    steps.append(new[0])
                output = torch.stack(steps)
                ways.append(_ReverseRows.apply(output, order) if way else output)
                finals.append(now)
            x = ways[0] if len(ways) == 1 else torch.cat(ways, dim=-1)
            if show is not None:
                shown, x = show(x)
                outputs.append(shown)
            if layer < self.num_layers - 1:
                x = dropout(x, self.hidden_dropout, self.training, self.variational_dropout)
        final = tuple(torch.stack(tensors) for tensors in zip(*finals, strict=True))
        return x, *outputs, *final

    def zero_state(self, x: torch.Tensor) -> State:
        shape = (self.num_layers * self.directions, x.shape[-2], self.hidden_size)
        return tuple(x.new_zeros(shape) for _ in range(self.state_tensors))

    def _weights(self, layers: Iterable[int]) -> list[torch.Tensor]:
        ways = ("", "_reverse") if self.bidirectional else ("",)
        return [
            getattr(self.rnn, f"{name}_l{layer}{way}")
            for layer in layers
            for way in ways
            for name in WEIGHT_NAMES
        ]

    def _dropped_weights(self, layer: int) -> list[torch.Tensor]:
        weights = self._weights([layer])
        recurrent = WEIGHT_NAMES.index("weight_hh")
        for i in range(recurrent, len(weights), len(WEIGHT_NAMES)):
            weights[i] = F.dropout(weights[i], self.weight_dropout, self.training)
        return weights

    def _call(
        self,
        x: torch.Tensor,
        state: State,
        weights: list[torch.Tensor],
        num_layers: int,
        p: float,
        lengths: torch.Tensor | None,
    ) -> tuple[torch.Tensor, State]:
        """The fused kernel of torch, on padded rows or (with lengths) on packed ones."""
        if x.is_cuda and self._flattened != weights[0].data_ptr():
            self.rnn.flatten_parameters()  # loading and .to() scatter the weights; cuDNN would copy them every call
            self._flattened = self.rnn.weight_ih_l0.data_ptr()
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not autocast_pays("cpu"):
            with torch.autocast("cpu", enabled=False):
                x, state = x.to(weights[0].dtype), tuple(s.to(weights[0].dtype) for s in state)
                return self._call(x, state, weights, num_layers, p, lengths)
        kernel = getattr(torch._VF, self.mode.lower())
        bidirectional = len(weights) > num_layers * len(WEIGHT_NAMES)
        flags = (True, num_layers, p, self.training, bidirectional)  # the first: biases
        if lengths is None:
            hx = state if self.mode == "LSTM" else state[0]
            output, *final = kernel(x, hx, weights, *flags, False)
            return output, tuple(final)
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        order = packed.sorted_indices
        state = state if order is None else tuple(s.index_select(1, order) for s in state)
        hx = state if self.mode == "LSTM" else state[0]
        data, *final = kernel(packed.data, packed.batch_sizes, hx, weights, *flags)
        packed = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        output, _ = pad_packed_sequence(packed, total_length=x.shape[0])
        return output, tuple(s.index_select(1, packed.unsorted_indices) for s in final)


class RecurrentPreTrainedModel(HfseqPreTrainedModel):
    """Initialisation shared by all recurrent classes."""

    config: RecurrentConfig
    _no_split_modules = ["RecurrentBlock"]
    _skip_keys_device_placement = ["past_key_values"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase):
            # torch's own default, which the published recipes used
            bound = module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -self.config.initializer_range, self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.zeros_(module.bias)


class FeatureProjection(nn.Module):
    """The first states of all layers from one vector per text.

    One affine map for all of them; tanh keeps each h where the layer's own states lie, an LSTM's c has no such bounds
    and stays affine. Vinyals et al. (2015, "Show and Tell") feed the vector as the first input instead, which has the
    same effect at the cost of a time step, and reaches upper layers only through the lower ones.
    """

    def __init__(self, feature_size: int, blocks: LayerList[RecurrentBlock]):
        super().__init__()
        # (layers, width) of every state tensor, block by block; h first
        self.shapes = [[(b.num_layers * b.directions, b.hidden_size)] * b.state_tensors for b in blocks]
        self.sizes = [layers * width for tensors in self.shapes for layers, width in tensors]
        self.linear = nn.Linear(feature_size, sum(self.sizes))

    def forward(self, features: torch.Tensor) -> list[State]:
        """features [batch, feature_size] -> the state of each block, tensors [layers * directions, batch, hidden]."""
        parts = iter(self.linear(features).split(self.sizes, dim=-1))
        states = []
        for tensors in self.shapes:
            state = [
                next(parts).unflatten(-1, shape).transpose(0, 1).contiguous()  # [layers, batch, width]
                for shape in tensors
            ]
            states.append((torch.tanh(state[0]), *state[1:]))
        return states


class RecurrentModel(RecurrentPreTrainedModel):
    """Embedding and recurrent layers, without an output layer."""

    def __init__(self, config: RecurrentConfig):
        super().__init__(config)
        # No padding_idx: padding is masked, and its row must not be special to resizing or tying.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        widths = [config.hidden_size] * config.num_hidden_layers
        widths[-1] = config.last_hidden_size or config.hidden_size
        self.blocks: LayerList[RecurrentBlock] = LayerList([])
        width_in = config.embedding_size
        for first in range(config.num_hidden_layers):
            if first and widths[first] == widths[first - 1]:
                continue
            layers = sum(w == widths[first] for w in widths[first:])
            block = RecurrentBlock(config, width_in, widths[first], layers, config.bidirectional)
            self.blocks.append(block)
            width_in = widths[first] * block.directions
        self.feature_projection = None
        if config.feature_size:
            self.feature_projection = FeatureProjection(config.feature_size, self.blocks)
        self.carried_states = CarriedStates()
        self.post_init()

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        stream_id: torch.LongTensor | None = None,
        starts_anew: torch.BoolTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        features: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Runs the network over the tokens.

        Args:
            input_ids: [batch, time], or inputs_embeds: [batch, time, embedding_size].
            attention_mask: [batch, past + time], 0 at padding, on either side or anywhere.
            past_key_values: a `RecurrentCache`, updated.
            use_cache: return a cache; by default as the config says in evaluation, and never in training.
            output_hidden_states: also return the embeddings and every layer's output.
            stream_id: [batch], the text stream each row continues: its state is carried from the last segment
                (one table for training, one for evaluation). starts_anew: [batch], True where it begins again.
            position_ids: recurrent models have no positions; accepted beside a mask or a cache (generate sends them),
                or where they count on from left to right, which says that nothing is packed.
            features: [batch, feature_size], what each text begins with, where config.feature_size is not 0. Needed with
                the first tokens; once a cache holds a state, not looked at.

        Returns:
            last_hidden_state [batch, time, output_size], zero at padding; past_key_values; hidden_states.
        """
        given = one_of(input_ids, inputs_embeds)
        refuse_packed_rows(
            "Recurrent models refuse",
            "the state would leak from one sequence into the next",
            "Use contiguous streams (hfseq.data.StreamPlan) or padded batches with an attention_mask.",
            {**kwargs, "position_ids": position_ids},
            ("position_ids", attention_mask is not None or past_key_values is not None),
        )
        if stream_id is not None and (use_cache or past_key_values is not None or attention_mask is not None):
            raise ValueError(
                "stream_id carries the state itself and streams have no padding: pass neither past_key_values, "
                "use_cache nor attention_mask with it."
            )
        batch, time = given.shape[:2]
        if time == 0:
            raise ValueError(
                "The input has no time steps: there is no empty text, and generation needs at least the bos token."
            )
        both_ways = self.config.bidirectional
        if both_ways and (use_cache or past_key_values is not None or stream_id is not None):
            raise ValueError(
                "A bidirectional model reads the whole text at once: it has no cache and no streams. Leave out "
                "past_key_values, use_cache and stream_id, or set config.bidirectional to False."
            )
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and stream_id is None and not both_ways
            use_cache = use_cache and not torch.compiler.is_exporting()  # graphs take and give tensors
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        cache = None
        if past_key_values is not None:
            cache = recurrent_cache(past_key_values, self.num_blocks)
        elif use_cache:
            cache = RecurrentCache(self.num_blocks)
        mask = bool_mask(attention_mask, batch, time)

        # Padding: every row's tokens to the front. A recording cache must know the state after each *position*.
        recording = cache is not None and cache.is_recording
        order = back = lengths = None
        if mask is not None and time > 1 and not recording:
            order, back = tokens_first(mask)
            if order is not None:
                columns = order if inputs_embeds is None else order.unsqueeze(-1).expand_as(given)
                given = given.gather(1, columns)
            if cache is not None:
                lengths = mask.sum(1).clamp(min=1).cpu()
        ends = mask.sum(1).clamp(min=1) if both_ways and mask is not None else None

        x = self._embed(given) if inputs_embeds is None else given.transpose(0, 1)  # [time, batch, width]
        x = dropout(x, self.config.input_dropout, self.training, self.config.variational_dropout)
        states = self._initial_states(x, cache, stream_id, starts_anew, features)

        show = partial(expose, order=order, back=back, mask=mask) if output_hidden_states else None
        shown, finals = [], []
        if show is not None:
            vectors, x = show(x)
            shown.append(vectors)
        for number, block in enumerate(self.blocks):
            if number:
                x = dropout(x, self.config.hidden_dropout, self.training, self.config.variational_dropout)
            x, layers, final = run_block(block, x, states[number], cache, number, mask, lengths, show, ends)
            shown.extend(layers or [])
            finals.append(final)
        if cache is not None:
            cache.seen_tokens += time
        if stream_id is not None:
            self.carried_states.write(stream_id, finals, self.training)

        return BaseModelOutputWithPast(
            last_hidden_state=shown[-1] if output_hidden_states else restore_padding(x, back, mask),
            past_key_values=cache if use_cache else None,
            hidden_states=tuple(shown) if output_hidden_states else None,
        )

    def _embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """[batch, time] -> [time, batch, embedding_size], with whole words dropped."""
        if is_plain(self.embed_tokens, nn.Embedding):
            x = self.embed_tokens(input_ids.t())
        else:  # whoever watches it or stands in for it expects [batch, time] (captum, NEFTune)
            x = self.embed_tokens(input_ids).transpose(0, 1)
        if self.training and self.config.embedding_dropout:
            words = x.new_ones(self.config.vocab_size)
            x = x * F.dropout(words, self.config.embedding_dropout)[input_ids.t()].unsqueeze(-1)
        return x

    def _initial_states(
        self,
        x: torch.Tensor,
        cache: RecurrentCache | None,
        stream_id: torch.Tensor | None,
        starts_anew: torch.Tensor | None,
        features: torch.Tensor | None,
    ) -> Sequence[State | None]:
        if cache is not None and cache.has_previous_state():
            return [layer.states for layer in cache.layers]
        if self.config.feature_size or features is not None:
            check_features(features, self.config.feature_size, x.shape[1], stream_id)
        if features is not None and self.feature_projection is not None:
            features = features.to(self.dtype)
            return [tuple(s.to(x.dtype) for s in state) for state in self.feature_projection(features)]
        if stream_id is None:
            return [None] * self.num_blocks
        shapes = [[(b.num_layers, b.hidden_size)] * b.state_tensors for b in self.blocks]
        return self.carried_states.read(stream_id, starts_anew, shapes, x, self.training)


def check_features(
    features: torch.Tensor | None, size: int, batch: int, stream_id: torch.Tensor | None
) -> None:
    """Raises unless features are [batch, size] floats and the rows are whole texts; what they hold is not looked at."""
    if size and features is None:
        raise ValueError(
            f"This model begins every text with a vector (config.feature_size {size}): pass features [{batch}, "
            f"{size}], to generate() too."
        )
    if not size:
        raise ValueError(
            "features were given, but config.feature_size is 0: this model begins without a vector. Leave them out, or "
            "train a model with that feature_size."
        )
    if not torch.is_tensor(features) or not features.is_floating_point():
        what = features.dtype if torch.is_tensor(features) else type(features).__name__
        raise TypeError(f"features must be a tensor of floats [{batch}, {size}], not {what}.")
    if tuple(features.shape) != (batch, size):
        raise ValueError(
            f"features must be [batch, feature_size] = [{batch}, {size}], not {list(features.shape)}."
        )
    if stream_id is not None:
        raise ValueError(
            "features begin a text and stream_id continues one: pass whole texts, padded, without stream_id "
            "(hfseq.data.FeaturePlan)."
        )


def recurrent_cache(past_key_values: Cache, num_blocks: int) -> RecurrentCache:
    """The given cache, if it is one for recurrent layers."""
    if not getattr(past_key_values, "is_recurrent_cache", False):
        raise TypeError(
            f"past_key_values must be a RecurrentCache, not {type(past_key_values).__name__}: "
            f"use RecurrentCache({num_blocks}), one layer for each block of the model, or leave it out."
        )
    return past_key_values


def bool_mask(attention_mask: torch.Tensor | None, batch: int, time: int) -> torch.Tensor | None:
    """The mask of the current tokens as bool [batch, time]; None where, on a CPU, nothing is masked."""
    if attention_mask is None:
        return None
    if attention_mask.ndim != 2 or attention_mask.shape[0] != batch or attention_mask.shape[1] < time:
        raise ValueError(
            f"attention_mask must be [batch, past + time] with batch {batch} and time {time}, "
            f"not {tuple(attention_mask.shape)}."
        )
    mask = attention_mask[:, -time:].bool()
    if torch.compiler.is_compiling():  # a graph does not depend on what the mask holds
        return mask
    return None if mask.device.type == "cpu" and bool(mask.all()) else mask


def tokens_first(mask: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(the columns of each row's tokens, then of its padding [batch, time]; the way back), None where they stand so."""
    if is_right_padded(mask):
        return None, None
    order = mask.logical_not().to(torch.uint8).sort(dim=1, stable=True).indices
    return order, order.argsort(dim=1)


def run_block(
    block: RecurrentBlock,
    x: torch.Tensor,
    state: State | None,
    cache: RecurrentCache | None,
    number: int,
    mask: torch.Tensor | None,
    lengths: torch.Tensor | None,
    show: Show | None,
    ends: torch.Tensor | None = None,
) -> tuple:
    """One block by the path that fits: all time steps in one call, or step by step. Updates `cache.layers[number]`.

    Args:
        x: [time, batch, width]; mask: bool [batch, time] or None; see `RecurrentBlock.forward` for the others.

    Returns:
        (output [time, batch, hidden], outputs of its layers or None, final state)
    """
    recording = cache is not None and cache.is_recording
    if recording and block.training:
        raise ValueError("A cache that records its past needs evaluation mode: call model.eval() first.")
    one_step = x.shape[0] == 1 and not (block.training or show or x.is_cuda or block.bidirectional)
    if recording or one_step:
        output, states = step_by_step(block, x, state, mask)
        final, layers = states[-1], None
        if show is not None:  # what a layer puts out is its h
            layers = [torch.stack([s[0][layer] for s in states]) for layer in range(block.num_layers - 1)]
            layers, (last, output) = [show(h)[0] for h in layers], show(output)
            layers.append(last)
    else:
        output, *more = block(x, *(state or ()), lengths=lengths, show=show, ends=ends)
        count = 0 if show is None else block.num_layers
        layers, final, states = more[:count] or None, tuple(more[count:]), None
        if mask is not None and cache is not None:
            final = keep_state(mask.any(1), final, state or block.zero_state(x))
    if cache is not None:
        cache.layers[number].update(final, states if recording else None)
    return output, layers, final


def step_by_step(
    block: RecurrentBlock, x: torch.Tensor, state: State | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, list[State]]:
    """x [time, batch, width] -> (output [time, batch, hidden], the state after each step)."""
    state = state or block.zero_state(x)
    outputs, states = [], []
    for t in range(x.shape[0]):
        output, new = block.step(x[t], state)
        state = new if mask is None else keep_state(mask[:, t], new, state)
        outputs.append(output)
        states.append(state)
    return torch.stack(outputs), states


def is_right_padded(mask: torch.Tensor) -> bool:
    """Whether a bool mask [batch, time] is known to be padded on the right; not asked of a GPU, which would
    wait, nor for a graph, which is compiled for any mask."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


def keep_state(alive: torch.Tensor, new: State, old: State) -> State:
    """The new state [layers, batch, hidden] of rows that are `alive` [batch], the old one of the others."""
    alive = alive.view(1, -1, 1)
    return tuple(torch.where(alive, n, o) for n, o in zip(new, old, strict=True))


def restore_padding(x: torch.Tensor, back: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor:
    """[time, batch, width] -> [batch, time, width], tokens where they came from, zeros at padding."""
    x = x.transpose(0, 1)
    if back is not None:
        x = x.gather(1, back.unsqueeze(-1).expand_as(x))
    return x if mask is None else x * mask.unsqueeze(-1)


def expose(
    x: torch.Tensor, order: torch.Tensor | None, back: torch.Tensor | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a caller sees of x [time, batch, width] among the hidden states, and x again, computed from it.

    So the gradient of what comes after flows through what the caller sees (captum, `retain_grad`).
    """
    seen = restore_padding(x, back, mask)  # [batch, time, width]
    again = seen if order is None else seen.gather(1, order.unsqueeze(-1).expand_as(seen))
    return seen, again.transpose(0, 1)


class RecurrentForCausalLM(RecurrentPreTrainedModel, HfseqGenerationMixin):
    """A recurrent language model: `RecurrentModel`, a projection where widths differ, and the output layer."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    base_class: type[RecurrentModel]

    def __init__(self, config: RecurrentConfig):
        if config.bidirectional:
            raise ValueError(
                "A language model cannot be bidirectional: backwards it would read what it is to predict. Set "
                "config.bidirectional to False."
            )
        super().__init__(config)
        self.model = self.base_class(config)
        width = config.output_size
        self.projection = None
        if config.tie_word_embeddings and width != config.embedding_size:
            self.projection = nn.Linear(width, config.embedding_size, bias=False)
            width = config.embedding_size
        self.lm_head = nn.Linear(width, config.vocab_size)
        self.post_init()

    @property
    def carried_states(self) -> CarriedStates:
        return self.model.carried_states

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        stream_id: torch.LongTensor | None = None,
        starts_anew: torch.BoolTensor | None = None,
        features: torch.FloatTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predicts the next token; see `RecurrentModel.forward` for the arguments not listed.

        Args:
            labels: [batch, time], scored one position later (position t predicts labels[t + 1]); -100 does not count.
            shift_labels: [batch, time], already moved: position t predicts shift_labels[t]. Wins over labels. No
                argument by name: Trainer computes an `eval_loss` only for batches with every label that it finds there.
            logits_to_keep: compute logits only for the last so many positions (0: all), or for these positions.
            num_items_in_batch: number of labels in the whole update; the summed loss is divided by it.

        Returns:
            loss; logits [batch, time, vocab_size], None in training with labels; past_key_values; hidden_states.
        """
        shift_labels = kwargs.pop("shift_labels", None)
        if shift_labels is None and labels is not None:
            shift_labels = next_token_labels(labels)
            if attention_mask is not None:  # padding on the left must not be scored on a row's first token
                padding = attention_mask[:, -labels.shape[1] :] == 0
                shift_labels = shift_labels.masked_fill(padding, IGNORE_INDEX)
        if use_cache is None and shift_labels is not None:
            use_cache = False
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            stream_id=stream_id,
            starts_anew=starts_anew,
            features=features,
            **kwargs,
        )
        raw = outputs.last_hidden_state  # [batch, time, output_size]
        dropped = dropout(
            raw.transpose(0, 1), self.config.output_dropout, self.training, self.config.variational_dropout
        ).transpose(0, 1)
        hidden = dropped if self.projection is None else linear(self.projection, dropped)

        logits = loss = None
        if shift_labels is not None and self.training:
            loss = self._training_loss(hidden, dropped, raw, shift_labels, num_items_in_batch)
        else:
            if isinstance(logits_to_keep, int):
                kept = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
            else:
                kept = hidden[:, logits_to_keep]
            logits = self.output_logits(kept)
            if shift_labels is not None:
                loss = cross_entropy(logits, shift_labels) / count_labels(shift_labels, num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )

    def _training_loss(
        self,
        hidden: torch.Tensor,
        dropped: torch.Tensor,
        raw: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
    ) -> torch.Tensor:
        # Time-major as the recurrent layers left it, so that flattening copies nothing.
        hidden = hidden.transpose(0, 1).flatten(0, 1)
        loss = output_layer_loss(self.lm_head, hidden, labels.t().flatten(), self.config.label_smoothing)
        alpha, beta = self.config.activation_regularization, self.config.temporal_activation_regularization
        if alpha or beta:
            loss = loss + activation_penalty(dropped, raw, labels, alpha, beta)
        return loss / count_labels(labels, num_items_in_batch)

    cache_in_words = "a recurrent model: its cache is one state of constant size"

    def new_cache(self) -> RecurrentCache:
        return RecurrentCache(self.model.num_blocks)


class TextPooling(nn.Module):
    """One vector for each text, from what one or several layers say of its tokens; padding never counts."""

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.way, self.bidirectional = config.classifier_pooling, config.bidirectional
        width = config.classifier_input_size
        self.width = 3 * width if self.way == "concat" else width
        self.attention = nn.Linear(width, 1, bias=False) if self.way == "attention" else None

    def forward(self, layers: tuple[torch.Tensor, ...], mask: torch.Tensor | None) -> torch.Tensor:
        """Pools.

        Args:
            layers: the last layer's output, or the embedding and every layer's: [batch, time, their width] each, zero
                at padding.
            mask: bool [batch, time], or None where all are tokens.

        Returns:
            [batch, width]; zeros for a row that is all padding.
        """
        if self.way == "last":
            return self._last(layers, mask)
        hidden = layers[0] if len(layers) == 1 else torch.cat(layers, dim=-1)  # [batch, time, width]
        if self.way == "mean":
            return self._mean(hidden, mask)
        if self.way == "max":
            return self._max(hidden, mask)
        if self.attention is not None:
            scores = self.attention(hidden)  # [batch, time, 1]
            if mask is not None:
                scores = scores.masked_fill(~mask.unsqueeze(-1), torch.finfo(scores.dtype).min)
            return (scores.softmax(dim=1) * hidden).sum(1)
        pooled = [self._last(layers, mask), self._max(hidden, mask), self._mean(hidden, mask)]  # concat
        return torch.cat(pooled, dim=-1)

    def _last(self, layers: tuple[torch.Tensor, ...], mask: torch.Tensor | None) -> torch.Tensor:
        batch, time = layers[0].shape[:2]
        first: int | torch.Tensor = 0
        last: int | torch.Tensor = time - 1
        if mask is not None:
            columns = torch.arange(time, device=mask.device)
            first = torch.where(mask, columns, time - 1).amin(1)  # [batch]
            last = torch.where(mask, columns, 0).amax(1)
        rows = torch.arange(batch, device=layers[0].device)
        pooled = []
        for number, hidden in enumerate(layers):
            is_embedding = len(layers) > 1 and number == 0
            if self.bidirectional and not is_embedding:
                forwards, backwards = hidden.chunk(2, dim=-1)
                pooled += [forwards[rows, last], backwards[rows, first]]
            else:
                pooled.append(hidden[rows, last])
        return torch.cat(pooled, dim=-1)

    @staticmethod
    def _mean(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if mask is None:
            return hidden.mean(1)
        return hidden.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)

    @staticmethod
    def _max(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if mask is None:
            return hidden.amax(1)
        highest = hidden.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)
        return highest.masked_fill(~mask.any(1, keepdim=True), 0.0)


class ClassifierHead(nn.Module):
    """One linear layer, or two with ReLU between them; dropout before each."""

    def __init__(self, config: RecurrentConfig, width: int):
        super().__init__()
        self.dense = None
        if config.classifier_hidden_size is not None:
            self.dense = nn.Linear(width, config.classifier_hidden_size)
            width = config.classifier_hidden_size
        self.out_proj = nn.Linear(width, config.num_labels)
        p = config.output_dropout if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] -> [..., num_labels]."""
        x = self.dropout(x)
        if self.dense is not None:
            x = self.dropout(torch.relu(self.dense(x)))
        return self.out_proj(x)


class RecurrentClassifier(RecurrentPreTrainedModel):
    """`RecurrentModel` under a head that reads its layers. Weights of a language model fit: its body is `model` too."""

    base_class: type[RecurrentModel]

    def _layers(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        output_hidden_states: bool | None,
        kwargs: dict[str, Any],
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...] | None]:
        """(what the head reads: the last layer's output or those of all, what the caller asked for or None)."""
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        every = self.config.classifier_layers == "all"
        kwargs.pop("use_cache", None)  # one answer for a whole text: there is nothing to go on with
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            output_hidden_states=asked or every,
            **kwargs,
        )
        layers = outputs.hidden_states if every else (outputs.last_hidden_state,)
        return layers, outputs.hidden_states if asked else None


class RecurrentForSequenceClassification(RecurrentClassifier):
    """Classification (of one label or of several) or regression of a text: pooling, then one or two linear layers."""

    def __init__(self, config: RecurrentConfig):
        super().__init__(config)
        self.model = self.base_class(config)
        self.pooling = TextPooling(config)
        self.classifier = ClassifierHead(config, self.pooling.width)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """See `RecurrentModel.forward` for the arguments not listed.

        Args:
            labels: class numbers [batch] (-100 does not count); for several labels 0/1 [batch, num_labels]; for
                regression numbers [batch] or [batch, num_labels]. `config.problem_type` says which.
            num_items_in_batch: number of labels in the whole update; the summed loss is divided by it.

        Returns:
            loss; logits [batch, num_labels]; hidden_states.
        """
        layers, states = self._layers(input_ids, attention_mask, inputs_embeds, output_hidden_states, kwargs)
        mask = None if attention_mask is None else attention_mask.bool()
        logits = self.classifier(self.pooling(layers, mask))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config, num_items_in_batch, self.training)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=states)


class RecurrentForTokenClassification(RecurrentClassifier):
    """A label for every token."""

    def __init__(self, config: RecurrentConfig):
        super().__init__(config)
        self.model = self.base_class(config)
        self.classifier = ClassifierHead(config, config.classifier_input_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """See `RecurrentModel.forward` for the arguments not listed.

        Args:
            labels: [batch, time], -100 where a token (the second piece of a word, say) does not count.
            num_items_in_batch: number of labels in the whole update; the summed loss is divided by it.

        Returns:
            loss; logits [batch, time, num_labels]; hidden_states.
        """
        layers, states = self._layers(input_ids, attention_mask, inputs_embeds, output_hidden_states, kwargs)
        logits = self.classifier(layers[0] if len(layers) == 1 else torch.cat(layers, dim=-1))
        loss = None
        if labels is not None:
            check_labels("labels", labels, logits.shape[:2])
            smoothing = self.config.label_smoothing if self.training else 0.0
            loss = cross_entropy(logits, labels, smoothing) / count_labels(labels, num_items_in_batch)
        return TokenClassifierOutput(loss=loss, logits=logits, hidden_states=states)


class RNNModel(RecurrentModel):
    """Plain recurrent layers (Elman 1990)."""

    config_class = RNNConfig
    config: RNNConfig


class GRUModel(RecurrentModel):
    """Gated recurrent units (Cho et al. 2014)."""

    config_class = GRUConfig
    config: GRUConfig


class LSTMModel(RecurrentModel):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    config_class = LSTMConfig
    config: LSTMConfig


class RNNForCausalLM(RecurrentForCausalLM, HfseqGenerationMixin):
    """Language model over `RNNModel`."""

    config_class, base_class = RNNConfig, RNNModel
    config: RNNConfig


class GRUForCausalLM(RecurrentForCausalLM, HfseqGenerationMixin):
    """Language model over `GRUModel`."""

    config_class, base_class = GRUConfig, GRUModel
    config: GRUConfig


class LSTMForCausalLM(RecurrentForCausalLM, HfseqGenerationMixin):
    """Language model over `LSTMModel`."""

    config_class, base_class = LSTMConfig, LSTMModel
    config: LSTMConfig


class RNNForSequenceClassification(RecurrentForSequenceClassification):
    """Classifier of texts over `RNNModel`."""

    config_class, base_class = RNNConfig, RNNModel
    config: RNNConfig


class RNNForTokenClassification(RecurrentForTokenClassification):
    """Tagger over `RNNModel`."""

    config_class, base_class = RNNConfig, RNNModel
    config: RNNConfig


class GRUForSequenceClassification(RecurrentForSequenceClassification):
    """Classifier of texts over `GRUModel`."""

    config_class, base_class = GRUConfig, GRUModel
    config: GRUConfig


class GRUForTokenClassification(RecurrentForTokenClassification):
    """Tagger over `GRUModel`."""

    config_class, base_class = GRUConfig, GRUModel
    config: GRUConfig


class LSTMForSequenceClassification(RecurrentForSequenceClassification):
    """Classifier of texts over `LSTMModel`."""

    config_class, base_class = LSTMConfig, LSTMModel
    config: LSTMConfig


class LSTMForTokenClassification(RecurrentForTokenClassification):
    """Tagger over `LSTMModel`."""

    config_class, base_class = LSTMConfig, LSTMModel
    config: LSTMConfig


# What each class is registered and exported as: {config: {Auto class: class}}.
AUTO_CLASSES = {
    RNNConfig: {
        "AutoModel": RNNModel,
        "AutoModelForCausalLM": RNNForCausalLM,
        "AutoModelForSequenceClassification": RNNForSequenceClassification,
        "AutoModelForTokenClassification": RNNForTokenClassification,
    },
    GRUConfig: {
        "AutoModel": GRUModel,
        "AutoModelForCausalLM": GRUForCausalLM,
        "AutoModelForSequenceClassification": GRUForSequenceClassification,
        "AutoModelForTokenClassification": GRUForTokenClassification,
    },
    LSTMConfig: {
        "AutoModel": LSTMModel,
        "AutoModelForCausalLM": LSTMForCausalLM,
        "AutoModelForSequenceClassification": LSTMForSequenceClassification,
        "AutoModelForTokenClassification": LSTMForTokenClassification,
    },
}

# Trainer shifts labels for its own label smoothing only where it finds the class name in this table; registering
# with the Auto classes does not enter it there. Here, so that it travels with exported code.
for _config, _classes in AUTO_CLASSES.items():
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[_config.model_type] = _classes["AutoModelForCausalLM"].__name__

__all__ = [
    "RecurrentPreTrainedModel",
    "RNNModel",
    "GRUModel",
    "LSTMModel",
    "RNNForCausalLM",
    "GRUForCausalLM",
    "LSTMForCausalLM",
    "RNNForSequenceClassification",
    "GRUForSequenceClassification",
    "LSTMForSequenceClassification",
    "RNNForTokenClassification",
    "GRUForTokenClassification",
    "LSTMForTokenClassification",
]
