"""RNN, GRU and LSTM encoder-decoders, without and with attention.

The decoder's layers run over the whole target in one fused call, and then all its positions attend at once: with
attention after the last layer (Luong et al. 2015, without input feeding) or after the first (Wu et al. 2016) no step
waits for what attention found in the step before. `input_feeding` gives the original recurrences, in which it does:
one step at a time, several times slower to train, and the oracle of the tests.

Blocks, caches, padding and the loss are those of `modeling_recurrent.py`. What travels from encoder to decoder is the
memory, [batch, source time, memory_size], and the decoder's first state, which is part of the encoder's output: so
beam search repeats it as it repeats the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.utils import can_return_tuple

from .caches import RecurrentCache, State
from .configuration_recurrent_seq2seq import (
    GRUSeq2SeqConfig,
    LSTMSeq2SeqConfig,
    RecurrentSeq2SeqConfig,
    RNNSeq2SeqConfig,
)
from .layer_list import LayerList
from .layouts import linear
from .modeling_recurrent import (
    RecurrentBlock,
    RecurrentPreTrainedModel,
    Show,
    bool_mask,
    dropout,
    expose,
    keep_state,
    recurrent_cache,
    restore_padding,
    run_block,
    tokens_first,
)
from .seq2seq import (
    Seq2SeqGenerationMixin,
    TwoSidedEmbeddings,
    check_as_many,
    check_one_source,
    check_source_mask,
    refuse_packed_pairs,
    source_vectors,
    target_vectors,
)

Attend = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
"""`SourceAttention` over the source at hand: states [time, batch, hidden] -> (context, weights)."""

REFUSES_PACKING = ("Recurrent", "the state would leak from one pair into the next")


@dataclass
class RecurrentEncoderOutput(BaseModelOutput):
    """A `BaseModelOutput` with the state that the decoder begins with.

    Args:
        initial_state: [batch, layers, hidden] of h, then of an LSTM's c: [batch, state tensors * layers, hidden].
    """

    initial_state: torch.Tensor | None = None


class RecurrentSeq2SeqCache(RecurrentCache):
    """Decoder states between two calls of `forward`, and what additive attention has computed of the source.

    Args:
        num_blocks: states of how many blocks (`model.model.decoder.num_states`).
        fixed_source: beams never leave their source (generate()), so that reordering need not move what is its own.
    """

    def __init__(self, num_blocks: int, fixed_source: bool = False) -> None:
        super().__init__(num_blocks)
        self.fixed_source = fixed_source
        self.keys: torch.Tensor | None = None  # [batch, source time, attention size]

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        super().reorder_cache(beam_idx)
        if self.keys is not None and not self.fixed_source:
            self.keys = self.keys.index_select(0, beam_idx.to(self.keys.device))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self.keys = None if self.keys is None else self.keys[indices.to(self.keys.device)]

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.keys = None if self.keys is None else self.keys.repeat_interleave(repeats, dim=0)

    def reset(self) -> None:
        super().reset()
        self.keys = None


class SourceAttention(nn.Module):
    """What the target reads of the source: a mean of the encoder's outputs, weighted by scores.

    Multiplicative scores are query W memory (Luong et al. 2015, "general"); additive ones v tanh(W query + U memory
    + b) (Bahdanau et al. 2015).
    """

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__()
        self.additive = config.attention == "additive"
        width = (config.attention_size or config.hidden_size) if self.additive else config.memory_size
        self.query = nn.Linear(config.hidden_size, width, bias=self.additive)
        self.key = nn.Linear(config.memory_size, width, bias=False) if self.additive else None
        self.score = nn.Linear(width, 1, bias=False) if self.additive else None

    def keys(self, memory: torch.Tensor, cache: RecurrentSeq2SeqCache | None) -> torch.Tensor:
        """What the queries are held against [batch, source time, width], computed once where there is a cache."""
        if self.key is None:
            return memory
        if cache is None:
            return self.key(memory)
        if cache.keys is None:
            cache.keys = self.key(memory)
        return cache.keys

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        keys: torch.Tensor,
        mask: torch.Tensor | None,
        wants_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends.

        Args:
            x: states of the target [time, batch, hidden]; memory: [batch, source time, memory_size].
            mask: bool [batch, source time], or None.

        Returns:
            (context [time, batch, memory_size], weights [batch, 1, time, source time] or None)
        """
        queries = linear(self.query, x).transpose(0, 1)  # [batch, time, width]
        mask = None if mask is None else mask.unsqueeze(1)  # [batch, 1, source time]
        if not (self.additive or wants_weights):
            context = F.scaled_dot_product_attention(queries, keys, memory, mask, scale=1.0)
            return context.transpose(0, 1), None
        if self.score is not None:
            # [batch, time, source time, width]
            scores = self.score(torch.tanh(queries.unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)
        else:
            scores = queries @ keys.transpose(1, 2)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).unsqueeze(1)  # as of one head
        return (weights.squeeze(1) @ memory).transpose(0, 1), weights if wants_weights else None


class Bridge(nn.Module):
    """From what the encoder ends with to what the decoder begins with."""

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__()
        self.config = config
        states = config.decoder_layers * config.hidden_size
        everything = config.encoder_layers * config.memory_size
        self.projection = self.cell_projection = None
        if config.hands_over:
            return
        if config.bridge == "mean":
            self.projection = nn.Linear(config.memory_size, config.hidden_size)
        elif config.attention is not None:
            self.projection = nn.Linear(config.memory_size, states)
        else:
            self.projection = nn.Linear(everything, states)
            if config.state_tensors == 2:
                self.cell_projection = nn.Linear(everything, states)

    @property
    def wants_all_states(self) -> bool:
        """Whether the first state is made of all layers' final states, c included."""
        return self.config.attention is None and self.config.bridge == "last"

    def forward(
        self,
        memory: torch.Tensor,
        mask: torch.Tensor | None,
        output: torch.Tensor,
        final: list[torch.Tensor],
        ends: torch.Tensor | None,
    ) -> torch.Tensor:
        """The decoder's first state.

        Args:
            memory: [batch, source time, memory_size], zero at padding; mask: bool [batch, source time] or None.
            output: the last layer's, tokens first [source time, batch, memory_size]; ends: lengths [batch] or None.
            final: the encoder's states [layers * directions, batch, width] each, right where `wants_all_states`.

        Returns:
            [batch, state tensors * decoder layers, hidden]
        """
        config, batch = self.config, memory.shape[0]
        if self.projection is None:  # the states are handed over
            return torch.cat(final).transpose(0, 1)
        if config.bridge == "mean":
            total = memory.sum(1)
            mean = total / (memory.shape[1] if mask is None else mask.sum(1, keepdim=True).clamp(min=1))
            h = torch.tanh(self.projection(mean)).unsqueeze(1).expand(-1, config.decoder_layers, -1)
        elif config.attention is not None:
            last = output.shape[0] - 1 if ends is None else ends - 1
            rows = torch.arange(batch, device=output.device)
            width = config.encoder_width
            read = [output[last, rows, :width]]
            if config.bidirectional:
                read.append(output[0, :, width:])
            h = torch.tanh(self.projection(torch.cat(read, dim=-1)))
        else:
            flat = [state.transpose(0, 1).flatten(1) for state in final]  # [batch, layers * memory_size]
            h = torch.tanh(self.projection(flat[0]))
            if self.cell_projection is not None:
                c = self.cell_projection(flat[1])
                return torch.cat([h, c], dim=1).view(batch, -1, config.hidden_size)
        h = h.reshape(batch, -1, config.hidden_size)
        return torch.cat([h, torch.zeros_like(h)], dim=1) if config.state_tensors == 2 else h


class RecurrentSeq2SeqPreTrainedModel(TwoSidedEmbeddings, RecurrentPreTrainedModel):
    """Initialisation shared by all classes."""

    config: RecurrentSeq2SeqConfig


class RecurrentEncoder(RecurrentSeq2SeqPreTrainedModel):
    """Embeds and reads the source, and makes the decoder's first state."""

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        sizes = config.embedding_size, config.encoder_width, config.encoder_layers
        self.block = RecurrentBlock(config, *sizes, bidirectional=config.bidirectional)
        self.bridge = Bridge(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> RecurrentEncoderOutput:
        """Reads the source; see `RecurrentSeq2SeqModel.forward` for the arguments."""
        refuse_packed_pairs(kwargs, *REFUSES_PACKING, masked=(attention_mask is not None, False))
        x = source_vectors(self.embed_tokens, input_ids, inputs_embeds, attention_mask)
        batch, time = x.shape[:2]
        config = self.config
        mask = bool_mask(attention_mask, batch, time)
        order = back = ends = lengths = None
        if mask is not None:
            order, back = tokens_first(mask)
            x = x if order is None else x.gather(1, order.unsqueeze(-1).expand_as(x))
            ends = mask.sum(1).clamp(min=1)
            lengths = ends.cpu() if self.bridge.wants_all_states else None
        x = x.transpose(0, 1)  # [time, batch, width]
        x = dropout(x, config.input_dropout, self.training, config.variational_dropout)
        wanted = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        show = vectors = None
        if wanted:
            show = partial(expose, order=order, back=back, mask=mask)
            vectors, x = show(x)
        output, *more = self.block(x, lengths=lengths, show=show, ends=ends if config.bidirectional else None)
        count = self.block.num_layers if wanted else 0
        layers, final = more[:count], more[count:]
        memory = layers[-1] if wanted else restore_padding(output, back, mask)
        return RecurrentEncoderOutput(
            last_hidden_state=memory,
            hidden_states=(vectors, *layers) if wanted else None,
            initial_state=self.bridge(memory, mask, output, final, ends),
        )


class RecurrentDecoder(RecurrentSeq2SeqPreTrainedModel):
    """Writes the target; reads the source through its first state and, if the config says so, through attention."""

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__(config)
        own = not config.share_encoder_decoder_embeddings
        embeddings = (config.target_vocab_size, config.embedding_size)
        self.embed_tokens = nn.Embedding(*embeddings) if own else None
        width, memory, layers = config.hidden_size, config.memory_size, config.decoder_layers
        self.readout_size = config.embedding_size if config.tie_word_embeddings else width
        first = config.attention is not None and config.attention_position == "first"
        self.attends_between = first and not config.input_feeding
        fed = 0
        if config.input_feeding:
            fed = memory if first else self.readout_size
        blocks = [(config.embedding_size + fed, layers)]
        if self.attends_between:
            blocks = [(config.embedding_size, 1), (width + memory, layers - 1)]
        self.blocks = LayerList(RecurrentBlock(config, size, width, count) for size, count in blocks)
        self.attention = SourceAttention(config) if config.attention is not None else None
        combines = config.attention is not None and not self.attends_between
        self.combine = nn.Linear(width + memory, self.readout_size) if combines else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding | None:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value

    @property
    def num_states(self) -> int:
        """Layers of its cache: one per block, and one for the vector that Luong's recurrence feeds back."""
        return len(self.blocks) + self._feeds_back

    @property
    def output_size(self) -> int:
        """Width of what `forward` returns."""
        return self.config.hidden_size if self.combine is None else self.readout_size

    @property
    def _feeds_back(self) -> bool:
        return self.config.input_feeding and self.config.attention_position == "last"

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        first_state: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        cache: RecurrentSeq2SeqCache | None = None,
        wants_states: bool = False,
        wants_weights: bool = False,
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None, torch.Tensor | None]:
        """x: target word vectors [batch, time, embedding_size]; memory, first_state: the source, its
        `last_hidden_state` and `initial_state`; the rest as in `RecurrentSeq2SeqModel.forward`.

        Returns:
            last hidden state [batch, time, output_size], hidden states,
            attention weights [batch, 1, time, source time].
        """
        batch, time = x.shape[:2]
        source_mask = bool_mask(attention_mask, batch, memory.shape[1])
        mask = bool_mask(decoder_attention_mask, batch, time)
        recording = cache is not None and cache.is_recording
        loop = self.config.input_feeding
        order = back = lengths = None
        if mask is not None and time > 1 and not (recording or loop):
            order, back = tokens_first(mask)
            x = x if order is None else x.gather(1, order.unsqueeze(-1).expand_as(x))
            lengths = mask.sum(1).clamp(min=1).cpu() if cache is not None else None
        config = self.config
        x = x.transpose(0, 1)  # [time, batch, width]
        x = dropout(x, config.input_dropout, self.training, config.variational_dropout)
        states = self._states(first_state, cache)
        show, hidden = None, []
        if wants_states:
            show = partial(expose, order=order, back=back, mask=mask)
            vectors, x = show(x)
            hidden.append(vectors)
        attend: Attend | None = None
        if (attention := self.attention) is not None:
            keys = attention.keys(memory, cache)

            def attend(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
                return attention(x, memory, keys, source_mask, wants_weights)

        layers: Sequence[torch.Tensor]
        if loop and attend is not None and self.combine is not None:  # input feeding has both
            x, layers, weights = self._step_by_step(x, states, attend, self.combine, mask, cache)
            hidden += [restore_padding(h, back, mask) for h in layers]
        else:
            x, layers, weights = self._all_at_once(x, states, attend, mask, lengths, cache, show)
            hidden += layers
        if cache is not None:
            cache.seen_tokens += time
        if back is not None and weights is not None:
            weights = weights.gather(2, back[:, None, :, None].expand_as(weights))
        return restore_padding(x, back, mask), hidden if wants_states else None, weights

    def _states(self, first_state: torch.Tensor, cache: RecurrentSeq2SeqCache | None) -> list[State]:
        """What each layer of the cache holds, at the beginning what the encoder hands over."""
        if cache is not None and cache.has_previous_state():
            return [layer.states for layer in cache.layers]
        config = self.config
        first = first_state.transpose(0, 1)  # [state tensors * layers, batch, hidden]
        tensors = first.chunk(config.state_tensors)
        states, begin = [], 0
        for block in self.blocks:
            part = slice(begin, begin + block.num_layers)
            states.append(tuple(t[part].contiguous() for t in tensors))
            begin += block.num_layers
        if self._feeds_back:
            states.append((first.new_zeros(1, first.shape[1], self.readout_size),))
        return states

    def _all_at_once(
        self,
        x: torch.Tensor,
        states: list[State],
        attend: Attend | None,
        mask: torch.Tensor | None,
        lengths: torch.Tensor | None,
        cache: RecurrentSeq2SeqCache | None,
        show: Show | None,
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor | None]:
        config, weights = self.config, None
        hidden: list[torch.Tensor] = []
        for number, block in enumerate(self.blocks):
            x, layers, _ = run_block(block, x, states[number], cache, number, mask, lengths, show)
            hidden += layers or []
            if number == 0 and self.attends_between and attend is not None:
                context, weights = attend(x)
                x = dropout(x, config.hidden_dropout, self.training, config.variational_dropout)
                x = torch.cat([x, context], dim=-1)
        if self.combine is not None and attend is not None:
            context, weights = attend(x)
            x = readout(self.combine, x, context)
        return x, hidden, weights

    def _step_by_step(
        self,
        x: torch.Tensor,
        states: list[State],
        attend: Attend,
        combine: nn.Linear,
        mask: torch.Tensor | None,
        cache: RecurrentSeq2SeqCache | None,
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor], torch.Tensor | None]:
        """The recurrences with input feeding, x [time, batch, width]."""
        block, late = self.blocks[0], self._feeds_back
        outputs, layers, weights, history = [], [], [], []
        for t in range(x.shape[0]):
            if late:
                inputs = torch.cat([x[t], states[1][0][0]], dim=-1)
            else:
                # The first layer's state before this step attends (Bahdanau et al. 2015).
                context, seen = attend(states[0][0][:1])
                inputs = torch.cat([x[t], context[0]], dim=-1)
            top, new = self._one_step(block, inputs, states[0])
            if late:
                context, seen = attend(top.unsqueeze(0))
            output = readout(combine, top, context[0])
            layers.append(new[0])  # h of every layer is what the layer put out
            after: list[State] = [new, (output.unsqueeze(0),)] if late else [new]
            if mask is not None:
                after = [keep_state(mask[:, t], n, old) for n, old in zip(after, states, strict=True)]
            states = after
            outputs.append(output)
            if seen is not None:
                weights.append(seen)
            history.append(states)
        if cache is not None:
            for number, layer in enumerate(cache.layers):
                layer.update(states[number], [s[number] for s in history] if cache.is_recording else None)
        seen = torch.cat(weights, dim=2) if weights else None
        return torch.stack(outputs), torch.stack(layers, dim=1).unbind(), seen

    def _one_step(self, block: RecurrentBlock, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        if not (self.training or x.is_cuda or torch.is_grad_enabled()):
            return block.step(x, state)
        output, *final = block(x.unsqueeze(0), *state)
        return output[0], tuple(final)


def readout(combine: nn.Linear, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """What predicts, made of a state and of what it found [..., width] each (Luong et al. 2015)."""
    return torch.tanh(linear(combine, torch.cat([x, context], dim=-1)))


class RecurrentSeq2SeqModel(RecurrentSeq2SeqPreTrainedModel):
    """Encoder and decoder without an output layer."""

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__(config)
        self.encoder = RecurrentEncoder(config)
        self.decoder = RecurrentDecoder(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: RecurrentEncoderOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: object,
    ) -> Seq2SeqModelOutput:
        """Reads the source and writes the target.

        Args:
            input_ids: [batch, source time], or inputs_embeds [batch, source time, embedding_size].
            attention_mask: [batch, source time], 0 at padding, on whichever side.
            decoder_input_ids: [batch, time], beginning with decoder_start_token_id, or decoder_inputs_embeds.
            decoder_attention_mask: [batch, tokens in the cache + time], 0 at padding. Not needed for padding on the
                right, whose outputs nobody reads.
            encoder_outputs: what the encoder returned for this source, in place of input_ids.
            past_key_values: a `RecurrentSeq2SeqCache` of earlier steps.
            use_cache: return a cache; by default where the model is not in training.
            output_hidden_states, output_attentions: also return them (weights of the source, as of one head).

        Returns:
            last_hidden_state [batch, time, decoder.output_size]; past_key_values; encoder_last_hidden_state; where
            asked hidden states of both sides and cross_attentions, one [batch, 1, time, source time].
        """
        target_masked = decoder_attention_mask is not None or past_key_values is not None
        refuse_packed_pairs(kwargs, *REFUSES_PACKING, masked=(attention_mask is not None, target_masked))
        check_one_source(input_ids, inputs_embeds, encoder_outputs)
        config = self.config
        wants_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        wants_weights = config.output_attentions if output_attentions is None else output_attentions
        if wants_weights and config.attention is None:
            raise ValueError(
                "There are no attention weights: config.attention is None. Leave output_attentions out."
            )
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                output_hidden_states=wants_states,
                return_dict=True,
            )
        embedding = self.decoder.embed_tokens or self.encoder.embed_tokens
        target = target_vectors(embedding, decoder_input_ids, decoder_inputs_embeds)
        if use_cache is None:
            use_cache = config.use_cache and not self.training
        first_state = getattr(encoder_outputs, "initial_state", None)
        if first_state is None:
            raise ValueError(
                "encoder_outputs lack initial_state, the decoder's first state: pass all that get_encoder() returned."
            )
        memory = encoder_outputs.last_hidden_state
        check_as_many(memory, target)
        check_source_mask(attention_mask, memory)
        if past_key_values is not None:
            past_key_values = recurrent_cache(past_key_values, self.decoder.num_states)
        elif use_cache:
            past_key_values = RecurrentSeq2SeqCache(self.decoder.num_states)
        x, states, weights = self.decoder(
            target,
            memory,
            first_state,
            attention_mask,
            decoder_attention_mask,
            past_key_values,
            wants_states,
            wants_weights,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=x,
            past_key_values=past_key_values if use_cache else None,
            decoder_hidden_states=tuple(states) if wants_states else None,
            cross_attentions=(weights,) if wants_weights else None,
            encoder_last_hidden_state=memory,
            encoder_hidden_states=encoder_outputs.hidden_states,
        )


class RecurrentForSeq2SeqLM(RecurrentSeq2SeqPreTrainedModel, Seq2SeqGenerationMixin):
    """A recurrent encoder-decoder with its output layer."""

    base_class: type[RecurrentSeq2SeqModel]
    cache_in_words = "a recurrent model: its cache is one state of constant size"

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__(config)
        side = "encoder" if config.share_encoder_decoder_embeddings else "decoder"
        self._tied_weights_keys = {"lm_head.weight": f"model.{side}.embed_tokens.weight"}
        self.model = self.base_class(config)
        width, readout = self.model.decoder.output_size, self.model.decoder.readout_size
        self.projection = nn.Linear(width, readout, bias=False) if width != readout else None
        self.lm_head = nn.Linear(readout, config.target_vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: RecurrentEncoderOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        logits_to_keep: int = 0,
        **kwargs: object,
    ) -> Seq2SeqLMOutput:
        """See `RecurrentSeq2SeqModel.forward` for the arguments not listed.

        Args:
            labels: [batch, time], the target and its end token, -100 where it does not count. Without decoder_input_ids
                these are made of them.
            num_items_in_batch: what the summed loss is divided by; by default this batch's labels.
            logits_to_keep: compute logits only for the last positions; 0 for all.

        Returns:
            loss; logits [batch, time, vocabulary] (None in training with labels); and what the base model returns.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            masked = attention_mask is not None, decoder_attention_mask is not None
            refuse_packed_pairs(kwargs, *REFUSES_PACKING, masked=masked)
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if labels is not None and use_cache is None:
            use_cache = False
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        hidden = outputs.last_hidden_state  # [batch, time, output_size]
        config = self.config
        hidden = dropout(
            hidden.transpose(0, 1), config.output_dropout, self.training, config.variational_dropout
        ).transpose(0, 1)
        hidden = hidden if self.projection is None else self.projection(hidden)
        return self.language_model_output(outputs, hidden, labels, num_items_in_batch, logits_to_keep)

    def summed_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # Time-major as the recurrent layers left it, so that flattening copies nothing.
        return super().summed_loss(hidden.transpose(0, 1), labels.t())

    def new_cache(self) -> RecurrentSeq2SeqCache:
        return RecurrentSeq2SeqCache(self.model.decoder.num_states, fixed_source=True)


class RNNSeq2SeqModel(RecurrentSeq2SeqModel):
    """Plain recurrent layers (Elman 1990) on both sides."""

    config_class = RNNSeq2SeqConfig
    config: RNNSeq2SeqConfig


class GRUSeq2SeqModel(RecurrentSeq2SeqModel):
    """Gated recurrent units (Cho et al. 2014) on both sides."""

    config_class = GRUSeq2SeqConfig
    config: GRUSeq2SeqConfig


class LSTMSeq2SeqModel(RecurrentSeq2SeqModel):
    """Long short-term memory (Hochreiter and Schmidhuber 1997) on both sides."""

    config_class = LSTMSeq2SeqConfig
    config: LSTMSeq2SeqConfig


class RNNForSeq2SeqLM(RecurrentForSeq2SeqLM, Seq2SeqGenerationMixin):
    """`RNNSeq2SeqModel` with its output layer."""

    config_class, base_class = RNNSeq2SeqConfig, RNNSeq2SeqModel
    config: RNNSeq2SeqConfig


class GRUForSeq2SeqLM(RecurrentForSeq2SeqLM, Seq2SeqGenerationMixin):
    """`GRUSeq2SeqModel` with its output layer."""

    config_class, base_class = GRUSeq2SeqConfig, GRUSeq2SeqModel
    config: GRUSeq2SeqConfig


class LSTMForSeq2SeqLM(RecurrentForSeq2SeqLM, Seq2SeqGenerationMixin):
    """`LSTMSeq2SeqModel` with its output layer."""

    config_class, base_class = LSTMSeq2SeqConfig, LSTMSeq2SeqModel
    config: LSTMSeq2SeqConfig


# What each class is registered and exported as: {config: {Auto class: class}}.
AUTO_CLASSES = {
    RNNSeq2SeqConfig: {"AutoModel": RNNSeq2SeqModel, "AutoModelForSeq2SeqLM": RNNForSeq2SeqLM},
    GRUSeq2SeqConfig: {"AutoModel": GRUSeq2SeqModel, "AutoModelForSeq2SeqLM": GRUForSeq2SeqLM},
    LSTMSeq2SeqConfig: {"AutoModel": LSTMSeq2SeqModel, "AutoModelForSeq2SeqLM": LSTMForSeq2SeqLM},
}

__all__ = [
    "RecurrentSeq2SeqPreTrainedModel",
    "RNNSeq2SeqModel",
    "GRUSeq2SeqModel",
    "LSTMSeq2SeqModel",
    "RNNForSeq2SeqLM",
    "GRUForSeq2SeqLM",
    "LSTMForSeq2SeqLM",
]
