"""Contract 10: a checkpoint exported with its code works where hfseq is not installed.

`hfseq.hub.export` writes every case of a family into a directory; one clean interpreter in which `import hfseq` fails
and standard input is closed (a question "run custom code? [y/N]" would end it) loads them with `trust_remote_code` and
recomputes what was computed here: outputs, tokens, Trainer's label smoothing. See `exported_probe.py`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from . import caching
from .cases import Case
from .comparing import FLOAT64
from .loss import loss_by_hand
from .subprocesses import run_python
from .violation import ContractViolation, require, run_checks

TOKENS = 6
SMOOTHING = 0.2
PROBE = Path(__file__).with_name("exported_probe.py")


def contract(cases: Sequence[Case], source: str) -> None:
    """`source` is not needed here: what the subprocess loads is on the disk."""
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        for number, case in enumerate(cases):
            try:
                run_checks(
                    case, _named("export", lambda case, n=number: write(case, Path(directory, str(n))))
                )
            except ContractViolation as violation:
                failures.append(str(violation))
        try:
            run_python(
                ["-I", str(PROBE), directory], directory, seconds=600, HF_HOME=str(Path(directory, "home"))
            )
        except ContractViolation as violation:
            failures.append(str(violation))
    if failures:
        raise ContractViolation("\n".join(failures))


def _named(name: str, function):
    function.__name__ = name
    return function


def letters_tokenizer(size: int, pad: int, eos: int, mask: int | None = None) -> PreTrainedTokenizerFast:
    """Words w0 ... as ids 0 ..., just enough of a tokenizer for a tiny model."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [f"w{i}" for i in range(size)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=words[pad], eos_token=words[eos], unk_token=words[-1],
        mask_token=None if mask is None else words[mask], padding_side="left",
    )  # fmt: skip


def write(case: Case, directory: Path) -> None:
    """Exports the case and writes what the probe has to find beside it."""
    from ..hub import export

    if case.kind.generates:
        model, prompt = caching.generator_model(case, prompts=2)
    else:
        model, prompt = case.model(FLOAT64), None
    config = model.config.get_text_config()
    # One tokenizer entry fewer than ids: the surplus one is suppressed in generation.
    if case.kind.generates:
        model.generation_config.suppress_tokens = [config.vocab_size - 1]
        model.generation_config.pad_token_id = config.pad_token_id
    mask = getattr(config, "mask_token_id", None)
    tokenizer = letters_tokenizer(
        config.vocab_size - 1, config.pad_token_id or 0, config.eos_token_id or 2, mask
    )
    export(model, directory, tokenizer)

    batch = case.batch(case.rows(model.config, [5, 3]), model.config)
    expected = {f"output.{name}": value for name, value in case.outputs(model, batch).items()}
    facts = {
        "name": case.name,
        "auto_class": case.kind.auto_class,
        "class": type(model).__name__,
        "generates": case.kind.generates,
        "smoothing": SMOOTHING,
        "tokens": TOKENS,
    }
    inputs = {f"input.{name}": value for name, value in case.without_labels(batch).items()}
    if case.kind.smoothed_by_trainer:
        plain = case.model(FLOAT64, **case.plain)
        plain.load_state_dict(model.state_dict())
        expected["smoothed_loss"] = loss_by_hand(case, plain, batch, SMOOTHING)
        inputs |= {f"labelled.{name}": value for name, value in batch.items()}
        facts |= {"counted": case.kind.count_labels(batch), "plain": case.plain}
    if case.kind.generates:
        inputs |= {f"prompt.{name}": value for name, value in prompt.items()}
        expected["greedy"] = caching.generate(model, prompt, TOKENS)
        expected["beams"] = caching.generate(model, prompt, TOKENS, num_beams=3)
        require(
            not bool((expected["greedy"][:, -TOKENS:] == config.vocab_size - 1).any()),
            "a suppressed id was generated",
        )
    tensors = {name: value.detach().clone().contiguous() for name, value in {**inputs, **expected}.items()}
    save_file(tensors, directory / "expected.tensors")
    (directory / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    _require_traceless(model, directory)


def _require_traceless(model: PreTrainedModel, exported: Path) -> None:
    """The export changed neither the model nor its class, and here the installed class goes on to be used."""
    require(
        getattr(model.config, "auto_map", None) is None, "the export left an auto_map in the model's config"
    )
    require(type(model)._auto_class is None, "the export registered the class for an Auto class")
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        config = json.loads(Path(directory, "config.json").read_text(encoding="utf-8"))
        require("auto_map" not in config, "an ordinary save after the export carries an auto_map")
        code = sorted(path.name for path in Path(directory).glob("*.py"))
        require(not code, f"an ordinary save after the export copied {code}")
    facts = json.loads((exported / "facts.json").read_text(encoding="utf-8"))
    loaded = getattr(transformers, facts["auto_class"]).from_pretrained(exported, dtype=torch.float64)
    require(type(loaded) is type(model), f"with hfseq imported the export loads as {type(loaded)}")
