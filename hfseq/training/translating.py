"""Translating with a trained model, and scoring it: while it trains, and at the end.

Sentences are translated in batches of similar length, as many as a budget of tokens allows: 1,000 captions in random
batches of 32 spend much of their time on rows that have ended. BLEU comes from `hfseq.metrics.bleu`, with
its signature beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..data.plans.base import BatchPlan
from ..metrics.bleu import all_translation_scores, translation_scores
from ..metrics.language_model import perplexity_per_token
from .evaluation import score_rows
from .processes import collect, share
from .random_state import forked_random_state
from .sharded_weights import whole_model

# A translation longer than this times its source, and this many tokens, has run away: it is ended there.
LONGEST_FACTOR, LONGEST_EXTRA = 2, 10


@torch.inference_mode()
def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    *,
    target_tokenizer: PreTrainedTokenizerBase | None = None,
    batch_tokens: int = 4096,
    progress: bool = False,
    special_tokens_in_text: bool = False,
    **generate_options: Any,
) -> list[str]:
    """Translates texts; the output has the order of the input.

    Args:
        model: any `*ForSeq2SeqLM`, on any device; its mode is left as found.
        tokenizer: of the source; `target_tokenizer` of the target, where that is another one.
        sources: texts; an empty one (or white space) stays empty.
        batch_tokens: at most that many source positions (padding included) times beams in a batch, but one sentence at
            the least.
        progress: a bar on standard error, over sentences.
        special_tokens_in_text: a special token that a source spells out (</s>, <mask>) is special; by default it is
            text, as it was in training.
        generate_options: arguments of `generate()`, over the model's generation_config. Without `max_length` or
            `max_new_tokens` a translation ends at twice the longest source of its batch plus ten tokens, or at the
            generation_config's `max_length` where that is less.

    Raises:
        ValueError: a source has more tokens than the model positions (its number is named), or more than one
            translation per source is asked for.
    """
    if generate_options.get("num_return_sequences", 1) != 1:
        raise ValueError(
            f"num_return_sequences = {generate_options['num_return_sequences']}: translate() returns one text per "
            "source. Call model.generate() for more."
        )
    target_tokenizer = tokenizer if target_tokenizer is None else target_tokenizer
    todo = [i for i, text in enumerate(sources) if text.strip()]
    texts = [""] * len(sources)
    if not todo:
        return texts
    encoded = tokenizer([sources[i] for i in todo], split_special_tokens=not special_tokens_in_text)
    ids = dict(zip(todo, encoded["input_ids"], strict=True))
    positions = getattr(model.config, "max_position_embeddings", None)
    for i, source in ids.items():
        if positions is not None and len(source) > positions:
            raise ValueError(
                f"Source {i + 1} has {len(source)} tokens, the model only {positions} positions "
                f"(max_position_embeddings): split it into sentences, or leave it out. It begins: {sources[i][:60]!r}"
            )
    beams = generate_options.get("num_beams") or model.generation_config.num_beams or 1
    if "stop_strings" in generate_options:
        generate_options["tokenizer"] = target_tokenizer  # generate() looks for them in its own output
    was_training = model.training
    model.eval()
    try:
        with tqdm(
            total=len(todo), unit="sentence", disable=not progress, file=sys.stderr, dynamic_ncols=True
        ) as bar:
            for batch in _batches(ids, batch_tokens // beams):
                rows = [torch.tensor(ids[i]) for i in batch]
                inputs = {  # [sentences, longest] each
                    "input_ids": pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
                    "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
                }
                options = _bounded(model, generate_options, inputs["input_ids"].shape[1])
                generated = model.generate(
                    **{name: value.to(model.device) for name, value in inputs.items()}, **options
                )
                decoded = target_tokenizer.batch_decode(generated, skip_special_tokens=True)
                for i, text in zip(batch, decoded, strict=True):
                    texts[i] = text
                bar.update(len(batch))
    finally:
        model.train(was_training)
    return texts


def _batches(ids: dict[int, list[int]], budget: int) -> list[list[int]]:
    """The keys, longest source first: what does not fit into memory is noticed at once."""
    batches: list[list[int]] = []
    for i in sorted(ids, key=lambda i: -len(ids[i])):
        if batches and (len(batches[-1]) + 1) * len(ids[batches[-1][0]]) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _bounded(model: PreTrainedModel, options: dict[str, Any], longest: int) -> dict[str, Any]:
    """The options with a `max_length`, in tokens of the target, its start included."""
    if options.get("max_length") or options.get("max_new_tokens"):
        return options
    positions = getattr(model.config, "max_position_embeddings", None)
    bounds = [LONGEST_FACTOR * longest + LONGEST_EXTRA, model.generation_config.max_length, positions]
    return {**options, "max_length": min(bound for bound in bounds if bound)}


@dataclass
class Seq2SeqScore:
    """How likely the model finds the targets."""

    nll: float
    """Sum over all target tokens, their ends included, in nats."""
    tokens: int

    def as_dict(self) -> dict[str, float | str | int]:
        """The totals, the mean loss per target token, and its perplexity."""
        return {
            "nll": self.nll,
            "tokens": self.tokens,
            "loss": self.nll / self.tokens,
            "perplexity": perplexity_per_token(self.nll, self.tokens),
        }


@dataclass
class TranslationScore(Seq2SeqScore):
    """That, and how well the sources are translated."""

    bleu: dict[str, float | str | int]
    """What `all_translation_scores` returns."""
    hypotheses: list[str] = field(repr=False)

    def as_dict(self) -> dict[str, float | str | int]:
        """That of `Seq2SeqScore`, and the scores with their signatures."""
        return {**super().as_dict(), **self.bleu}


def score_translation(
    model: PreTrainedModel,
    plan: BatchPlan,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    references: Sequence[str],
    *,
    language: str,
    target_tokenizer: PreTrainedTokenizerBase | None = None,
    **translate_options: Any,
) -> TranslationScore:
    """Loss, BLEU and chrF of one side of a pair corpus; all processes call it, and share the work.

    Args:
        model: any `*ForSeq2SeqLM`; its mode is left as found.
        plan: an evaluation plan of the same pairs, for the loss.
        tokenizer, target_tokenizer, sources, translate_options: as `translate` takes them.
        references: texts, one per source.
        language: of the references, for the Moses tokenizer; tokenised BLEU is left out without sacremoses.

    Raises:
        FloatingPointError: the loss is not finite; ValueError: as `translate` and `translation_scores` raise it.
    """
    nll, tokens = score_rows(model, plan)
    own = translate(model, tokenizer, share(sources), target_tokenizer=target_tokenizer, **translate_options)
    hypotheses = collect(own, len(sources))
    bleu = all_translation_scores(hypotheses, references, language)
    return TranslationScore(nll=nll, tokens=tokens, bleu=bleu, hypotheses=hypotheses)


class TranslationEvaluation(TrainerCallback):
    """BLEU and chrF at every evaluation of a training, with a few translations to read.

    Adds `eval_bleu`, `eval_bleu_lowercase` and `eval_chrf` to the metrics (so `metric_for_best_model="bleu"` works) and
    to the log, there with `eval_bleu_signature` and so on. The processes share the sentences. The random state is left
    as found: a run goes on as it would have without, and resumes to the bit.

    Give it to Trainer before `AveragedEvaluation`, which puts the raw weights back.

    Args:
        tokenizer, target_tokenizer: as `translate` takes them.
        sources, references: of the validation side.
        samples: how many translations are printed.
        translate_options: more arguments of `translate`; greedy by default.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        sources: Sequence[str],
        references: Sequence[str],
        *,
        target_tokenizer: PreTrainedTokenizerBase | None = None,
        samples: int = 2,
        **translate_options: Any,
    ) -> None:
        if len(sources) != len(references) or not sources:
            raise ValueError(
                f"{len(sources)} sources and {len(references)} references: give as many of both, and at least one."
            )
        self.tokenizer, self.target_tokenizer = tokenizer, target_tokenizer
        self.sources, self.references = list(sources), list(references)
        self.samples = samples
        self.translate_options = {"num_beams": 1, "do_sample": False, **translate_options}

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        *,
        model: PreTrainedModel,
        **kwargs: object,
    ) -> None:
        with forked_random_state(model.device), whole_model(model) as whole:
            hypotheses = self._shared_translations(whole)
        scores = translation_scores(hypotheses, self.references)
        scores = {f"eval_{name}": value for name, value in scores.items() if name != "sentences"}
        if state.log_history and "eval_loss" in state.log_history[-1]:
            state.log_history[-1].update(scores)
        if metrics is not None:
            metrics.update({name: value for name, value in scores.items() if isinstance(value, float)})
        if state.is_world_process_zero:
            self._show(scores, hypotheses)

    def _shared_translations(self, model: PreTrainedModel) -> list[str]:
        """Every process translates every world_size-th sentence; all get all."""
        own = translate(
            model,
            self.tokenizer,
            share(self.sources),
            target_tokenizer=self.target_tokenizer,
            **self.translate_options,
        )
        return collect(own, len(self.sources))

    def _show(self, scores: dict[str, Any], hypotheses: list[str]) -> None:
        lines = [
            f"  {len(hypotheses)} sentences: BLEU {scores['eval_bleu']:.2f}, lower-cased "
            f"{scores['eval_bleu_lowercase']:.2f}, chrF {scores['eval_chrf']:.2f}"
        ]
        for i in range(min(self.samples, len(hypotheses))):
            lines.append(f"    {self.sources[i]}\n    -> {hypotheses[i]}\n    =  {self.references[i]}")
        tqdm.write("\n".join(lines), file=sys.stderr)


__all__ = [
    "Seq2SeqScore",
    "TranslationEvaluation",
    "TranslationScore",
    "score_translation",
    "translate",
]
