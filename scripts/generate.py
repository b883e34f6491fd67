"""Generates text with a trained model: continues it with a language model, translates it with an encoder-decoder.

    python scripts/generate.py outputs/lstm-kjv --prompt "In the beginning"
    python scripts/generate.py outputs/lstm-kjv --num_beams 4 --do_sample false < prompts.txt
    python scripts/generate.py outputs/transformer-multi30k-en-de --input test.en --output test.de --num_beams 5
    python scripts/generate.py outputs/transformer-multi30k-en-de --prompt "Two men walk." --plot_attention maps.png
    python scripts/generate.py outputs/pervasive-multi30k-en-de --prompt "Two men walk." --plot_attention maps.png \\
        --beside outputs/transformer-multi30k-en-de
    python scripts/generate.py outputs/lstm-colours --features "0.75 0.31 0.00"

One line in, one line out (or --num_return_sequences of them), in order. A blank line is translated to an empty one;
a language model begins a text of its own there. A model that begins with a vector takes one vector for each line, or
one for all; --features alone begins a text from each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, set_seed

import hfseq  # noqa: F401  (registers the model classes)
from hfseq.data import load_pair_tokenizers
from hfseq.data.files import lines_of
from hfseq.training.features import parse_vector

# Of a language model; a translation is what the model's own generation_config says.
DEFAULTS = {"max_new_tokens": 60, "do_sample": True, "temperature": 0.7, "top_p": 0.9}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Any argument of generate() may follow: --num_beams 4 --do_sample false --length_penalty 1.2",
    )
    parser.add_argument("model", help="a checkpoint directory or a Hub id")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--prompt", help="the text; without it, --input and --features, lines are read from standard input"
    )
    source.add_argument("--input", type=Path, help="a file, one text per line, also .gz")
    parser.add_argument(
        "--features",
        metavar="VECTOR_OR_FILE",
        help="for a model with feature_size: the numbers that the text begins with, or a file of them, a vector a line",
    )
    parser.add_argument("--output", type=Path, help="write to this file in place of standard output")
    parser.add_argument("--batch_size", type=int, default=32, help="texts decoded together")
    parser.add_argument(
        "--batch_tokens",
        type=int,
        default=4096,
        help="for translation: source tokens times beams decoded together",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--plot_attention", "--plot-attention", type=Path, metavar="FILE.png",
        help="for translation: draw the attention of every layer and head for one sentence",
    )  # fmt: skip
    parser.add_argument(
        "--beside", nargs="+", default=[], metavar="MODEL",
        help="with --plot_attention: one panel for each of these models too, for the same translation",
    )  # fmt: skip
    parser.add_argument(
        "--plotted", default="cross", choices=("cross", "encoder", "decoder"), help="which attention that is"
    )
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the Hub repository"
    )
    arguments, rest = parser.parse_known_args()
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        parser.error(f"expected --option value pairs for generate(), found: {' '.join(rest)}")
    options = {name[2:]: yaml.safe_load(value) for name, value in zip(rest[::2], rest[1::2], strict=True)}
    for name in ("batch_size", "batch_tokens"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(arguments, name)}")

    remote = {"trust_remote_code": arguments.trust_remote_code}
    try:
        lines = read_lines(arguments)
        if not any(lines) and arguments.features is None:
            parser.error(
                "nothing to continue or translate: give --prompt TEXT, --input FILE, or lines on standard input"
            )
        config = AutoConfig.from_pretrained(arguments.model, **remote)
        if arguments.plot_attention and not config.is_encoder_decoder:
            parser.error(f"--plot_attention is for encoder-decoders, but this is {config.model_type}")
        if arguments.plot_attention and sum(map(bool, lines)) > 1:
            parser.error("--plot_attention draws one sentence: give it by --prompt")
        if arguments.beside and not arguments.plot_attention:
            parser.error("--beside draws other models' attention too: it needs --plot_attention FILE.png")
        if arguments.beside and arguments.plotted != "cross":
            parser.error("--beside compares where models look in the source: leave --plotted out")
        if arguments.features is not None and not getattr(config, "feature_size", 0):
            parser.error(
                f"--features is for models with a feature_size, but this {config.model_type} has none"
            )
        if arguments.features is None and getattr(config, "feature_size", 0):
            parser.error(
                f"this model begins every text with a vector of {config.feature_size} numbers: give --features"
            )
        set_seed(arguments.seed)
        generate = translations if config.is_encoder_decoder else continuations
        write_lines(arguments.output, generate(arguments, lines, options, remote))
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


def continuations(
    arguments: argparse.Namespace, prompts: list[str], options: dict, remote: dict
) -> Iterator[str]:
    """Each prompt and what a language model makes of it."""
    options = {**DEFAULTS, **options}
    if not options["do_sample"]:
        options = {k: v for k, v in options.items() if k not in ("temperature", "top_p")}
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, padding_side="left", **remote)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, **remote).to(arguments.device).eval()
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
    for batch in by_length(prompts, arguments.batch_size):
        # An empty line starts a text: the end-of-document token stands before every document.
        batch_prompts = [prompts[i] or tokenizer.eos_token for i in batch]
        inputs = tokenizer(batch_prompts, return_tensors="pt", padding=True).to(arguments.device)
        if vectors:
            features = torch.tensor([vectors[i] for i in batch], dtype=model.dtype, device=arguments.device)
            inputs["features"] = features
        ids = model.generate(**inputs, **options).unflatten(0, (len(batch), -1))  # [batch, returns, longest]
        for i, of_prompt in zip(batch, ids, strict=True):
            texts[i] = tokenizer.batch_decode(of_prompt, skip_special_tokens=True)
    for i in range(len(prompts)):
        yield from texts[i]


def translations(
    arguments: argparse.Namespace, lines: list[str], options: dict, remote: dict
) -> Iterator[str]:
    """Each line in the other language; with --plot_attention also a picture."""
    from hfseq.attention_maps import attention_maps
    from hfseq.pipelines import TranslationPipeline
    from hfseq.plots import plot_attention
    from hfseq.training import translate

    tokenizer, target_tokenizer = load_pair_tokenizers(arguments.model, **remote)
    model = AutoModelForSeq2SeqLM.from_pretrained(arguments.model, **remote).to(arguments.device).eval()
    tokenizers = {"tokenizer": tokenizer, "target_tokenizer": target_tokenizer}
    texts: dict[int, list[str]] = {}
    if options.get("num_return_sequences", 1) == 1:
        shown = {"batch_tokens": arguments.batch_tokens, "progress": len(lines) > 1 and sys.stderr.isatty()}
        for i, text in enumerate(translate(model, sources=lines, **tokenizers, **shown, **options)):
            texts[i] = [text]
    else:
        several = TranslationPipeline(model, device=torch.device(arguments.device), **tokenizers)
        for batch in by_length(lines, arguments.batch_size):
            for i, of_line in zip(
                batch, several([lines[i] for i in batch], batch_size=len(batch), **options), strict=True
            ):
                texts[i] = [translation["translation_text"] for translation in of_line]
    if arguments.plot_attention:
        options = {name: value for name, value in options.items() if name != "num_return_sequences"}
        number = next(i for i, line in enumerate(lines) if line)
        if arguments.beside:
            picture = draw_side_by_side(arguments, lines[number], texts[number][0], remote)
        else:
            maps = attention_maps(
                model, source=lines[number], kind=arguments.plotted, **tokenizers, **options
            )
            picture = plot_attention(maps, arguments.plot_attention)
        print(f"attention drawn to {picture}", file=sys.stderr)
    for i in range(len(lines)):
        yield from (" ".join(text.split("\n")) for text in texts[i])


def draw_side_by_side(arguments: argparse.Namespace, source: str, target: str, remote: dict) -> Path:
    """Where each model looks in the source for one translation, that of the first."""
    from hfseq.attention_maps import attention_maps
    from hfseq.plots import plot_side_by_side

    panels = {}
    for name in [arguments.model, *arguments.beside]:
        tokenizer, target_tokenizer = load_pair_tokenizers(name, **remote)
        model = AutoModelForSeq2SeqLM.from_pretrained(name, **remote).to(arguments.device).eval()
        panels[Path(name).name] = attention_maps(
            model, tokenizer, source, target=target, target_tokenizer=target_tokenizer
        )
    return plot_side_by_side(panels, arguments.plot_attention)


def by_length(texts: list[str], size: int) -> Iterator[list[int]]:
    """Numbers of the texts, those of similar length together, with a progress bar."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    yield from tqdm(batches, disable=len(batches) == 1 or not sys.stderr.isatty())


def read_lines(arguments: argparse.Namespace) -> list[str]:
    """The texts, without line ends; what is only white space is empty."""
    if arguments.prompt is not None:
        lines = [arguments.prompt]
    elif arguments.input is not None:
        lines = [line for _, line in lines_of(arguments.input)]
    elif arguments.features is not None:
        lines = [""]
    else:
        lines = list(sys.stdin)
    return [line.rstrip("\r\n") if line.strip() else "" for line in lines]


def read_vectors(given: str, size: int) -> list[list[float]]:
    """One vector from its numbers, or those of a file, one a line; each refused by its line if it has not `size`
    finite numbers."""
    if not Path(given).is_file():
        return [parse_vector(given, size)]
    vectors = []
    for number, line in lines_of(Path(given)):
        try:
            vectors.append(parse_vector(line, size))
        except ValueError as error:
            raise ValueError(f"{given}, line {number}: {error}") from error
    return vectors


def write_lines(path: Path | None, lines: Iterator[str]) -> None:
    """To a file, which appears when all is done, or to standard output."""
    if path is None:
        for line in lines:
            print(line)
        return
    text = "".join(f"{line}\n" for line in lines)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
