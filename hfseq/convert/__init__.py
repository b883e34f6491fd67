"""Published weights in, other libraries' formats out: one module per format, one line per format here.

`import_model(path, format)` gives one of our models filled with the published weights, so that every number it
computes can be held against the original; `export_model(model, directory, format)` is the way back. A format's
module states the original's layout and refuses what it cannot express, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING

from ..hints import nearest_hint
from . import arabic_name_romanizer, bert, ctranslate2, g2p_en, g2pm, marian, onnx, textgenrnn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# format -> (path, head) -> model, with `head` the name of a class where a format holds several, else None
IMPORTERS: dict[str, Callable[..., PreTrainedModel]] = {
    "arabic-name-romanizer": arabic_name_romanizer.import_model,
    "bert": bert.import_model,
    "g2p-en": g2p_en.import_model,
    "g2pm": g2pm.import_model,
    "marian": marian.import_model,
    "textgenrnn": textgenrnn.import_model,
}
# format -> (path) -> tokenizer
TOKENIZER_IMPORTERS: dict[str, Callable[..., PreTrainedTokenizerBase]] = {
    "arabic-name-romanizer": arabic_name_romanizer.import_tokenizer,
    "bert": bert.import_tokenizer,
    "g2p-en": g2p_en.import_tokenizer,
    "g2pm": g2pm.import_tokenizer,
    "marian": marian.import_tokenizer,
    "textgenrnn": textgenrnn.import_tokenizer,
}
# format -> (path) -> the tokenizer of the targets, where that is another
TARGET_TOKENIZER_IMPORTERS: dict[str, Callable[..., PreTrainedTokenizerBase]] = {
    "g2p-en": g2p_en.import_target_tokenizer,
}
# format -> (model, directory) -> None
EXPORTERS: dict[str, Callable[..., None]] = {
    "bert": bert.export_model,
    "ctranslate2": ctranslate2.export_model,
    "marian": marian.export_model,
    "onnx": onnx.export_model,
}


def import_model(path: str | PathLike[str], format: str, head: str | None = None) -> PreTrainedModel:
    """Builds one of hfseq's models from published weights.

    Args:
        path: the published file, or the directory of the package or unpacked sdist that holds it.
        format: whose layout it is; one of `IMPORTERS`.
        head: the class to fill where the format holds several, such as "ForMaskedLM"; None for its only or main one.

    Returns:
        The model in evaluation mode, in the dtype of the file.

    Raises:
        ValueError: unknown format or head, or a file that is not in this format.
        FileNotFoundError: `path` does not hold the files of the format.
        ImportError: the format needs a package that is not installed; the message gives the command.
    """
    return _choose(IMPORTERS, format, "import")(path, head)


def import_tokenizer(path: str | PathLike[str], format: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to `import_model(path, format)`; the same errors."""
    return _choose(TOKENIZER_IMPORTERS, format, "import a tokenizer from")(path)


def export_model(
    model: PreTrainedModel,
    directory: str | PathLike[str],
    format: str,
    *,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase] | None = None,
    quantization: str | None = None,
) -> None:
    """Writes `model` into `directory` in another library's format, one of `EXPORTERS`.

    Args:
        tokenizers: of source and target (twice the same, where there is one), for formats that name tokens:
            ctranslate2. They are not written.
        quantization: how numbers are stored, for ctranslate2 ("float32", "int8", ...) and onnx ("float32", "int8").

    Raises:
        ValueError: unknown format, or a model with options that the format cannot express (it names them).
        ImportError: the format needs a package that is not installed; the message gives the command.
    """
    export = _choose(EXPORTERS, format, "export to")
    if format == "ctranslate2":
        export(model, directory, *(tokenizers or ()), quantization=quantization)
    elif format == "onnx":
        export(model, directory, quantization=quantization)
    elif quantization is not None:
        raise ValueError(f"The format {format} has no quantization: ctranslate2 and onnx have.")
    else:
        export(model, directory)


def _choose(registry: dict[str, Callable], format: str, verb: str) -> Callable:
    if format in registry:
        return registry[format]
    known = ", ".join(sorted(registry))
    raise ValueError(
        f"hfseq.convert cannot {verb} the format {format!r}.{nearest_hint(format, registry)} Known formats: {known}."
    )


__all__ = [
    "EXPORTERS",
    "IMPORTERS",
    "TARGET_TOKENIZER_IMPORTERS",
    "TOKENIZER_IMPORTERS",
    "export_model",
    "import_model",
    "import_tokenizer",
]
