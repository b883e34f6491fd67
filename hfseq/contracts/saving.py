"""Contract 1: what is saved is what is loaded, every bit of it.

`from_pretrained` builds the model on the meta device, fills in the checkpoint and initialises the rest. Three things
go wrong in practice: loaded weights are initialised again (transformers#46620, an `_init_weights` that writes
`.data`), missing ones stay uninitialised memory, and ties are lost or invented.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from .cases import Case
from .comparing import FLOAT32, FLOAT64, Precision, require_close, require_same_bits
from .violation import require, run_checks


def contract(case: Case) -> None:
    run_checks(
        case,
        round_trip_in_float32,
        round_trip_in_float64,
        loading_in_another_dtype,
        nothing_but_safetensors,
        meta_device,
        missing_weights_are_initialised,
        fresh_weights_depend_on_the_seed_alone,
        ties,
        base_and_head_exchange_weights,
        generation_config_survives,
    )


def auto_class(case: Case):
    return getattr(transformers, case.kind.auto_class)


def tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Parameters and buffers, those that are not saved included."""
    return {
        **{name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)},
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _require_same_tensors(what: str, got: PreTrainedModel, expected: PreTrainedModel, but: str = "") -> None:
    """Every bit of what is saved; what is computed anew when loading may keep a dtype of its own.

    Args:
        but: a word in the names of weights that one of the two may have alone.
    """
    got, reference, saved = tensors(got), tensors(expected), expected.state_dict().keys()
    if but:
        alone = {name for name in got.keys() ^ reference.keys() if but in name}
        got, reference = ({n: t for n, t in some.items() if n not in alone} for some in (got, reference))
    computed = reference.keys() - saved
    for name in computed & got.keys():
        require_close(f"{what}: {name}", got[name], reference[name], 1e-6)
    require_same_bits(
        what,
        {name: value for name, value in got.items() if name not in computed},
        {name: value for name, value in reference.items() if name not in computed},
    )


def _round_trip(case: Case, precision: Precision) -> None:
    model = case.model(precision)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        loaded = auto_class(case).from_pretrained(directory)
    require(
        type(loaded) is type(model), f"loaded a {type(loaded).__name__} instead of a {type(model).__name__}"
    )
    require(not loaded.training, "a loaded model must be in evaluation mode")
    _require_same_tensors("loaded weights", loaded, model)
    for name, value in model.config.to_diff_dict().items():
        got = loaded.config.to_dict().get(name)
        if name not in ("transformers_version", "_name_or_path", "architectures"):
            require(got == value, f"config.{name} was {value!r} and came back as {got!r}")
    batch = case.batch(case.rows(model.config, [5, 3]), model.config)
    expected = case.outputs(model, batch)
    for name, value in case.outputs(loaded, batch).items():
        # Not every bit: loaded weights are aligned otherwise in memory, and BLAS then adds in another order.
        require_close(f"{name} of the loaded model", value, expected[name], precision.tolerance)


def round_trip_in_float32(case: Case) -> None:
    _round_trip(case, FLOAT32)


def round_trip_in_float64(case: Case) -> None:
    _round_trip(case, FLOAT64)


def loading_in_another_dtype(case: Case) -> None:
    model = case.model(FLOAT32)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        loaded = auto_class(case).from_pretrained(directory, dtype=torch.bfloat16)
    expected = {name: p.to(torch.bfloat16) for name, p in model.named_parameters() if p.requires_grad}
    got = {name: p for name, p in loaded.named_parameters() if name in expected}
    require_same_bits("weights loaded in bfloat16", got, expected)


def nothing_but_safetensors(case: Case) -> None:
    """No pickles; no `auto_map` without the code that it points to, even after loading an exported checkpoint."""
    model = case.model(FLOAT32)
    if case.family != "stranger":  # transformers' own classes would write what follows
        model.config.auto_map = {case.kind.auto_class: f"modeling.{type(model).__name__}"}
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        files = sorted(path.name for path in Path(directory).iterdir())
        pickles = [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
        require(not pickles, f"pickled weights: {pickles}")
        config = json.loads(Path(directory, "config.json").read_text(encoding="utf-8"))
        code = {path.stem for path in Path(directory).glob("*.py")}
        for name, target in config.get("auto_map", {}).items():
            module = target.split("--")[-1].split(".")[0]
            require(module in code, f"config.json maps {name} to {target}, and {module}.py is not there")


def meta_device(case: Case) -> None:
    with torch.device("meta"):
        model = case.model_class(case.config())
    real = [name for name, tensor in tensors(model).items() if tensor.device.type != "meta"]
    require(not real, f"built on the meta device, yet these hold memory: {real}")
    with tempfile.TemporaryDirectory() as directory:
        case.model(FLOAT32).save_pretrained(directory)
        loaded = auto_class(case).from_pretrained(directory)
    left = [name for name, tensor in tensors(loaded).items() if tensor.device.type == "meta"]
    require(not left, f"still on the meta device after loading: {left}")


def missing_weights_are_initialised(case: Case) -> None:
    """Every second tensor is left out of the checkpoint, then every other one."""
    config = case.config()
    fresh = case.model_class(config)
    with tempfile.TemporaryDirectory() as directory:
        model = case.model(FLOAT32)
        model.save_pretrained(directory)
        path = Path(directory, "model.safetensors")
        everything = load_file(path)
        own = _names_in_model(everything, model)
        for parity in (0, 1):
            kept = {name: t for i, (name, t) in enumerate(sorted(everything.items())) if i % 2 == parity}
            save_file(kept, path, metadata={"format": "pt"})
            loaded = auto_class(case).from_pretrained(directory)
            state = loaded.state_dict()
            require_same_bits(
                "a checkpoint that lacks half of the weights", {n: state[own[n]] for n in kept}, kept
            )
            for name in everything.keys() - kept.keys():
                _require_alike(name, state[own[name]], fresh.state_dict()[own[name]])


def _names_in_model(saved: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, str]:
    """{name in the file: name in the model}: transformers writes some weights under names that they had once, as
    GPT-NeoX's lm_head as embed_out (5.23)."""
    state = model.state_dict()
    found = {name: name for name in saved if name in state}
    left = [name for name in state if name not in found]
    for name in saved.keys() - found.keys():
        same = [n for n in left if n not in found.values() and torch.equal(state[n], saved[name])]
        require(bool(same), f"{name} was saved, and is no weight of the model")
        found[name] = same[0]
    return found


def _require_alike(name: str, loaded: torch.Tensor, fresh: torch.Tensor) -> None:
    """Whether two tensors look drawn from the same distribution: far from what uninitialised memory looks like."""
    require(bool(torch.isfinite(loaded).all()), f"{name}, missing in the checkpoint, was not initialised")
    if fresh.numel() == 1 or fresh.min() == fresh.max():
        require_same_bits(
            f"{name}, missing in the checkpoint, against a fresh model's", {"": loaded}, {"": fresh}
        )
        return
    ratio = float(loaded.std() / fresh.std())
    require(
        0.4 < ratio < 2.5,
        f"{name}, missing in the checkpoint, has {ratio:.2g} times the standard deviation of a fresh model's",
    )


def fresh_weights_depend_on_the_seed_alone(case: Case) -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(tensors(case.model_class(case.config())))
    require_same_bits("two models built with one seed", models[1], models[0])
    require(
        any(not torch.equal(value, models[2][name]) for name, value in models[0].items()),
        "models built with different seeds are the same",
    )


def ties(case: Case) -> None:
    """Tied where the config says so and nowhere else, before and after a round trip."""
    model = case.model(FLOAT32)
    declared = dict(getattr(model, "_tied_weights_keys", None) or {})
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        loaded = auto_class(case).from_pretrained(directory)
        saved = load_file(Path(directory, "model.safetensors"))
    asked = bool(getattr(model.config, "tie_word_embeddings", False))
    for when, candidate in (("built", model), ("loaded", loaded)):
        found = dict(candidate.named_parameters(remove_duplicate=False))
        for target, source in declared.items():
            if target not in found or source not in found:
                continue  # a pattern rather than a name
            tied = found[target] is found[source]
            require(
                tied == asked, f"{when}: {target} is {'' if tied else 'not '}tied to {source}, asked: {asked}"
            )
        shared = len(found) - len(dict(candidate.named_parameters()))
        require(asked or shared == 0, f"{when}: {shared} parameters are shared although no tie was asked for")
    if declared and asked:
        twice = [t for t, s in declared.items() if t in saved and s in saved]
        require(not twice, f"tied weights were saved twice: {twice}")


def base_and_head_exchange_weights(case: Case) -> None:
    """A base checkpoint loads into the head and a head's into the base, each bit of what they share."""
    head = case.model(FLOAT32)
    prefix = head.base_model_prefix
    if not prefix or head.base_model is head:
        return
    base = head.base_model
    with tempfile.TemporaryDirectory() as directory:
        head.save_pretrained(directory)
        loaded = type(base).from_pretrained(directory)
        # Only some heads have BERT's pooler, and a bare model has it or has it not.
        _require_same_tensors("the head's checkpoint in the base class", loaded, base, but="pooler")
    with tempfile.TemporaryDirectory() as directory:
        base.save_pretrained(directory)
        loaded = auto_class(case).from_pretrained(directory)
        _require_same_tensors("the base checkpoint in the head", loaded.base_model, base)


def generation_config_survives(case: Case) -> None:
    if not case.kind.generates:
        return
    model = case.model(FLOAT32)
    model.generation_config.suppress_tokens = [3, 5]
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        loaded = auto_class(case).from_pretrained(directory)
    found = loaded.generation_config.suppress_tokens
    require(found == [3, 5], f"generation_config.suppress_tokens [3, 5] came back as {found}")
