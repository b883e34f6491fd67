"""Continue a text with a language model, or translate it with an encoder-decoder.

    hfseq generate outputs/lstm-kjv --prompt "In the beginning"
    hfseq generate outputs/lstm-kjv --num_beams 4 --do_sample false < prompts.txt
    hfseq generate outputs/transformer-multi30k-en-de --input test.en --output test.de --num_beams 5
    hfseq generate outputs/transformer-multi30k-en-de --prompt "Two men walk." --plot_attention maps.png
    hfseq generate outputs/pervasive-multi30k-en-de --prompt "Two men walk." --plot_attention maps.png \\
        --beside outputs/transformer-multi30k-en-de
    hfseq generate outputs/lstm-colours --features "0.75 0.31 0.00"

One line in, one line out (or --num_return_sequences of them), in order: a line break that a language model writes is a
space there, and kept for a single --prompt and in an --output that ends in .jsonl ({"prompt", "text"} in each line). A
blank line is translated to an empty one; a language model begins a text of its own there. A model that begins with a
vector takes one vector for each line, or one for all; --features alone begins a text from each. Under torchrun each
process takes its part of the lines.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BatchEncoding, set_seed

from hfseq.attention_maps import attention_maps
from hfseq.commands.console import CommandParser, device, mistakes_told, model_id, path
from hfseq.commands.generation import generate_options
from hfseq.commands.outputs import check_different_files, check_output_file, check_picture
from hfseq.data import load_pair_tokenizers, read_tokenizer
from hfseq.data.files import format_of, lines_of, one_line, write_lines
from hfseq.loading import check_tokenizer, load_config, load_model
from hfseq.paths import user_path
from hfseq.pipelines import TranslationPipeline
from hfseq.plots import plot_attention, plot_side_by_side
from hfseq.positions import position_limit
from hfseq.training import translate
from hfseq.training.describing import parse_vector
from hfseq.training.processes import collect, decide, is_main, own_device, rank, share, start_processes

# Of a language model, where neither the command line nor one of its other options says it; a translation is what the
# model's own generation_config says.
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
MAX_NEW_TOKENS = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=model_id, help="a checkpoint directory or a Hub id")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--prompt", help="the text; without it, --input and --features, lines are read from standard input"
    )
    source.add_argument("--input", type=path, help="a file, one text per line, also .gz")
    parser.add_argument(
        "--features",
        metavar="VECTOR_OR_FILE",
        help="for a model with feature_size: the numbers that the text begins with, or a file of them, a vector a line",
    )
    parser.add_argument("--output", type=path, help="write to this file in place of standard output")
    parser.add_argument("--batch_size", type=int, default=32, help="texts decoded together")
    parser.add_argument(
        "--batch_tokens",
        type=int,
        default=4096,
        help="for translation: source tokens times beams decoded together",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument(
        "--plot_attention", "--plot-attention", type=path, metavar="FILE.png",
        help="for translation: draw the attention of every layer and head for one sentence",
    )  # fmt: skip
    parser.add_argument(
        "--beside", type=model_id, nargs="+", default=[], metavar="MODEL",
        help="with --plot_attention: one panel for each of these models too, for the same translation",
    )  # fmt: skip
    parser.add_argument(
        "--plotted", default="cross", choices=("cross", "encoder", "decoder"), help="which attention that is"
    )
    parser.add_argument(
        "--special_tokens_in_text",
        action="store_true",
        help="special tokens that a text spells out (<|endoftext|>, <mask>) are special; without: text, as in training",
    )
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the Hub repository"
    )


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(
        "generate",
        __doc__,
        epilog="Any argument of generate() may follow: --num_beams 4 --do_sample false --length_penalty 1.2",
    )
    add_arguments(parser)
    arguments, rest = parser.parse_known_args(argv)
    with mistakes_told(parser):
        options = generate_options(rest)
        check_arguments(arguments)
        start_processes()
        lines = decide(lambda: read_lines(arguments))  # standard input can be read once
        config = load_config(arguments.model, trust_remote_code=arguments.trust_remote_code)
        if not (any(lines) if config.is_encoder_decoder else lines):
            raise ValueError(
                "nothing to continue or translate: give --prompt TEXT, --input FILE, or lines on standard input"
            )
        check_fit(arguments, config, lines)
        arguments.device = own_device(arguments.device)
        set_seed(arguments.seed + rank())
        generate = translations if config.is_encoder_decoder else continuations
        texts = generate(arguments, lines, options)
        write_texts(arguments, lines, texts)


def check_arguments(arguments: argparse.Namespace) -> None:
    """What is wrong whatever the model is."""
    for name in ("batch_size", "batch_tokens"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    if not 0 <= arguments.seed < 2**32:
        raise ValueError(f"--seed must be between 0 and {2**32 - 1}, not {arguments.seed}")
    if arguments.beside and not arguments.plot_attention:
        raise ValueError("--beside draws other models' attention too: it needs --plot_attention FILE.png")
    if arguments.beside and arguments.plotted != "cross":
        raise ValueError("--beside compares where models look in the source: leave --plotted out")
    check_output_file(arguments.output, "--output")
    check_picture(arguments.plot_attention, "--plot_attention")
    check_different_files({"--output": arguments.output, "--plot_attention": arguments.plot_attention})


def check_fit(arguments: argparse.Namespace, config: Any, lines: list[str]) -> None:
    """What is wrong with this model."""
    if arguments.plot_attention and not config.is_encoder_decoder:
        raise ValueError(f"--plot_attention is for encoder-decoders, but this is {config.model_type}")
    if arguments.plot_attention and sum(map(bool, lines)) > 1:
        raise ValueError("--plot_attention draws one sentence: give it by --prompt")
    size = getattr(config, "feature_size", 0)
    if arguments.features is not None and not size:
        raise ValueError(
            f"--features is for models with a feature_size, but this {config.model_type} has none"
        )
    if arguments.features is None and size:
        raise ValueError(f"this model begins every text with a vector of {size} numbers: give --features")


def continuation_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the defaults of this command, which give way to all that says something of the same."""
    if options.get("do_sample", True):
        options = {**SAMPLING, **options}
    if "max_length" in options:
        # where the checkpoint's own generation_config says how many new ones, that would count
        options = {"max_new_tokens": None, **options}
    elif "max_new_tokens" not in options:
        longest = max(MAX_NEW_TOKENS, options.get("min_new_tokens", 0), options.get("min_length", 0))
        options = {**options, "max_new_tokens": longest}
    return options


def continuations(
    arguments: argparse.Namespace, prompts: list[str], options: dict[str, Any]
) -> Iterator[str]:
    """Each prompt and what a language model makes of it."""
    says_length = "max_new_tokens" in options or "max_length" in options
    options = continuation_options(options)
    tokenizer = read_tokenizer(
        arguments.model, padding_side="left", trust_remote_code=arguments.trust_remote_code
    )
    model = load(AutoModelForCausalLM, arguments)
    check_tokenizer(tokenizer, model.config)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # GPT-2's has none; what stands there is masked
    if "stop_strings" in options:
        options["tokenizer"] = tokenizer
    vectors = (
        None if arguments.features is None else read_vectors(arguments.features, model.config.feature_size)
    )
    if vectors and len(prompts) == 1:
        prompts = prompts * len(vectors)
    elif vectors and len(vectors) == 1:
        vectors = vectors * len(prompts)
    if vectors and len(vectors) != len(prompts):
        raise ValueError(
            f"{len(vectors)} vectors in --features, but {len(prompts)} lines of text: give as many, or one."
        )
    texts: dict[int, list[str]] = {}
    own = share(range(len(prompts)))
    for batch in by_length(prompts, own, arguments.batch_size):
        inputs = encoded_prompts(tokenizer, [prompts[i] for i in batch], arguments.special_tokens_in_text)
        room = room_for(
            model.config, prompts, batch, inputs["attention_mask"].sum(1).tolist(), options, says_length
        )
        inputs = inputs.to(arguments.device)
        if vectors:
            features = torch.tensor([vectors[i] for i in batch], dtype=model.dtype, device=arguments.device)
            inputs["features"] = features
        ids = model.generate(**inputs, **{**options, **room})
        ids = ids.unflatten(0, (len(batch), -1))  # [batch, returns, longest]
        for i, of_prompt in zip(batch, ids, strict=True):
            texts[i] = tokenizer.batch_decode(of_prompt, skip_special_tokens=True)
    for of_prompt in collect([texts[i] for i in own], len(prompts)):
        yield from of_prompt


def room_for(
    config: Any,
    prompts: list[str],
    batch: list[int],
    lengths: list[int],
    options: dict[str, Any],
    says_length: bool,
) -> dict[str, int]:
    """The options by which a model with positions stays within them.

    Args:
        batch: numbers of the prompts; lengths: their tokens.
        says_length: whether the user said how long the texts may be, so that less would not be what was asked for.

    Raises:
        ValueError: a prompt that leaves no room, or not as much as was asked for; names its line.
    """
    positions = position_limit(config)
    if positions is None:
        return {}
    longest = max(lengths)
    number = batch[lengths.index(longest)]
    wanted = options.get("max_new_tokens") or 0
    total = longest + wanted if wanted else options.get("max_length", 0)
    if longest >= positions or (says_length and total > positions):
        asked = f", and {total - longest} more are asked for" if says_length and longest < positions else ""
        raise ValueError(
            f"line {number + 1} has {longest} tokens{asked}, but the model only {positions} positions "
            f"(max_position_embeddings): shorten it{asked and ', or lower --max_new_tokens'}. It begins: "
            f"{prompts[number][:60]!r}"
        )
    return {"max_new_tokens": positions - longest} if total > positions else {}


def encoded_prompts(tokenizer: Any, prompts: list[str], special_tokens_in_text: bool) -> BatchEncoding:
    """A batch, padded. An empty prompt starts a text: the end-of-document token stands before every document."""
    begin = tokenizer.bos_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    rows = [
        tokenizer(prompt, split_special_tokens=not special_tokens_in_text)["input_ids"] if prompt else [begin]
        for prompt in prompts
    ]
    return tokenizer.pad({"input_ids": rows}, return_tensors="pt")


def translations(arguments: argparse.Namespace, lines: list[str], options: dict[str, Any]) -> Iterator[str]:
    """Each line in the other language; with --plot_attention also a picture."""
    tokenizer, target_tokenizer = load_tokenizers(arguments.model, arguments)
    model = load(AutoModelForSeq2SeqLM, arguments)
    check_tokenizer(tokenizer, model.config)
    tokenizers = {"tokenizer": tokenizer, "target_tokenizer": target_tokenizer}
    reading = {"special_tokens_in_text": arguments.special_tokens_in_text}
    texts: dict[int, list[str]] = {}
    own = share(range(len(lines)))
    if options.get("num_return_sequences", 1) == 1:
        shown = {"batch_tokens": arguments.batch_tokens, "progress": len(lines) > 1 and sys.stderr.isatty()}
        # Lines of other processes are empty here: every line keeps its number, by which a wrong one is named.
        sources = [""] * len(lines)
        for i in own:
            sources[i] = lines[i]
        found = translate(model, sources=sources, **tokenizers, **shown, **reading, **options)
        for i, text in enumerate(found):
            texts[i] = [text]
    else:
        several = TranslationPipeline(model, device=torch.device(arguments.device), **tokenizers)
        stopping = {"tokenizer": target_tokenizer} if "stop_strings" in options else {}
        for batch in by_length(lines, own, arguments.batch_size):
            translated = several(
                [lines[i] for i in batch], batch_size=len(batch), **reading, **stopping, **options
            )
            for i, of_line in zip(batch, translated, strict=True):
                texts[i] = [translation["translation_text"] for translation in of_line]
    all_texts = collect([texts[i] for i in own], len(lines))
    if arguments.plot_attention and is_main():
        options = {k: v for k, v in options.items() if k not in ("num_return_sequences", "stop_strings")}
        number = next(i for i, line in enumerate(lines) if line)
        if arguments.beside:
            picture = draw_side_by_side(arguments, lines[number], all_texts[number][0])
        else:
            maps = attention_maps(
                model, source=lines[number], kind=arguments.plotted, **tokenizers, **reading, **options
            )
            picture = plot_attention(maps, arguments.plot_attention)
        print(f"attention drawn to {picture}", file=sys.stderr)
    for of_line in all_texts:
        yield from of_line


def draw_side_by_side(arguments: argparse.Namespace, source: str, target: str) -> Path:
    """Where each model looks in the source for one translation, that of the first."""
    panels = {}
    for name in [arguments.model, *arguments.beside]:
        tokenizer, target_tokenizer = load_tokenizers(name, arguments)
        model = load(AutoModelForSeq2SeqLM, arguments, name)
        panels[Path(name).name] = attention_maps(
            model,
            tokenizer,
            source,
            target=target,
            target_tokenizer=target_tokenizer,
            special_tokens_in_text=arguments.special_tokens_in_text,
        )
    return plot_side_by_side(panels, arguments.plot_attention)


def load(auto_class: Any, arguments: argparse.Namespace, name: str | None = None) -> Any:
    """The model, on the device, in evaluation mode."""
    model = load_model(auto_class, name or arguments.model, trust_remote_code=arguments.trust_remote_code)
    return model.to(arguments.device).eval()


def load_tokenizers(name: str, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Of sources and of targets."""
    return load_pair_tokenizers(name, trust_remote_code=arguments.trust_remote_code)


def by_length(texts: list[str], own: list[int], size: int) -> Iterator[list[int]]:
    """Numbers of this process's texts, those of similar length together, with a progress bar."""
    order = sorted(own, key=lambda i: len(texts[i]))
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    yield from tqdm(batches, disable=len(batches) <= 1 or not (is_main() and sys.stderr.isatty()))


def read_lines(arguments: argparse.Namespace) -> list[str]:
    """The texts, without line ends; what is only white space is empty."""
    if arguments.prompt is not None:
        if not is_unicode(arguments.prompt):
            raise ValueError(
                "--prompt holds bytes that are not UTF-8: type it in a UTF-8 terminal, or use --input FILE"
            )
        lines = [arguments.prompt]
    elif arguments.input is not None:
        lines = [line for _, line in lines_of(arguments.input)]
    elif arguments.features is not None:
        lines = [""]
    else:
        lines = [line for _, line in lines_of(sys.stdin.buffer)]
    return [line if line.strip() else "" for line in lines]


def is_unicode(text: str) -> bool:
    """Whether a word of the command line was UTF-8: Python keeps other bytes as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def read_vectors(given: str, size: int) -> list[list[float]]:
    """One vector from its numbers, or those of a file, one a line; each refused by its line if it has not `size`
    finite numbers."""
    if not (file := user_path(given)).is_file():
        return [parse_vector(given, size)]
    vectors = []
    for number, line in lines_of(file):
        try:
            vectors.append(parse_vector(line, size))
        except ValueError as error:
            raise ValueError(f"{given}, line {number}: {error}") from error
    return vectors


def write_texts(arguments: argparse.Namespace, lines: list[str], texts: Iterator[str]) -> None:
    """To a file, which appears when all is done, or to standard output; by the main process."""
    if not is_main():
        for _ in texts:  # its part of the work
            pass
        return
    output: Path | None = arguments.output
    if output is None:
        for text in texts:
            print(text if arguments.prompt is not None else one_line(text, breaks="space"))
    elif format_of(output) == ".jsonl":
        found = list(texts)
        each = len(found) // len(lines) or 1  # one for each line, several, or one for each vector
        records = [
            {"prompt": lines[min(i // each, len(lines) - 1)], "text": text} for i, text in enumerate(found)
        ]
        write_lines(output, (json.dumps(record, ensure_ascii=False) for record in records))
    else:
        write_lines(output, texts, breaks="space")
