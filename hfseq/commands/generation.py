"""Options of `generate()` as words of a command line: `--num_beams 4 --do_sample false --stop_strings "."`.

`generate()` refuses little of what it is given: `top_p: 2`, `do_sample: maybe` or a length penalty that is not a number
change what comes out without a word, others end deep inside it. So each option has a kind here, and what is none of its
values is refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import yaml
from transformers import GenerationConfig

from hfseq.hints import nearest_hint

# The least whole number that an option may be.
COUNTS = {
    "num_beams": 1, "num_return_sequences": 1, "max_new_tokens": 1, "max_length": 1, "min_new_tokens": 0,
    "min_length": 0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "top_k": 0,
    "prompt_lookup_num_tokens": 1, "max_matching_ngram_size": 1, "forced_bos_token_id": 0, "pad_token_id": 0,
    "bos_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
# (above, at most) of a number.
NUMBERS = {
    "temperature": (0, math.inf), "repetition_penalty": (0, math.inf), "encoder_repetition_penalty": (0, math.inf),
    "length_penalty": (-math.inf, math.inf), "max_time": (0, math.inf), "top_p": (0, 1), "min_p": (0, 1),
    "top_h": (0, 1), "typical_p": (0, 1), "epsilon_cutoff": (0, 1), "eta_cutoff": (0, 1),
    "guidance_scale": (-math.inf, math.inf),
}  # fmt: skip
FLAGS = ("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values")
# An id, or a list of them.
IDS = ("eos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
# Texts, which YAML would read as numbers, lists or nothing ("---", "7", a line break).
TEXTS = ("stop_strings",)
# What their own code checks well.
OTHERS = ("early_stopping", "bad_words_ids", "exponential_decay_length_penalty", "sequence_bias")
KNOWN = (*COUNTS, *NUMBERS, *FLAGS, *IDS, *TEXTS, *OTHERS)
# Two words for one thing, of which one would be ignored.
EITHER = (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length"))


def generate_options(words: list[str]) -> dict[str, Any]:
    """{name: value} from `--name value` or `--name=value`, the values in YAML.

    Raises:
        ValueError: an unknown option (the nearest is named), a value that is none of its kind, two that exclude each
            other.
    """
    options: dict[str, Any] = {}
    words = list(words)
    while words:
        name, has_value, text = words.pop(0).partition("=")
        if not name.startswith("--") or not (has_value or words):
            raise ValueError(
                f"expected --option value pairs for generate(), found: {name} {' '.join(words)}".rstrip()
            )
        text = text if has_value else words.pop(0)
        name = name[2:].replace("-", "_")
        options[name] = _value(name, text)
    for one, other in EITHER:
        if one in options and other in options:
            raise ValueError(f"--{one} and --{other} say the same in two ways: give one of them")
    for least, most in (("min_new_tokens", "max_new_tokens"), ("min_length", "max_length")):
        if least in options and most in options and options[least] > options[most]:
            raise ValueError(f"--{least} {options[least]} is more than --{most} {options[most]}")
    beams, returned = options.get("num_beams", 1), options.get("num_return_sequences", 1)
    if "num_beams" in options and returned > beams > 1:
        raise ValueError(f"--num_return_sequences {returned} is more than --num_beams {beams}")
    return options


def _value(name: str, text: str) -> Any:
    if name not in KNOWN:
        if name in vars(GenerationConfig()):
            raise ValueError(
                f"--{name} is an option of generate() that a command line cannot give: leave it out"
            )
        raise ValueError(
            f"--{name} is no option of this command or of generate().{nearest_hint(name, KNOWN)}"
        )
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if name not in TEXTS:
            raise ValueError(f"--{name} {text!r:.60} is no value in YAML: {error}") from error
        value = None
    if name in TEXTS:
        texts = [str(part) for part in value] if isinstance(value, list) else text
        if not texts or not all(texts):
            raise ValueError(f"--{name} is empty: no text ends with nothing")
        return texts
    checks: list[tuple[Any, Callable[[Any], bool], str]] = [
        (COUNTS, lambda v: _is_count(v, COUNTS[name]), f"a whole number of at least {COUNTS.get(name)}"),
        (NUMBERS, lambda v: _is_number(v, *NUMBERS[name]), f"a number{_range(name)}"),
        (FLAGS, lambda v: isinstance(v, bool), "true or false"),
        (IDS, _are_ids, "an id, or a list of ids such as [5, 7]"),
    ]
    for names, fits, kind in checks:
        if name in names and not fits(value):
            raise ValueError(f"--{name} must be {kind}, not {text!r:.60}")
    return value


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _is_number(value: Any, above: float, most: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and above < value <= most


def _are_ids(value: Any) -> bool:
    return all(_is_count(part, 0) for part in (value if isinstance(value, list) else [value]))


def _range(name: str) -> str:
    above, most = NUMBERS.get(name, (-math.inf, math.inf))
    said = [f"above {above:g}"] if math.isfinite(above) else []
    said += [f"at most {most:g}"] if math.isfinite(most) else []
    return "".join(f" {part}" for part in [" and ".join(said)] if part)


__all__ = ["generate_options"]
