"""Continues text with a trained language model: one prompt, or each line of standard input, in order.

python scripts/generate.py outputs/lstm-kjv --prompt "In the beginning"
python scripts/generate.py outputs/lstm-kjv --num_beams 4 --do_sample false < prompts.txt
"""

from __future__ import annotations

import argparse
import sys

import yaml
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

import hfseq  # noqa: F401  (registers the model classes)

DEFAULTS = {"max_new_tokens": 60, "do_sample": True, "temperature": 0.7, "top_p": 0.9}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Any argument of generate() may follow: --num_beams 4 --do_sample false --repetition_penalty 1.2",
    )
    parser.add_argument("model", help="a checkpoint directory or a Hub id")
    parser.add_argument(
        "--prompt", help="the text to continue; without it, lines are read from standard input"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="prompts decoded together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the Hub repository"
    )
    arguments, rest = parser.parse_known_args()
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        parser.error(f"expected --option value pairs for generate(), found: {' '.join(rest)}")
    options = {name[2:]: yaml.safe_load(value) for name, value in zip(rest[::2], rest[1::2], strict=True)}
    options = {**DEFAULTS, **options}
    if not options["do_sample"]:
        options = {k: v for k, v in options.items() if k not in ("temperature", "top_p")}

    if arguments.prompt is not None:
        prompts = [arguments.prompt]
    else:
        prompts = [line.rstrip("\n") for line in sys.stdin]
    if not any(prompts):
        parser.error("nothing to continue: give --prompt TEXT, or lines on standard input")

    remote = {"trust_remote_code": arguments.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, padding_side="left", **remote)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, **remote).to(arguments.device).eval()
    set_seed(arguments.seed)
    texts: dict[int, str] = {}
    # Prompts of similar length together; the output keeps the input's order.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = [order[i : i + arguments.batch_size] for i in range(0, len(order), arguments.batch_size)]
    for batch in tqdm(batches, disable=len(batches) == 1 or not sys.stderr.isatty()):
        # An empty line starts a text: the end-of-document token stands before every document.
        batch_prompts = [prompts[i] or tokenizer.eos_token for i in batch]
        inputs = tokenizer(batch_prompts, return_tensors="pt", padding=True).to(arguments.device)
        ids = model.generate(**inputs, **options)
        for i, text in zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            texts[i] = text
    for i in range(len(prompts)):
        print(texts[i])


if __name__ == "__main__":
    main()
