"""`generate()` as transformers has it, without what it wastes at every step.

- Every generation config of hfseq bans tokens (`suppress_tokens`: padding, and the ids beyond the tokenizer's).
  transformers' processor for that builds the set anew and writes all scores again, batch x beams x vocabulary of
  them: a quarter of a step with five beams of 32 sentences and 10k words. Here only the banned columns are written.
- On a CPU the output layer's matrix is most of what a step of a small model reads: `layouts.py`.
"""

from __future__ import annotations

import functools

import torch
from transformers.cache_utils import Cache
from transformers.generation import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
)

from .layouts import decoding, linear


class SuppressTokensInPlace(SuppressTokensLogitsProcessor):
    """Sets the scores [rows, vocabulary] of tokens to minus infinity, in the scores that it is given."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        tokens = self.suppress_tokens.to(scores.device)
        known = (tokens >= 0) & (tokens < scores.shape[1])  # as in transformers, others mean nothing
        return scores.index_fill_(1, tokens[known], -float("inf"))


class HfseqGenerationMixin(GenerationMixin):
    """The base of every hfseq model that generates."""

    cache_in_words = ""  # of a model that overrides `new_cache`

    def new_cache(self) -> Cache | None:
        """An empty cache of the model's own kind; None: transformers makes one."""
        return None

    @functools.wraps(GenerationMixin.generate)
    @torch.no_grad()
    def generate(self, *args, **kwargs):
        with decoding():
            return super().generate(*args, **kwargs)

    def output_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The output layer: hidden [..., width] -> logits [..., vocabulary]."""
        return linear(self.get_output_embeddings(), hidden)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        if generation_config.prefill_chunk_size is not None and self.config.is_encoder_decoder:
            # transformers would cut the source's mask to the length of the target read so far.
            raise ValueError(
                f"prefill_chunk_size={generation_config.prefill_chunk_size} cuts a prompt into pieces, and a model of "
                "source and target has none: the source is read at once. Leave the option out."
            )
        cache = self.new_cache()
        if cache is None:
            return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        if model_kwargs.get("past_key_values") is not None or generation_config.use_cache is False:
            return
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation!r} does not apply to "
                f"{self.cache_in_words}. Leave the option out."
            )
        if generation_config.is_assistant:
            cache.activate_past_recording()
        model_kwargs["past_key_values"] = cache

    def _get_logits_processor(
        self, generation_config: GenerationConfig, *args: object, **kwargs: object
    ) -> LogitsProcessorList:
        processors = super()._get_logits_processor(generation_config, *args, **kwargs)
        if generation_config.output_logits:  # transformers keeps the raw scores without copying them
            return processors
        for i, processor in enumerate(processors):
            if type(processor) is SuppressTokensLogitsProcessor:
                processors[i] = SuppressTokensInPlace(processor.suppress_tokens.tolist())
        return processors
