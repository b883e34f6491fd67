"""Contract 2: a cache changes how long decoding takes and nothing else.

Two halves. `forward`: step by step, in ragged chunks, with padding anywhere, the cache reordered, repeated, selected
and cropped. `generate`: every way to decode gives the tokens that decoding without a cache gives.

Token-for-token claims are made in float64: in float32 two right models may break a near-tie differently.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from .cases import Case, positions
from .comparing import FLOAT64, require_close, require_same_tokens
from .kinds import Batch, random_ids
from .violation import require, run_checks

CHUNKS = (3, 1, 4, 1, 2)
NEW_TOKENS = 10


def contract(case: Case) -> None:
    checks = [
        step_by_step,
        in_ragged_chunks,
        left_padded_step_by_step,
        left_padded_in_chunks,
        masked_tokens_leave_the_cache_alone,
        reordered_cache,
        repeated_cache,
        selected_cache,
        cropped_cache,
    ]
    if case.kind.generates:
        checks += [
            greedy,
            beam_search,
            sampling,
            assisted_decoding,
            assisted_decoding_after_left_padding,
            prompt_lookup,
            logits_processors,
            prefix_allowed_tokens,
            batch_generation,
            end_of_sequence,
            several_sequences_per_prompt,
            suppressed_tokens,
        ]
    run_checks(case, *checks)


class Decoder:
    """The causal side of a model, fed piece by piece: the encoder, if there is one, runs once."""

    def __init__(self, case: Case, model: PreTrainedModel, batch: Batch):
        self.case, self.model = case, model
        axis = case.kind.causal_axis
        self.ids_name, self.mask_name = case.kind.ids[axis], case.kind.masks[axis]
        self.ids, self.mask = batch[self.ids_name], batch[self.mask_name]
        # Models of transformers that keep a state, such as Mamba, have a name of their own for it.
        taken = inspect.signature(model.forward).parameters
        self.cache_name = "cache_params" if "cache_params" in taken else "past_key_values"
        self.context: Batch = {
            name: value for name, value in batch.items() if name in ("features", "encoder_attention_mask")
        }
        if case.kind.is_encoder_decoder:
            source = {
                case.kind.ids["source"]: batch[case.kind.ids["source"]],
                "attention_mask": batch["attention_mask"],
            }
            with torch.no_grad():
                self.context["encoder_outputs"] = model.get_encoder()(**source)
            self.context["attention_mask"] = batch["attention_mask"]

    @property
    def time(self) -> int:
        return self.ids.shape[1]

    def run(self, start: int, stop: int, cache=None, use_cache: bool = True, rows=None, masked: bool = True):
        """Feeds positions start to stop of the chosen rows; returns (outputs at these positions, cache).

        Args:
            masked: give the mask of what is fed; targets, padded on the right if at all, do without.
        """
        rows = torch.arange(len(self.ids)) if rows is None else rows
        mask = self.mask[rows]
        inputs = {self.ids_name: self.ids[rows, start:stop], **self._context(rows)}
        if masked:
            # Attention masks what is in the cache too; a model with a state of its own masks what it is fed.
            inputs[self.mask_name] = mask[:, start if self.cache_name == "cache_params" else 0 : stop]
        if self.case.takes_positions and not self.case.kind.is_encoder_decoder:
            inputs["position_ids"] = positions(mask)[:, start:stop]
        with torch.no_grad():
            result = self.model(**inputs, **{self.cache_name: cache}, use_cache=use_cache)
        (name,) = self.case.kind.outputs
        return result[name], result.get(self.cache_name)

    def _context(self, rows: torch.Tensor) -> dict:
        chosen = {}
        for name, value in self.context.items():
            if name == "encoder_outputs":
                chosen[name] = type(value)(**{k: v[rows] for k, v in value.items() if torch.is_tensor(v)})
            else:
                chosen[name] = value[rows]
        return chosen


def _decoders(case: Case, side: str = "right", extra: int = 0) -> Iterator[tuple[Decoder, float]]:
    """Three rows: equal lengths for the right side (nothing padded), ragged ones for the left."""
    total = sum(CHUNKS)
    lengths = [total] * 3 if side == "right" else [total, total - 4, total - 8]
    for model, precision in case.models():
        rows = case.rows(model.config, lengths)
        yield (
            Decoder(case, model, case.batch(rows, model.config, side=side, extra=extra)),
            precision.tolerance,
        )


def _require_chunks_agree(what: str, decoder: Decoder, chunks: tuple[int, ...], tolerance: float) -> None:
    """A decoder of pairs also without the masks of its targets: generate() gives none, and models take short ways."""
    expected, _ = decoder.run(0, decoder.time, use_cache=False)
    for masked in (True, False) if decoder.case.kind.is_encoder_decoder else (True,):
        where = what if masked else f"{what}, no mask of the targets"
        cache, start = None, 0
        for size in chunks:
            got, cache = decoder.run(start, start + size, cache, masked=masked)
            real = decoder.mask[:, start : start + size].bool()
            require(cache is not None, f"{where}: use_cache=True returned no cache")
            require_close(
                f"{where}, positions {start} to {start + size}",
                got[real],
                expected[:, start : start + size][real],
                tolerance,
            )
            start += size


def step_by_step(case: Case) -> None:
    for decoder, tolerance in _decoders(case):
        _require_chunks_agree("one token at a time", decoder, (1,) * decoder.time, tolerance)


def in_ragged_chunks(case: Case) -> None:
    for decoder, tolerance in _decoders(case):
        _require_chunks_agree("in chunks", decoder, CHUNKS, tolerance)


def left_padded_step_by_step(case: Case) -> None:
    """From the first padding on: masked tokens fed one by one must leave no trace."""
    for decoder, tolerance in _decoders(case, "left"):
        _require_chunks_agree("left-padded, one token at a time", decoder, (1,) * decoder.time, tolerance)


def left_padded_in_chunks(case: Case) -> None:
    for decoder, tolerance in _decoders(case, "left", extra=2):
        _require_chunks_agree("left-padded, in chunks", decoder, (*CHUNKS, 2), tolerance)


def masked_tokens_leave_the_cache_alone(case: Case) -> None:
    """Padding between two chunks (right-padded prompts, then more tokens) is as if it were not there."""
    for model, precision in case.models():
        lengths = [4, 2, 3]
        if case.kind.is_encoder_decoder:
            return  # targets are padded after their end, where nothing follows
        prompts = case.rows(model.config, lengths, seed=1)
        rests = case.rows(model.config, [3, 3, 3], seed=2)
        for gaps in ("right", "left"):
            first = case.batch(prompts, model.config, side=gaps)
            second = case.batch(rests, model.config)
            ids = torch.cat([first["input_ids"], second["input_ids"]], 1)
            mask = torch.cat([first["attention_mask"], second["attention_mask"]], 1)
            decoder = Decoder(case, model, {**first, "input_ids": ids, "attention_mask": mask})
            width = first["input_ids"].shape[1]
            for chunks in ((width, 3), (width, 1, 1, 1), (1,) * (width + 3), (width - 1, 4)):
                got = _last_outputs(decoder, chunks)
                for i, (prompt, rest) in enumerate(zip(prompts, rests, strict=True)):
                    joined = {"input_ids": torch.cat([prompt["input_ids"], rest["input_ids"]])}
                    context = {name: value[i : i + 1] for name, value in case.timeless(first).items()}
                    alone = Decoder(case, model, {**_ids_batch(joined["input_ids"]), **context})
                    expected, _ = alone.run(0, alone.time, use_cache=False)
                    require_close(
                        f"prompts padded on the {gaps}, chunks {chunks}, row {i}: last position",
                        got[i], expected[0, -1], precision.tolerance,
                    )  # fmt: skip


def _ids_batch(ids: torch.Tensor) -> Batch:
    return {"input_ids": ids.unsqueeze(0), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}


def _last_outputs(decoder: Decoder, chunks: tuple[int, ...]) -> torch.Tensor:
    cache, start = None, 0
    for size in chunks:
        out, cache = decoder.run(start, start + size, cache)
        start += size
    return out[:, -1]


def _require_cache_operation(case: Case, what: str, rows: torch.Tensor, apply) -> None:
    """After `apply(cache)` the cache must be that of the given rows."""
    for side in ("right", "left"):
        for decoder, tolerance in _decoders(case, side):
            half = decoder.time // 2
            _, cache = decoder.run(0, half)
            apply(cache)
            # The rows go on as themselves: what follows them is theirs too.
            expected, _ = decoder.run(0, decoder.time, use_cache=False, rows=rows)
            chunk, cache = decoder.run(half, half + 2, cache, rows=rows)
            step, _ = decoder.run(half + 2, half + 3, cache, rows=rows)
            got = torch.cat([chunk, step], 1)
            real = decoder.mask[rows, half : half + 3].bool()
            require_close(f"{what}, {side}-padded", got[real], expected[:, half : half + 3][real], tolerance)


def reordered_cache(case: Case) -> None:
    """What beam search does after every step."""
    rows = torch.tensor([2, 0, 0])
    _require_cache_operation(case, "after reorder_cache([2, 0, 0])", rows, lambda c: c.reorder_cache(rows))


def repeated_cache(case: Case) -> None:
    rows = torch.tensor([0, 0, 1, 1, 2, 2])
    _require_cache_operation(
        case, "after batch_repeat_interleave(2)", rows, lambda c: c.batch_repeat_interleave(2)
    )


def selected_cache(case: Case) -> None:
    rows = torch.tensor([2, 1])
    _require_cache_operation(
        case, "after batch_select_indices([2, 1])", rows, lambda c: c.batch_select_indices(rows)
    )


def cropped_cache(case: Case) -> None:
    """What assisted decoding does with the tokens that it rejects, and then again."""
    for decoder, tolerance in _decoders(case):
        expected, _ = decoder.run(0, decoder.time, use_cache=False)
        _, cache = decoder.run(0, 3)
        if not hasattr(cache, "activate_past_recording"):
            return  # transformers before 5.2x: generate() then refuses assisted decoding by itself
        cache.activate_past_recording()
        _, cache = decoder.run(3, 7, cache)
        cache.crop(-4)
        require(
            cache.get_seq_length() == 3, f"3 tokens were left, get_seq_length() says {cache.get_seq_length()}"
        )
        got, cache = decoder.run(3, 8, cache)
        require_close("after all of the last 4 tokens were cropped", got, expected[:, 3:8], tolerance)
        cache.crop(-2)
        got, cache = decoder.run(6, 9, cache)
        require_close("after 2 of the last 5 tokens were cropped", got, expected[:, 6:9], tolerance)
        cache.crop(0)
        got, cache = decoder.run(9, 10, cache)
        require_close("after crop(0)", got, expected[:, 9:10], tolerance)


# --- generate -------------------------------------------------------------------------------------------------------


def generator_model(case: Case, prompts: int = 3) -> tuple[PreTrainedModel, Batch]:
    """A model whose greedy continuations are varied enough that a wrong state would show, and its prompts.

    Raises:
        ContractViolation: there is none, every comparison of tokens would be vacuous.
    """
    seed, (beams_differ, variety) = _varied_seed(case)
    require(
        bool(case.load) or (beams_differ and variety >= 2.5),
        f"vacuous: greedy decoding gave only {variety:.1f} different tokens in {NEW_TOKENS}, beam search "
        f"{'others' if beams_differ else 'the same'}; change Case.sharpness",
    )
    return _model_and_prompts(case, seed, prompts)


@functools.cache
def _varied_seed(case: Case) -> tuple[int, tuple[bool, float]]:
    """Random models like to repeat one token: the best of a few seeds, whether beams find something else than greedy
    decoding, and how many different tokens it gives."""
    best = 0, (False, 0.0)
    for seed in range(1 if case.load else 12):
        model, prompt = _model_and_prompts(case, seed, prompts=3)
        tokens = generate(model, prompt)
        variety = sum(len(set(row.tolist())) for row in continuation(case, tokens, prompt)) / len(tokens)
        found = seed, (not torch.equal(tokens, generate(model, prompt, num_beams=5)), variety)
        best = max(best, found, key=lambda pair: pair[1])
        if found[1] >= (True, 4.0):
            break
    return best


def _model_and_prompts(case: Case, seed: int, prompts: int) -> tuple[PreTrainedModel, Batch]:
    model = case.model(FLOAT64, seed=seed)
    rows = case.rows(model.config, [7, 4, 5, 6][:prompts], seed=seed)
    return model, prompt_of(case, case.batch(rows, model.config, side=prompt_side(case)))


def prompt_side(case: Case) -> str:
    return "right" if case.kind.is_encoder_decoder else "left"


def prompt_of(case: Case, batch: Batch) -> Batch:
    """What a user gives to `generate`."""
    target = case.kind.ids.get("target"), case.kind.masks.get("target")
    dropped = {"position_ids", *case.kind.labels, *target}
    return {name: value for name, value in batch.items() if name not in dropped}


def row_of(prompt: Batch, row: int) -> Batch:
    """One prompt without its padding."""
    keep = prompt["attention_mask"][row].bool()
    time = prompt["attention_mask"].shape[1]
    return {
        name: value[row : row + 1, keep]
        if value.ndim > 1 and value.shape[1] == time
        else value[row : row + 1]
        for name, value in prompt.items()
    }


def generate(model: PreTrainedModel, prompt: Batch, tokens: int = NEW_TOKENS, **options) -> torch.Tensor:
    """`model.generate`, greedy unless told otherwise, exactly `tokens` new tokens unless told otherwise."""
    options = {"do_sample": False, "min_new_tokens": tokens, **options}
    with torch.no_grad():
        return model.generate(**prompt, max_new_tokens=tokens, **options)


def continuation(case: Case, tokens: torch.Tensor, prompt: Batch) -> torch.Tensor:
    """The new tokens alone."""
    return tokens[:, 1:] if case.kind.is_encoder_decoder else tokens[:, prompt["input_ids"].shape[1] :]


def by_hand(case: Case, model: PreTrainedModel, prompt: Batch, tokens: int) -> torch.Tensor:
    """Greedy decoding of one unpadded prompt in a loop that anyone can check: [1, tokens]."""
    eos = model.generation_config.eos_token_id
    forbidden = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    forbidden += model.generation_config.suppress_tokens or []
    if case.kind.is_encoder_decoder:
        name, ids = "decoder_input_ids", torch.full((1, 1), model.generation_config.decoder_start_token_id)
    else:
        name, ids = "input_ids", prompt["input_ids"]
    inputs = {key: value for key, value in prompt.items() if key != name and key != "attention_mask"}
    start = ids.shape[1]
    for _ in range(tokens):
        with torch.no_grad():
            logits = model(**inputs, **{name: ids}, use_cache=False).logits[:, -1].clone()
        logits[:, forbidden] = -torch.inf
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    return ids[:, start:]


def greedy(case: Case) -> None:
    model, prompt = generator_model(case)
    cached = generate(model, prompt)
    require_same_tokens("greedy with a cache", cached, generate(model, prompt, use_cache=False))
    new = continuation(case, cached, prompt)
    for row in range(len(new)):
        expected = by_hand(case, model, row_of(prompt, row), NEW_TOKENS)
        require_same_tokens(f"greedy against a loop of argmax, prompt {row}", new[row : row + 1], expected)


def beam_search(case: Case) -> None:
    model, prompt = generator_model(case)
    for beams in (2, 5):
        options = {"num_beams": beams, "return_dict_in_generate": True, "output_scores": True}
        cached = generate(model, prompt, **options)
        plain = generate(model, prompt, use_cache=False, **options)
        require_same_tokens(f"{beams} beams with a cache", cached.sequences, plain.sequences)
        require_close(f"scores of {beams} beams", cached.sequences_scores, plain.sequences_scores, 1e-5)


def sampling(case: Case) -> None:
    model, prompt = generator_model(case)
    runs = []
    for use_cache, seed in ((True, 0), (True, 0), (False, 0), (True, 1)):
        torch.manual_seed(seed)
        runs.append(generate(model, prompt, do_sample=True, top_k=0, temperature=2.0, use_cache=use_cache))
    require_same_tokens("sampling twice with one seed", runs[1], runs[0])
    require_same_tokens("sampling with a cache", runs[0], runs[2])
    require(not torch.equal(runs[0], runs[3]), "sampling with another seed gave the same tokens")


def _assistant(case: Case, model: PreTrainedModel, prompt: Batch, expected: torch.Tensor) -> PreTrainedModel:
    """A model that agrees with `model` now and then: some drafts are accepted, others cropped away."""
    for noise in (0.05, 0.1, 0.2, 0.4, 0.8):
        assistant = case.model(FLOAT64)
        assistant.load_state_dict(model.state_dict())
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in assistant.parameters():
                std = float(parameter.std()) if parameter.numel() > 1 else 0.0
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * noise * std)
        draft = generate(assistant, prompt)
        agreement = float((draft == expected)[:, -NEW_TOKENS:].double().mean())
        if agreement < 0.8:
            break
    # Drafts of a fixed length: by default an assistant that is unsure of itself drafts a token at a time.
    assistant.generation_config.num_assistant_tokens = 4
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assistant.generation_config.assistant_confidence_threshold = 0.0
    return assistant


def assisted_decoding(case: Case) -> None:
    model, prompts = generator_model(case)
    for row in range(len(prompts["input_ids"])):
        prompt = row_of(prompts, row)
        expected = generate(model, prompt)
        assistant = _assistant(case, model, prompt, expected)
        require_same_tokens("assisted decoding", generate(model, prompt, assistant_model=assistant), expected)
    own = generate(model, prompt, assistant_model=model)
    require_same_tokens("decoding assisted by the model itself", own, expected)


def assisted_decoding_after_left_padding(case: Case) -> None:
    if case.kind.is_encoder_decoder:
        return  # its prompt is the source, padded on the right
    model, prompts = generator_model(case)
    shortest = int(prompts["attention_mask"].sum(1).argmin())
    prompt = {name: value[shortest : shortest + 1] for name, value in prompts.items()}
    expected = generate(model, prompt)
    assistant = _assistant(case, model, prompt, expected)
    got = generate(model, prompt, assistant_model=assistant)
    require_same_tokens("assisted decoding of a left-padded prompt", got, expected)


def _takes_prompt_lookup(config) -> bool:
    """transformers (5.23) sizes drafts by `vocab_size`, which two vocabularies make that of the source."""
    size = config.get_text_config().vocab_size
    return getattr(config, "decoder_vocab_size", None) in (None, size)


def prompt_lookup(case: Case) -> None:
    """Drafts are copied from the prompt, which repeats itself here."""
    if not _takes_prompt_lookup(case.config()):
        return
    model, prompts = generator_model(case)
    for row in range(len(prompts["input_ids"])):
        prompt = row_of(prompts, row)
        if not case.kind.is_encoder_decoder:
            again = generate(model, prompt)
            ids = torch.cat([prompt["input_ids"], again, prompt["input_ids"]], 1)
            prompt = {**prompt, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        got = generate(model, prompt, prompt_lookup_num_tokens=3, max_matching_ngram_size=2)
        require_same_tokens("prompt-lookup decoding", got, generate(model, prompt))


def logits_processors(case: Case) -> None:
    model, prompt = generator_model(case)
    plain = continuation(case, generate(model, prompt), prompt)
    first = [[int(t)] for t in set(plain[:, 0].tolist())]
    for options in (
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": first},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "bad_words_ids": first, "num_beams": 3},
    ):
        cached = generate(model, prompt, **options)
        require_same_tokens(f"with {options}", cached, generate(model, prompt, use_cache=False, **options))
        new = continuation(case, cached, prompt)
        if "bad_words_ids" in options:
            used = set(new.flatten().tolist()) & {word for (word,) in first}
            require(not used, f"with {options}: bad words {sorted(used)} were generated")
        if "no_repeat_ngram_size" in options:
            for row in new.tolist():
                pairs = list(itertools.pairwise(row))
                require(len(set(pairs)) == len(pairs), f"with {options}: {row} repeats a pair of tokens")


def prefix_allowed_tokens(case: Case) -> None:
    model, prompt = generator_model(case)
    ids = random_ids(model.config, 8, torch.Generator().manual_seed(3)).unique()

    def allowed(batch_id: int, sentence: torch.Tensor) -> list[int]:
        return ids[(len(sentence) + batch_id) % 2 :: 2].tolist()

    for beams in (1, 3):
        options = {"prefix_allowed_tokens_fn": allowed, "num_beams": beams}
        cached = generate(model, prompt, **options)
        require_same_tokens(
            f"prefix_allowed_tokens_fn, {beams} beams",
            cached,
            generate(model, prompt, use_cache=False, **options),
        )
        start = cached.shape[1] - NEW_TOKENS
        for row, sentence in enumerate(cached):
            for t in range(start, cached.shape[1]):
                legal = allowed(row, sentence[:t])
                require(
                    int(sentence[t]) in legal,
                    f"prefix_allowed_tokens_fn: {int(sentence[t])} is not among {legal}",
                )


def batch_generation(case: Case) -> None:
    """Padded prompts together give what each gives alone."""
    model, prompt = generator_model(case)
    for options in ({}, {"num_beams": 3}):
        together = continuation(case, generate(model, prompt, **options), prompt)
        for row in range(len(together)):
            single = row_of(prompt, row)
            alone = continuation(case, generate(model, single, **options), single)
            require_same_tokens(f"prompt {row} in a padded batch, {options}", together[row : row + 1], alone)


def end_of_sequence(case: Case) -> None:
    """A row that ends is padded from there on, and its neighbours do not notice."""
    model, prompt = generator_model(case)
    free = continuation(case, generate(model, prompt), prompt)
    row, position = next(
        ((r, t) for t in range(2, NEW_TOKENS) for r in range(len(free)) if free[r, t] not in free[r, :t]),
        (0, 0),
    )
    eos = int(free[row, position])
    pad = model.config.get_text_config().pad_token_id or 0
    options = {"eos_token_id": eos, "pad_token_id": pad, "min_new_tokens": 0}
    # The model's own end was suppressed above; as an ordinary token it could come and lead elsewhere.
    own = model.generation_config.eos_token_id
    if own is not None:
        options["suppress_tokens"] = [own] if isinstance(own, int) else list(own)
    tokens = generate(model, prompt, **options)
    require_same_tokens("with an end in between", tokens, generate(model, prompt, use_cache=False, **options))
    new = continuation(case, tokens, prompt)
    ended = new[row, position:]
    expected = torch.full_like(ended, pad)
    expected[0] = eos
    require_same_tokens("a row after its end", ended, expected)
    for other in range(len(new)):
        single = row_of(prompt, other)
        alone = continuation(case, generate(model, single, **options), single)[0]
        require_same_tokens(f"prompt {other} beside one that ended", new[other, : len(alone)], alone)


def several_sequences_per_prompt(case: Case) -> None:
    model, prompt = generator_model(case)
    for options in (
        {"num_beams": 4, "num_return_sequences": 3},
        {"do_sample": True, "num_return_sequences": 3},
    ):
        runs = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            runs.append(generate(model, prompt, use_cache=use_cache, **options))
        require(
            len(runs[0]) == 3 * len(prompt["input_ids"]),
            f"{options}: {len(runs[0])} rows for {len(prompt)} prompts",
        )
        require_same_tokens(f"with {options}", runs[0], runs[1])


def suppressed_tokens(case: Case) -> None:
    """The ids beyond the tokenizer's (`generation_config.suppress_tokens`) never come, however likely they are."""
    model, prompt = generator_model(case)
    favourites = sorted(set(continuation(case, generate(model, prompt), prompt).flatten().tolist()))
    model.generation_config.suppress_tokens = favourites
    single = row_of(prompt, 0)
    for options in (
        {},
        {"num_beams": 3},
        {"do_sample": True, "temperature": 2.0},
        {"prompt_lookup_num_tokens": 3},
    ):
        if "prompt_lookup_num_tokens" in options and not _takes_prompt_lookup(model.config):
            continue
        torch.manual_seed(0)
        given = single if "prompt_lookup_num_tokens" in options else prompt
        new = continuation(case, generate(model, given, **options), given)
        used = sorted(set(new.flatten().tolist()) & set(favourites))
        require(not used, f"suppressed ids {used} were generated with {options}")
