"""Loads exported checkpoints where hfseq cannot be imported, and compares; run by `exporting.py`, never imported.

Usage: python -I exported_probe.py DIRECTORY   (one exported checkpoint in each subdirectory that has a facts.json)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.modules["hfseq"] = None  # an installed hfseq must not help: `import hfseq` now raises

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class MismatchError(Exception):
    """The exported model computes something else."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise MismatchError(message)


def require_close(what: str, got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    difference = float((got.detach() - expected).abs().max())
    scale = float(expected.abs().max())
    require(difference <= tolerance * scale, f"{what} differs by {difference:.3e} of {scale:.3g}")


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def probe(directory: Path, scratch: Path) -> None:
    facts = json.loads((directory / "facts.json").read_text(encoding="utf-8"))
    tensors = load_file(directory / "expected.tensors")
    auto = getattr(transformers, facts["auto_class"])
    trusted = {"trust_remote_code": True}

    config = transformers.AutoConfig.from_pretrained(directory, **trusted)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **trusted)
    require(tokenizer("w3 w5")["input_ids"] == [3, 5], "the tokenizer does not read 'w3 w5'")
    model = auto.from_pretrained(directory, dtype=torch.float64, **trusted)
    require(type(model).__name__ == facts["class"], f"loaded a {type(model).__name__}")
    require(
        type(model).__module__.startswith("transformers_modules"), f"loaded from {type(model).__module__}"
    )
    compare_outputs(model, tensors)

    # Every head of the family, whichever was saved; two of them may have a classifier of one name, not of one size.
    other = {"ignore_mismatched_sizes": True, **trusted}
    for name, reference in config.auto_map.items():
        if name != "AutoConfig":
            head = getattr(transformers, name).from_pretrained(directory, **other)
            wanted = reference.split(".")[-1]
            require(type(head).__name__ == wanted, f"{name} loaded a {type(head).__name__}, not {wanted}")

    if "smoothed_loss" in tensors:
        # Without auxiliary terms of the loss, which Trainer's smoothing does not know.
        plain = auto.from_pretrained(directory, dtype=torch.float64, **facts["plain"], **trusted)
        compare_smoothing(plain, tensors, facts, scratch)
    if facts["generates"]:
        compare_generation(model, tensors, facts)
    # A bare encoder-decoder has no features of a text alone: it needs a target too, and a vector may be needed as well.
    from_text = not model.config.is_encoder_decoder and "input.features" not in tensors
    if facts["auto_class"] in PIPELINES and from_text:
        task, check = PIPELINES[facts["auto_class"]]
        # By name: a pipeline finds code, class and tokenizer itself.
        check(transformers.pipeline(task, model=str(directory), **trusted), model, tokenizer)

    # Saved again, it still carries its code and still works.
    again = scratch / f"again-{directory.name}"
    model.eval().save_pretrained(again)
    saved = json.loads((again / "config.json").read_text(encoding="utf-8"))
    files = {path.stem for path in again.glob("*.py")}
    missing = {target.split(".")[0] for target in saved.get("auto_map", {}).values()} - files
    require(not missing, f"saved again, its auto_map points to {sorted(missing)}, which are not there")
    if saved.get("auto_map"):
        compare_outputs(auto.from_pretrained(again, dtype=torch.float64, **trusted), tensors)


def check_generation_pipeline(pipe, model, tokenizer) -> None:
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "return_full_text": False}
    text = pipe("w5 w6 w7", **options)[0]["generated_text"]
    require(len(text.split()) > 0, "the text-generation pipeline generated nothing")


def answers(model, tokenizer, text: str) -> torch.Tensor:
    """The first output of the model for one text."""
    with torch.no_grad():
        return model.eval()(**tokenizer(text, return_tensors="pt"))[0][0]


def check_mask_pipeline(pipe, model, tokenizer) -> None:
    text = f"w5 w6 {tokenizer.mask_token} w7"
    best, got = int(answers(model, tokenizer, text)[2].argmax()), pipe(text)[0]["token"]
    require(got == best, f"the fill-mask pipeline found token {got} instead of {best}")


def check_text_pipeline(pipe, model, tokenizer) -> None:
    best = model.config.id2label[int(answers(model, tokenizer, "w5 w6 w7").argmax())]
    got = pipe("w5 w6 w7")[0]["label"]
    require(got == best, f"the text-classification pipeline found {got} instead of {best}")


def check_token_pipeline(pipe, model, tokenizer) -> None:
    best = [model.config.id2label[int(i)] for i in answers(model, tokenizer, "w5 w6 w7").argmax(-1)]
    got = [word["entity"] for word in pipe("w5 w6 w7", ignore_labels=[])]
    require(got == best, f"the token-classification pipeline found {got} instead of {best}")


def check_feature_pipeline(pipe, model, tokenizer) -> None:
    got = torch.tensor(pipe("w5 w6 w7")[0], dtype=torch.float64)
    require_close("the feature-extraction pipeline", got, answers(model, tokenizer, "w5 w6 w7"), 1e-4)


# Auto class -> (task, check of its pipeline), where transformers has one.
PIPELINES = {
    "AutoModel": ("feature-extraction", check_feature_pipeline),
    "AutoModelForCausalLM": ("text-generation", check_generation_pipeline),
    "AutoModelForMaskedLM": ("fill-mask", check_mask_pipeline),
    "AutoModelForSequenceClassification": ("text-classification", check_text_pipeline),
    "AutoModelForTokenClassification": ("token-classification", check_token_pipeline),
}


def compare_outputs(model, tensors) -> None:
    with torch.no_grad():
        result = model.eval()(**part(tensors, "input."))
    for name, expected in part(tensors, "output.").items():
        require_close(name, result[name], expected)


def compare_smoothing(model, tensors, facts, scratch: Path) -> None:
    """Trainer shifts labels only for class names that it knows: the exported code must have told it."""
    arguments = transformers.TrainingArguments(
        output_dir=str(scratch), use_cpu=True, report_to="none", label_smoothing_factor=facts["smoothing"]
    )
    trainer = transformers.Trainer(model=model, args=arguments)
    loss = trainer.compute_loss(
        model.train(), part(tensors, "labelled."), num_items_in_batch=torch.tensor(facts["counted"])
    )
    # Trainer sums over the vocabulary in float32.
    require_close("Trainer's smoothed loss", loss, tensors["smoothed_loss"], 1e-6)


def compare_generation(model, tensors, facts) -> None:
    prompt = part(tensors, "prompt.")
    options = {"max_new_tokens": facts["tokens"], "min_new_tokens": facts["tokens"], "do_sample": False}
    for name, extra in (("greedy", {}), ("beams", {"num_beams": 3})):
        with torch.no_grad():
            tokens = model.eval().generate(**prompt, **options, **extra)
        require(
            torch.equal(tokens, tensors[name]),
            f"{name}: {tokens.tolist()} instead of {tensors[name].tolist()}",
        )


def main(directory: str) -> int:
    try:
        import hfseq  # noqa: F401
    except ImportError:
        pass
    else:
        print("hfseq can be imported: this interpreter is not clean")
        return 1
    failed = 0
    root = Path(directory)
    directories = sorted(path.parent for path in root.glob("*/facts.json"))
    if not directories:
        print(f"{directory} holds no exported checkpoints")
        return 1
    for path in directories:
        name = json.loads((path / "facts.json").read_text(encoding="utf-8"))["name"]
        try:
            probe(path, root)
        except Exception as error:  # noqa: BLE001  anything at all is what the contract wants to know
            import traceback

            frame = traceback.extract_tb(error.__traceback__)[-1]
            print(f"{name}: {type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})")
            failed += 1
    try:
        transformers.AutoConfig.from_pretrained(directories[0])
    except (ValueError, OSError):
        pass  # refused, without waiting for an answer
    else:
        print("an exported checkpoint loaded its code without trust_remote_code")
        failed += 1
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
