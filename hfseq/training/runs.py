"""What differs between the kinds of pretraining, for `scripts/pretrain.py`: the rest of a run is the same for all.

A recurrent model learns to predict the next token on contiguous streams (`stream_run`), an encoder to fill in masked
tokens (`masked_run`), an encoder-decoder to translate (`pair_run`) or to repair text (`denoising_run`). Each takes the
recipe, the model's config and the data prepared from it, and returns a `Run`. A value of the recipe that does not fit
raises ValueError, naming it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSeq2SeqLM,
    TrainerCallback,
    pipeline,
    set_seed,
)

from .. import data
from ..metrics.translation import require_sacrebleu
from ..recipe import Recipe
from .callbacks import ScaleRateWithLength
from .evaluation import score_language_model, score_masked_language_model
from .features import FeatureScore, describe_vectors, parse_vector
from .preparation import FeatureData, PairData, TrainingData, positions_of
from .translation import (
    Seq2SeqScore,
    TranslationEvaluation,
    score_translation,
    seq2seq_loss,
    translate,
)


@dataclass
class Run:
    """One kind of pretraining, ready for Trainer."""

    task: str
    """As the card names it: a key of hfseq.cards.TASKS."""
    auto_class: type
    plan: object
    """The batch plan of the whole run; `validation_plan`: of an evaluation."""
    validation_plan: object
    collator: Callable
    sizes: dict[str, object]
    """TrainingArguments that follow from the plan."""
    tokens_at: Callable[[int], int]
    """Tokens of an update, for the progress bar."""
    amount: str
    """What an epoch is, for people."""
    data_facts: dict[str, Any]
    """How much there was to train on, for summary and card."""
    held_out: tuple[str, ...]
    """Which of validation and test there are."""
    score: Callable
    """(model, "validation" or "test") -> a score with `as_dict`."""
    sample: Callable
    """(model, prompt) -> {how the card calls it: what the model makes of the prompt}."""
    main_score: str = "loss"
    """The score by which weights are chosen on validation."""
    higher_is_better: bool = False
    callbacks: list[TrainerCallback] = field(default_factory=list)
    streams: int | None = None
    """Text streams whose state is carried and saved."""
    generation: dict[str, Any] = field(default_factory=dict)
    """Fields of the model's generation config."""


def text_facts(array: data.TokenArray) -> dict[str, int]:
    """Sizes of a text."""
    return {
        "train_tokens": len(array.tokens),
        "train_bytes": int(array.n_bytes),
        "train_documents": int(array.n_documents),
    }


def held_out_of(sides: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(side for side in ("validation", "test") if side in sides)


def stream_run(recipe: Recipe, config, prepared: TrainingData, world_size: int) -> Run:
    """Next tokens on contiguous streams, the state carried from segment to segment."""
    section, given = recipe.data, recipe.training_arguments
    tokenizer, arrays = prepared.tokenizer, prepared.arrays
    accumulation = given.get("gradient_accumulation_steps", 1)
    rows = given.get("per_device_train_batch_size")
    if rows is None:
        rows = section.streams // (accumulation * world_size)
    else:
        accumulation = max(1, section.streams // (rows * world_size))
    if rows * accumulation * world_size != section.streams:
        raise ValueError(
            f"data.streams = {section.streams} must be rows x accumulation x processes, but {rows} x "
            f"{accumulation} x {world_size} = {rows * accumulation * world_size}. Change streams, "
            "per_device_train_batch_size, gradient_accumulation_steps or the number of processes."
        )
    evaluation_rows = max(1, section.evaluation_streams // world_size)
    plan = data.StreamPlan(
        arrays["train"].tokens,
        streams=section.streams,
        segment_length=section.segment_length,
        epochs=int(given.get("num_train_epochs", 3)),
        random_lengths=section.random_lengths,
        seed=_seed(given),
    )
    validation_plan = data.StreamPlan(
        arrays["validation"].tokens,
        streams=evaluation_rows * world_size,
        segment_length=section.segment_length,
    )

    def continue_text(model, prompt: str) -> dict[str, str]:
        set_seed(0)
        inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
        model.eval()
        ids = model.generate(**inputs, max_new_tokens=60, do_sample=True, temperature=0.7, top_p=0.9)
        return {"continuation": tokenizer.decode(ids[0], skip_special_tokens=True)}

    return Run(
        task="text-generation",
        auto_class=AutoModelForCausalLM,
        plan=plan,
        validation_plan=validation_plan,
        collator=data.StreamCollator(),
        sizes={
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": accumulation,
            "per_device_eval_batch_size": evaluation_rows,
        },
        tokens_at=lambda update: plan.segment_length_at(update) * section.streams,
        amount=_amount(arrays["train"]),
        data_facts=text_facts(arrays["train"]),
        held_out=held_out_of(arrays),
        score=lambda model, split: score_language_model(
            model, arrays[split], streams=section.evaluation_streams
        ),
        sample=continue_text,
        callbacks=[ScaleRateWithLength(plan)] if section.random_lengths else [],
        streams=section.streams,
        generation=_never_generated(tokenizer, config.vocab_size),
    )


def feature_run(recipe: Recipe, config, prepared: FeatureData, world_size: int) -> Run:
    """Whole texts that begin with a vector, in batches of one length; with model.feature_size 0 the same without it."""
    section, given = recipe.data, recipe.training_arguments
    tokenizer, arrays = prepared.tokenizer, prepared.arrays
    accumulation = given.get("gradient_accumulation_steps", 1)
    vectors = prepared.table.features if config.feature_size else dict.fromkeys(arrays)
    plan = data.FeaturePlan(
        arrays["train"],
        vectors["train"],
        tokens_per_update=section.tokens_per_update,
        epochs=int(given.get("num_train_epochs", 3)),
        micro_batches=accumulation * world_size,
        seed=_seed(given),
    )

    def evaluation_plan(split: str, permuted: bool = False) -> data.FeaturePlan:
        return data.FeaturePlan(
            arrays[split],
            vectors[split],
            tokens_per_update=section.tokens_per_update,
            micro_batches=world_size,
            permuted=permuted,
        )

    def score(model, split: str) -> FeatureScore:
        array = arrays[split]
        own, tokens = seq2seq_loss(model, evaluation_plan(split))
        others = (
            seq2seq_loss(model, evaluation_plan(split, permuted=True))[0] if config.feature_size else None
        )
        return FeatureScore(own, tokens, array.n_words, array.n_bytes, array.n_documents, others)

    def describe(model, prompt: str) -> dict[str, str]:
        return {
            "described": describe_vectors(model, tokenizer, [parse_vector(prompt, config.feature_size)])[0]
        }

    if recipe.training.prompt and config.feature_size:
        parse_vector(recipe.training.prompt, config.feature_size)
    return Run(
        task="vector-to-text",
        auto_class=AutoModelForCausalLM,
        plan=plan,
        validation_plan=evaluation_plan("validation"),
        collator=data.WholeBatchCollator(),
        sizes=_whole_batches(accumulation),
        tokens_at=plan.tokens_at,
        amount=f"{arrays['train'].n_documents:,} texts, {(len(arrays['train']) - 1) / 1e6:.2f}M training tokens",
        data_facts={**text_facts(arrays["train"]), "feature_columns": ", ".join(prepared.table.columns)},
        held_out=held_out_of(arrays),
        score=score,
        sample=describe if config.feature_size else lambda model, prompt: {},
        generation=_never_generated(tokenizer, config.vocab_size),
    )


def masked_run(recipe: Recipe, config, prepared: TrainingData, world_size: int) -> Run:
    """Masked tokens (and, with pairs of texts, BERT's or ALBERT's second task)."""
    section, given = recipe.data, recipe.training_arguments
    tokenizer, arrays = prepared.tokenizer, prepared.arrays
    accumulation = given.get("gradient_accumulation_steps", 1)
    vocabulary = data.MaskingVocabulary.from_tokenizer(tokenizer)
    packing = section.packing or "blocks"
    plan = data.MaskedPlan(
        arrays["train"],
        vocabulary,
        row_length=section.row_length,
        tokens_per_update=section.tokens_per_update,
        epochs=given.get("num_train_epochs", 3),
        micro_batches=accumulation * world_size,
        packing=packing,
        long_documents=section.long_documents,
        masking=data.Masking(
            rate=section.mask_rate,
            strategy=section.mask_strategy,
            replacement=section.mask_replacement,
            rate_end=section.mask_rate_end,
        ),
        seed=_seed(given),
    )
    if plan.longest_row > config.max_position_embeddings:
        raise ValueError(
            f"data.row_length {plan.longest_row} is longer than model.max_position_embeddings "
            f"{config.max_position_embeddings}: raise that, or shorten the rows."
        )
    pairs = packing in ("nsp", "sop")
    if pairs and config.type_vocab_size < 2:
        raise ValueError(
            f"data.packing {packing} has rows of two texts, but model.type_vocab_size is "
            f"{config.type_vocab_size}: set it to 2."
        )
    prompt = recipe.training.prompt
    if prompt and tokenizer.mask_token not in prompt:
        raise ValueError(f"training.prompt {prompt!r} has no {tokenizer.mask_token} to fill in.")
    tokenizer.model_max_length = config.max_position_embeddings

    def evaluation_plan(array: data.TokenArray) -> data.MaskedPlan:
        return data.MaskedPlan.evaluation(
            array,
            vocabulary,
            row_length=section.row_length,
            tokens_per_batch=max(4096, plan.longest_row),
            processes=world_size,
            packing=packing,
            long_documents=section.long_documents,
        )

    return Run(
        task="fill-mask",
        auto_class=AutoModelForPreTraining if pairs else AutoModelForMaskedLM,
        plan=plan,
        validation_plan=evaluation_plan(arrays["validation"]),
        collator=data.WholeBatchCollator(),
        sizes=_whole_batches(accumulation),
        tokens_at=plan.tokens_at,
        amount=_amount(arrays["train"]),
        data_facts=text_facts(arrays["train"]),
        held_out=held_out_of(arrays),
        score=lambda model, split: score_masked_language_model(model, evaluation_plan(arrays[split])),
        sample=lambda model, text: {"guesses": fill_in(model, tokenizer, text)},
    )


def pair_run(recipe: Recipe, config, prepared: PairData, world_size: int) -> Run:
    """Translation: batches of pairs by a token budget; BLEU and chrF beside the loss."""
    require_sacrebleu()
    section, given, own = recipe.data, recipe.training_arguments, recipe.training
    tokenizer, target_tokenizer, arrays = prepared.tokenizer, prepared.target_tokenizer, prepared.arrays
    if "validation" not in arrays:
        raise ValueError(
            "There are no validation pairs: give data.validation_file, or a data.validation_share."
        )
    packed = section.packing == "packed"
    positions = positions_of(config)
    if packed and positions is None:
        raise ValueError(
            f"{config.model_type} takes no packed rows: what it keeps of one pair would leak into the next. Set "
            "data.packing to batches."
        )
    if packed and isinstance(section.row_length, int) and section.row_length > positions:
        raise ValueError(
            f"data.row_length {section.row_length} is longer than model.max_position_embeddings "
            f"{positions}: raise that, or shorten the rows."
        )
    accumulation = given.get("gradient_accumulation_steps", 1)
    plan = data.PairPlan(
        arrays["train"],
        tokens_per_update=section.tokens_per_update,
        epochs=given.get("num_train_epochs", 3),
        micro_batches=accumulation * world_size,
        packing=section.packing or "batches",
        row_length=section.row_length if packed else None,
        cells_per_update=section.cells_per_update,
        seed=_seed(given),
    )
    if positions is not None:
        for tokens in (tokenizer, target_tokenizer):
            tokens.model_max_length = positions

    def evaluation_plan(split: str) -> data.PairPlan:
        return data.PairPlan.evaluation(
            arrays[split],
            tokens_per_batch=4096,
            cells_per_batch=section.cells_per_update,
            processes=world_size,
        )

    def score(model, split: str):
        sources, references = prepared.texts[split]
        return score_translation(
            model,
            evaluation_plan(split),
            tokenizer,
            sources,
            references,
            language=prepared.languages[1],
            target_tokenizer=target_tokenizer,
            num_beams=own.num_beams,
        )

    def sample(model, prompt: str) -> dict[str, str]:
        options = {"target_tokenizer": target_tokenizer, "num_beams": own.num_beams}
        return {"translation": translate(model, tokenizer, [prompt], **options)[0]}

    callbacks: list[TrainerCallback] = []
    if own.translated_sentences:
        sources, references = (side[: own.translated_sentences] for side in prepared.texts["validation"])
        callbacks.append(
            TranslationEvaluation(tokenizer, sources, references, target_tokenizer=target_tokenizer)
        )
    train = arrays["train"]
    return Run(
        task="translation",
        auto_class=AutoModelForSeq2SeqLM,
        plan=plan,
        validation_plan=evaluation_plan("validation"),
        collator=data.WholeBatchCollator(),
        sizes=_whole_batches(accumulation),
        tokens_at=plan.tokens_at,
        amount=f"{len(train):,} pairs, {train.target_lengths.sum() / 1e6:.2f}M target tokens",
        data_facts={
            "language": list(prepared.languages),
            "train_pairs": len(train),
            "train_source_tokens": int(train.source_lengths.sum()),
            "train_target_tokens": int(train.target_lengths.sum()),
            "filter": str(train.report) if train.report else None,
        },
        held_out=held_out_of(arrays),
        score=score,
        sample=sample,
        # A model of lower-cased text is not punished for the capitals it never saw.
        main_score="bleu_lowercase" if _lower_cases(target_tokenizer) else "bleu",
        higher_is_better=True,
        callbacks=callbacks,
        generation={
            "num_beams": own.num_beams,
            **({} if positions is None else {"max_length": positions}),
            **_never_generated(
                target_tokenizer,
                config.decoder_vocab_size,
                target_tokenizer.bos_token_id,
                target_tokenizer.mask_token_id,  # of a pretraining by denoising, like the sentinels
                *data.sentinel_ids(target_tokenizer),
            ),
        },
    )


def denoising_run(recipe: Recipe, config, prepared: TrainingData, world_size: int) -> Run:
    """Plain text, damaged and to be repaired: what an encoder-decoder can learn without translations."""
    section, given = recipe.data, recipe.training_arguments
    tokenizer, arrays = prepared.tokenizer, prepared.arrays
    accumulation = given.get("gradient_accumulation_steps", 1)
    positions = positions_of(config)
    if not isinstance(section.row_length, int) or (positions and section.row_length > positions):
        limit = f" of at most model.max_position_embeddings {positions}" if positions else ""
        raise ValueError(f"data.row_length must be one length{limit}, not {section.row_length}.")
    vocabulary = data.DenoisingVocabulary.from_tokenizer(tokenizer)
    noise = data.Denoising(section.noise, section.noise_rate, section.noise_span, section.permute_sentences)
    holes = [tokenizer.mask_token_id] if section.noise == "infilling" else data.sentinel_ids(tokenizer)
    prompt = recipe.training.prompt
    if prompt and not set(holes) & set(tokenizer(prompt)["input_ids"]):
        raise ValueError(
            f"training.prompt {prompt!r} has no {tokenizer.convert_ids_to_tokens(holes[0])} to fill in."
        )
    plan = data.DenoisingPlan(
        arrays["train"],
        vocabulary,
        row_length=section.row_length,
        tokens_per_update=section.tokens_per_update,
        denoising=noise,
        epochs=given.get("num_train_epochs", 3),
        micro_batches=accumulation * world_size,
        seed=_seed(given),
    )
    if positions is not None:
        tokenizer.model_max_length = positions

    def evaluation_plan(split: str) -> data.DenoisingPlan:
        return data.DenoisingPlan.evaluation(
            arrays[split], vocabulary, row_length=section.row_length, denoising=noise, processes=world_size
        )

    def repair(model, prompt: str) -> dict[str, str]:
        model.eval()
        inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
        ids = model.generate(**inputs, num_beams=recipe.training.num_beams)[0].tolist()
        ends = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        return {"repaired": tokenizer.decode([i for i in ids if i not in ends])}

    return Run(
        task="text2text-generation",
        auto_class=AutoModelForSeq2SeqLM,
        plan=plan,
        validation_plan=evaluation_plan("validation"),
        collator=data.WholeBatchCollator(),
        sizes=_whole_batches(accumulation),
        tokens_at=plan.tokens_at,
        amount=_amount(arrays["train"]),
        data_facts=text_facts(arrays["train"]),
        held_out=held_out_of(arrays),
        score=lambda model, split: Seq2SeqScore(*seq2seq_loss(model, evaluation_plan(split))),
        sample=repair,
        generation={
            **({} if positions is None else {"max_length": positions}),
            **_never_generated(tokenizer, config.vocab_size, tokenizer.bos_token_id),
        },
    )


def fill_in(model, tokenizer, prompt: str) -> list[dict[str, object]]:
    """The five likeliest tokens in place of the prompt's mask ("[MASK]" or whatever the tokenizer's is)."""
    model.eval()
    if not hasattr(model, "next_sentence"):
        fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, device=model.device)
        return [
            {"token": guess["token_str"].strip(), "probability": round(guess["score"], 3)}
            for guess in fill(prompt)
        ]
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        logits = model(**inputs).prediction_logits[inputs["input_ids"] == tokenizer.mask_token_id][0]
    best = logits.softmax(-1).topk(5)
    return [
        {"token": tokenizer.decode([i]).strip(), "probability": round(p, 3)}
        for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _amount(array: data.TokenArray) -> str:
    return f"{(len(array) - 1) / 1e6:.2f}M training tokens"


def _seed(given: Mapping[str, Any]) -> int:
    return given.get("data_seed") or given.get("seed", 42)


def _whole_batches(accumulation: int) -> dict[str, int]:
    """Sizes where an item of the plan is a whole micro-batch."""
    return {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": accumulation,
        "per_device_eval_batch_size": 1,
    }


def _lower_cases(tokenizer) -> bool:
    """Whether what it decodes has no capitals."""
    return tokenizer.decode(tokenizer("A")["input_ids"], skip_special_tokens=True) == "a"


def _never_generated(tokenizer, vocab_size: int, *more: int | None) -> dict[str, Any]:
    """Padding, ids without a token, and `more`."""
    ids = {*data.surplus_ids(tokenizer, vocab_size), *more} - {None}
    return {"suppress_tokens": sorted(ids) or None}
