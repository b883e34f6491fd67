"""How probable a model finds sentences, token by token: ours and any that an Auto class loads.

| model | a token's score |
|---|---|
| causal | log p(token given what is left of it); the first: given the tokenizer's bos token, else its eos token |
| masked | log p(token given all others); it alone is masked, `[CLS]` and `[SEP]` stand around |
| sequence-to-sequence | log p(token given the source and what is left of it in the target) |

A sentence's score is the sum over its own tokens; special tokens that stand around it are conditions and never scored,
its end neither. hfseq's causal tokenizers have bos = eos = `<|endoftext|>`, which in training stands before every
document: a sentence is scored as the beginning of a document. The masked sum is no probability but the
pseudo-log-likelihood of Salazar et al. (2020); within a word of several tokens it profits from seeing the others (Kauf
and Ivanova 2023).

The source is the same for all sentences: by default an empty text, that is what the tokenizer makes of "" (`</s>` for
ours, T5's and Marian's). The decoder begins with `decoder_start_token_id`, after which stands what the tokenizer puts
before a target (BART's `<s>`). A model pretrained by filling in spans may know `<mask>` or `<extra_id_0>` better as a
source than nothing.

All rows of all sentences (for a masked model one for each token) are sorted by length and cut into batches by their
positions, so that there is next to no padding. Equal token sequences are computed once: their scores are equal to the
last bit, whatever batch they would have stood in. Only what is scored is projected onto the vocabulary: the masked
position of a row (1.5x on one core), and the common beginning of two sentences once (BLiMP has 2.2M tokens, but 1.2M
different beginnings).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data import load_pair_tokenizers
from ..loading import check_tokenizer, load_config, load_model
from ..objectives.base import model_class_of, position_limit
from ..objectives.sections import saved_tokenizer

POSITIONS_PER_BATCH = {"cpu": 1024, "accelerator": 16384}
"""Rows x the longest row of a forward pass. On one core an LSTM of 384 units and 4,096 words is 1.4x as fast with 1,024
as with 4,096, whose logits leave the processor's cache. Fewer where logits would exceed LOGITS_PER_BATCH."""
LOGITS_PER_BATCH = 2**28
"""1 GiB of float32."""

Spans = tuple[tuple[int, int], ...]
"""Of each scored token the characters [start, end) of the text."""


@dataclass(frozen=True)
class Tokens:
    """A sentence as a model reads it."""

    ids: tuple[int, ...]
    """With all special tokens around."""
    scored: tuple[int, ...]
    """Places in `ids` of the sentence's own tokens, ascending."""
    spans: Spans | None
    """Of each scored token, the characters [start, end) of the text; None where the tokenizer does not tell."""


class Likelihood(ABC):
    """Scores sentences with one model.

    Args:
        model: its mode is left as found.
        tokenizer: of what is scored (for a sequence-to-sequence model: of targets).
        positions_per_batch: rows x the longest row of a forward pass; None: POSITIONS_PER_BATCH of the model's device.
    """

    auto_class: ClassVar[str]
    """Of the models that are scored this way."""
    method: str
    """In a few words, for results."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        positions_per_batch: int | None = None,
    ):
        if positions_per_batch is None:
            positions_per_batch = POSITIONS_PER_BATCH["cpu" if model.device.type == "cpu" else "accelerator"]
        if positions_per_batch < 1:
            raise ValueError(f"positions_per_batch must be at least 1, not {positions_per_batch}.")
        self.model, self.tokenizer = model, tokenizer
        self.positions_per_batch = min(positions_per_batch, max(1, LOGITS_PER_BATCH // self.vocab_size))
        self.show_progress = False

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        config = self.model.config
        return getattr(config, "decoder_vocab_size", None) or config.get_text_config(decoder=True).vocab_size

    def encode(self, texts: Sequence[str], places: Sequence[str]) -> list[Tokens]:
        """What the model reads of each text.

        Args:
            places: of each text, for messages.

        Raises:
            ValueError: a text that is no token, or more than the model has positions.
        """
        if not texts:
            return []
        encoded = self._tokenize(list(texts))
        limit = self._positions()
        every = []
        for i, (text, place) in enumerate(zip(texts, places, strict=True)):
            specials = encoded["special_tokens_mask"][i]
            own = [column for column, special in enumerate(specials) if not special]
            if not own:
                raise ValueError(
                    f"{place}: {text!r:.80} becomes no token at all, so that no model can score it. Look at the "
                    "tokenizer, or take the text out."
                )
            ids = encoded["input_ids"][i]
            offsets = encoded["offset_mapping"][i] if "offset_mapping" in encoded else None
            spans = (
                None if offsets is None else tuple((start, end) for start, end in (offsets[c] for c in own))
            )
            tokens = self._tokens(ids, own, spans)
            if limit is not None and len(tokens.ids) > limit:
                raise ValueError(
                    f"{place}: {text!r:.80} is {len(tokens.ids):,} tokens, special ones included, but the model has "
                    f"{limit:,} positions. Cut the text into shorter ones."
                )
            every.append(tokens)
        return every

    def log_probabilities(self, sentences: Sequence[Tokens]) -> list[np.ndarray]:
        """Of each sentence: natural logarithms, [scored tokens], float64.

        Raises:
            FloatingPointError: one that is not finite.
        """
        different = list(dict.fromkeys((sentence.ids, sentence.scored) for sentence in sentences))
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                computed = dict(zip(different, self._compute(different), strict=True))
        finally:
            self.model.train(was_training)
        for (ids, scored), values in computed.items():
            if not np.isfinite(values).all():
                place = int(np.flatnonzero(~np.isfinite(values))[0])
                raise FloatingPointError(
                    f"The model gives token {self.tokenizer.convert_ids_to_tokens(ids[scored[place]])!r} the log-"
                    f"probability {values[place]}, in {self.tokenizer.decode(ids)!r:.80}: its weights are not those "
                    "of a trained model, or too large for their type."
                )
        return [computed[sentence.ids, sentence.scored] for sentence in sentences]

    def sentence_scores(self, sentences: Sequence[Tokens]) -> np.ndarray:
        """Sums of `log_probabilities`, [sentences], float64."""
        return np.array([values.sum() for values in self.log_probabilities(sentences)])

    def _positions(self) -> int | None:
        return position_limit(self.model.config)

    def _tokenize(self, texts: list[str]) -> Any:
        return self._call(text=texts)

    def _call(self, **options: Any) -> Any:
        return self.tokenizer(
            return_special_tokens_mask=True,
            return_offsets_mapping=self.tokenizer.is_fast,
            return_attention_mask=False,
            verbose=False,
            **options,
        )

    def _tokens(self, ids: list[int], own: list[int], spans: Spans | None) -> Tokens:
        return Tokens(tuple(ids), tuple(own), spans)

    @abstractmethod
    def _compute(self, sentences: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[np.ndarray]:
        """Log-probabilities of (ids, scored) that are all different."""

    def _batches(self, lengths: Sequence[int], rows: Sequence[Any] | None = None) -> Iterator[list[int]]:
        """Numbers of rows that are computed together: sorted by length, then by what they are, within the budget; a
        row longer than the budget stands alone."""
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], rows[i] if rows else i))
        bar = tqdm(total=sum(lengths), unit="tok", unit_scale=True, disable=not self.show_progress)
        batch: list[int] = []
        for i in order:
            if batch and (len(batch) + 1) * lengths[i] > self.positions_per_batch:
                yield batch
                bar.update(sum(lengths[j] for j in batch))
                batch = []
            batch.append(i)
        if batch:
            yield batch
            bar.update(sum(lengths[j] for j in batch))
        bar.close()

    def _padded(self, rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        longest = max(map(len, rows))
        padded = [[*row, *[filler] * (longest - len(row))] for row in rows]
        return torch.tensor(padded, device=self.model.device)

    def _without_cache(self) -> dict[str, bool]:
        """No cache of keys and values is built where the model can be told so."""
        return {"use_cache": False} if "use_cache" in inspect.signature(self.model.forward).parameters else {}


class CausalLikelihood(Likelihood):
    """Left to right; see the module."""

    auto_class = "AutoModelForCausalLM"
    method = "log-probability"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any):
        super().__init__(model, tokenizer, **options)
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if bos is None and eos is None:
            raise ValueError(
                "The tokenizer has neither a bos nor an eos token: nothing can stand before a sentence's first token, "
                "which is scored too. Give it the one that stood before texts in training (tokenizer.bos_token = ...)."
            )
        self.prefix: int = eos if bos is None else bos

    def boundary_log_probabilities(
        self, sentences: Sequence[Tokens], begins_word: Sequence[bool]
    ) -> list[np.ndarray]:
        """How probable it is, after each token of `ids`, that one of certain tokens follows.

        Args:
            begins_word: [vocab_size], which tokens.

        Returns:
            natural logarithms, [len(ids)] each, float64; the last is what follows the sentence.
        """
        of_these = torch.tensor(begins_word, device=self.model.device).nonzero()[:, 0]

        def take(logits: torch.Tensor, _: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            return (logits[:, of_these].logsumexp(-1) - logits.logsumexp(-1))[places]

        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                return self._read([sentence.ids for sentence in sentences], take, surplus=0)
        finally:
            self.model.train(was_training)

    def _tokenize(self, texts: list[str]) -> Any:
        return self._call(text=texts, add_special_tokens=False)

    def _tokens(self, ids: list[int], own: list[int], spans: Spans | None) -> Tokens:
        return Tokens((self.prefix, *ids), tuple(column + 1 for column in own), spans)

    def _compute(self, sentences: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[np.ndarray]:
        def take(logits: torch.Tensor, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            return logits[places, ids[:, 1:]] - logits.logsumexp(-1)[places]

        every = self._read([ids for ids, _ in sentences], take, surplus=1)
        return [values[np.array(scored) - 1] for values, (_, scored) in zip(every, sentences, strict=True)]

    def _read(
        self,
        rows: Sequence[tuple[int, ...]],
        take: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        surplus: int,
    ) -> list[np.ndarray]:
        """Of each row what `take` makes of its logits, without the last `surplus` positions, [time - surplus].

        What two rows of a batch have in common at their beginning is projected onto the vocabulary once: `take` is
        given the logits of different beginnings [different, vocabulary], the ids [rows, time] and where the logits
        after each of them are [rows, time - surplus].
        """
        results: list[np.ndarray] = [np.empty(0)] * len(rows)
        for batch in self._batches([len(ids) for ids in rows], rows):
            chosen = [rows[i] for i in batch]
            # Padded on the right, which nothing that is read can see: no attention mask is needed.
            ids = self._padded(chosen, self.prefix)
            columns, places = _different_beginnings(chosen, ids.shape[1], surplus)
            kept = torch.tensor(columns[0], device=ids.device), torch.tensor(columns[1], device=ids.device)
            with _projected_only_at(self.model, kept, ids.shape):
                logits = self.model(input_ids=ids, **self._without_cache()).logits
            logits = _kept(logits, kept, ids.shape)
            taken = take(_exact(logits), ids, torch.tensor(places, device=ids.device))
            for i, values in zip(batch, taken.double().cpu().numpy(), strict=True):
                results[i] = values[: len(rows[i]) - surplus].copy()
        return results


def _different_beginnings(
    rows: Sequence[tuple[int, ...]], time: int, surplus: int
) -> tuple[tuple[list[int], list[int]], list[list[int]]]:
    """(row, column) of each beginning that no row before has, and for each row and column the number of its own.

    Rows are sorted, so that the row before shares most. Columns are `time - surplus`; those of padding are 0.
    """
    numbers: list[int] = []
    columns: list[int] = []
    places: list[list[int]] = []
    before: tuple[int, ...] = ()
    for number, row in enumerate(rows):
        length = len(row) - surplus
        shared = next((t for t, (a, b) in enumerate(zip(before, row, strict=False)) if a != b), len(before))
        # The row before may be the shorter one, whose last columns were not kept.
        shared = min(shared, length, max(len(before) - surplus, 0))
        own = places[-1][:shared] if places else []
        own = [*own, *range(len(numbers), len(numbers) + length - shared)]
        numbers += [number] * (length - shared)
        columns += range(shared, length)
        places.append([*own, *[0] * (time - surplus - length)])
        before = row
    return (numbers, columns), places


class MaskedLikelihood(Likelihood):
    """Each token masked in turn; see the module."""

    auto_class = "AutoModelForMaskedLM"
    method = "pseudo-log-likelihood"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any):
        super().__init__(model, tokenizer, **options)
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "The tokenizer has no mask token, but a masked language model is scored by masking. Take the "
                "tokenizer that the model was trained with."
            )

    def _compute(self, sentences: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[np.ndarray]:
        results = [np.empty(len(scored)) for _, scored in sentences]
        # (sentence, number of the scored token): one row of its own for each.
        rows = [(i, j) for i, (_, scored) in enumerate(sentences) for j in range(len(scored))]
        pad = self.tokenizer.pad_token_id
        for batch in self._batches([len(sentences[i][0]) for i, _ in rows]):
            chosen = [rows[number] for number in batch]
            lines = [sentences[i][0] for i, _ in chosen]
            columns = torch.tensor([sentences[i][1][j] for i, j in chosen], device=self.model.device)
            ids = self._padded(lines, self.tokenizer.mask_token_id if pad is None else pad)
            lengths = torch.tensor([len(line) for line in lines], device=ids.device)
            mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
            number = torch.arange(len(chosen), device=ids.device)
            targets = ids[number, columns]
            ids[number, columns] = self.tokenizer.mask_token_id
            with _projected_only_at(self.model, (number, columns), ids.shape):
                logits = self.model(input_ids=ids, attention_mask=mask).logits
            logits = _kept(logits, (number, columns), ids.shape)
            values = _log_softmax_at(_exact(logits), targets).double().cpu().numpy()
            for (i, j), value in zip(chosen, values, strict=True):
                results[i][j] = value
        return results


class ConditionalLikelihood(Likelihood):
    """A target given one source for all; see the module.

    Args:
        source_tokenizer: where it is another one than the targets'.
        source: what the encoder reads.
    """

    auto_class = "AutoModelForSeq2SeqLM"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        source_tokenizer: PreTrainedTokenizerBase | None = None,
        source: str = "",
        **options: Any,
    ):
        super().__init__(model, tokenizer, **options)
        self.source: list[int] = (source_tokenizer or tokenizer)(source).input_ids
        if not self.source:
            raise ValueError(
                f"The source {source!r} becomes no token, but the encoder must read something: name another one "
                "(--source TEXT)."
            )
        config, generation = model.config, getattr(model, "generation_config", None)
        starts = (
            getattr(generation, "decoder_start_token_id", None),
            getattr(config, "decoder_start_token_id", None),
            getattr(config, "bos_token_id", None),
        )
        start = next((start for start in starts if start is not None), None)
        if start is None:
            raise ValueError(
                "config.decoder_start_token_id is not set: nothing says what stands before a target. Set it to the "
                "token that the decoder began with in training."
            )
        self.start: int = start
        what = f"source {source!r}" if source else "an empty source"
        self.method = f"log-probability given {what}"

    def _tokenize(self, texts: list[str]) -> Any:
        return self._call(text_target=texts)  # Marian's tokenizers, for one, have two sides

    def _compute(self, sentences: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[np.ndarray]:
        results: list[np.ndarray] = [np.empty(0)] * len(sentences)
        for batch in self._batches([len(ids) for ids, _ in sentences]):
            targets = self._padded([sentences[i][0] for i in batch], self.start)
            begun = torch.cat([torch.full_like(targets[:, :1], self.start), targets[:, :-1]], 1)
            source = torch.tensor([self.source] * len(batch), device=targets.device)
            logits = self.model(
                input_ids=source,
                attention_mask=torch.ones_like(source),
                decoder_input_ids=begun,
                **self._without_cache(),
            ).logits
            values = _log_softmax_at(_exact(logits), targets).double().cpu().numpy()
            for row, i in enumerate(batch):
                results[i] = values[row, list(sentences[i][1])]
        return results


# In this order: BART has a head for both of the first two, BERT for both of the last.
LIKELIHOODS: tuple[type[Likelihood], ...] = (ConditionalLikelihood, MaskedLikelihood, CausalLikelihood)


def likelihood_class(config: PreTrainedConfig, path: str) -> type[Likelihood]:
    """How a checkpoint is scored: by the head it was saved with.

    Raises:
        ValueError: it was saved with none that predicts tokens.
    """
    saved = (config.architectures or [""])[0]
    remote = getattr(config, "auto_map", None) or {}
    heads: dict[type[Likelihood], str] = {}
    for kind in LIKELIHOODS:
        if kind.auto_class in remote:
            heads[kind] = remote[kind.auto_class].rpartition(".")[2]
        elif (head := model_class_of(kind.auto_class, type(config))) is not None:
            heads[kind] = head.__name__
    own = [kind for kind, head in heads.items() if head == saved]
    # BERT's two tasks of pretraining: the head for one of them is what is wanted here.
    if not own and (not saved or saved.endswith("ForPreTraining")):
        own = list(heads)
    if not own:
        others = f" (as {' or '.join(sorted(set(heads.values())))} is)" if heads else ""
        raise ValueError(
            f"{path} was saved as {saved or config.model_type}, which has no head that predicts tokens: name a "
            f"checkpoint of a causal, masked or sequence-to-sequence language model{others}."
        )
    return own[0]


def load_likelihood(
    path: str, *, source: str | None = None, trust_remote_code: bool = False, device: str = "cpu"
) -> Likelihood:
    """A checkpoint, ready to score.

    Args:
        source: what the encoder of a sequence-to-sequence model reads; None: an empty text.

    Raises:
        ValueError, OSError: what is wrong with the checkpoint, or that it does not predict tokens; a source for a model
            without an encoder.
    """
    config = load_config(path, trust_remote_code=trust_remote_code)
    kind = likelihood_class(config, path)
    if source is not None and kind is not ConditionalLikelihood:
        raise ValueError(
            f"A source is for models with an encoder and a decoder, but {path} is a {config.model_type}: leave it out."
        )
    source_tokenizer, tokenizer = saved_tokenizer(
        path, lambda name: load_pair_tokenizers(name, trust_remote_code=trust_remote_code)
    )
    if tokenizer is source_tokenizer:
        check_tokenizer(tokenizer, config)
    options: dict[str, Any] = {}
    if kind is ConditionalLikelihood:
        options = {"source_tokenizer": source_tokenizer, "source": source or ""}
    model = load_model(getattr(transformers, kind.auto_class), path, trust_remote_code=trust_remote_code).to(
        device
    )
    return kind(model, tokenizer, **options)


def _exact(logits: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _log_softmax_at(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log p(target): logits [..., vocabulary], targets [...]; the whole log-softmax is never made."""
    return logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)


@contextmanager
def _projected_only_at(
    model: PreTrainedModel, kept: tuple[torch.Tensor, torch.Tensor], shape: torch.Size
) -> Iterator[None]:
    """The projection onto the vocabulary, most of a small model's work, sees [1, kept, hidden] of [rows, time, hidden].

    Where a head projects in another way (no output embeddings, or rows without their padding), nothing changes.

    Args:
        kept: rows and columns.
        shape: rows and time.
    """
    projection = model.get_output_embeddings()

    def keep(module, arguments):
        hidden, *rest = arguments
        if hidden.dim() != 3 or hidden.shape[:2] != shape:
            return None
        return (hidden[kept][None], *rest)

    if projection is None:
        yield
        return
    handle = projection.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _kept(logits: torch.Tensor, kept: tuple[torch.Tensor, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """[kept, vocabulary], whether all positions were projected or these only."""
    return logits[kept] if logits.shape[:2] == shape else logits[0]


__all__ = [
    "LIKELIHOODS",
    "CausalLikelihood",
    "ConditionalLikelihood",
    "Likelihood",
    "MaskedLikelihood",
    "Tokens",
    "likelihood_class",
    "load_likelihood",
]
