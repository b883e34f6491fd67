"""BERT checkpoints of transformers, in both directions, for every head that both sides have.

The two models compute the same function under other parameter names; `_RULES` is the whole translation. Reading it from
left to right imports, from right to left exports. BERT keeps the masked-LM bias twice (`cls.predictions.bias` and
`cls.predictions.decoder.bias`, tied); ours is one parameter.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..data.tables import read_json
from ..models import AUTO_CLASSES
from ..models.configuration_encoder import EncoderConfig
from ..models.modeling_encoder import PooledClassifier
from .tensor_files import read_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# BERT's name -> ours. {n} is a layer's number; every other part is literal and ends in .weight or .bias.
_RULES = {
    "bert.embeddings.word_embeddings": "model.embed_tokens",
    "bert.embeddings.position_embeddings": "model.embed_positions",
    "bert.embeddings.token_type_embeddings": "model.embed_types",
    "bert.embeddings.LayerNorm": "model.embed_norm",
    "bert.encoder.layer.{n}.attention.self.query": "model.layers.{n}.attention.q_proj",
    "bert.encoder.layer.{n}.attention.self.key": "model.layers.{n}.attention.k_proj",
    "bert.encoder.layer.{n}.attention.self.value": "model.layers.{n}.attention.v_proj",
    "bert.encoder.layer.{n}.attention.output.dense": "model.layers.{n}.attention.o_proj",
    "bert.encoder.layer.{n}.attention.output.LayerNorm": "model.layers.{n}.attention_norm",
    "bert.encoder.layer.{n}.intermediate.dense": "model.layers.{n}.mlp.up_proj",
    "bert.encoder.layer.{n}.output.dense": "model.layers.{n}.mlp.down_proj",
    "bert.encoder.layer.{n}.output.LayerNorm": "model.layers.{n}.mlp_norm",
    "bert.pooler.dense": "model.pooler.dense",
    "cls.predictions.transform.dense": "transform.dense",
    "cls.predictions.transform.LayerNorm": "transform.norm",
    "cls.predictions.decoder": "lm_head",
    "cls.seq_relationship": "next_sentence",
    "classifier": "classifier",
    "qa_outputs": "qa_outputs",
}
# Old checkpoints, converted from TensorFlow, name the parts of a norm so.
_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
# What is behind "Bert" and "Encoder" in the names of the classes -> ours.
HEADS = {
    model_class.__name__.removeprefix("Encoder"): model_class
    for model_class in AUTO_CLASSES[EncoderConfig].values()
}
# Fields that both configs have under one name.
_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "tie_word_embeddings",
    "problem_type",
    "id2label",
    "label2id",
)


def import_model(path: str | PathLike[str], head: str | None = None) -> PreTrainedModel:
    """Fills an encoder from a BERT checkpoint directory; see `hfseq.convert.import_model` for arguments and errors.

    Args:
        path: a directory with config.json and model.safetensors or pytorch_model.bin.
        head: one of `HEADS`; None: the one the checkpoint was saved with, by its config or by its parameters.
    """
    path = Path(path)
    fields = _read_config(path)
    weights = _read_weights(path)
    head = _head(fields, weights, head, path)
    renamed = _to_ours(weights)

    known = {name: fields[name] for name in _FIELDS if name in fields}
    classifier = renamed.get("classifier.weight")
    if (
        classifier is not None
        and head != "ForMultipleChoice"
        and len(fields.get("id2label", ())) != len(classifier)
    ):
        # Old files name two labels, however many there are.
        known |= {"id2label": None, "label2id": None, "num_labels": len(classifier)}
    config = EncoderConfig(**known, mask_token_id=None)
    output, embedding = renamed.get("lm_head.weight"), renamed["model.embed_tokens.weight"]
    config.tie_word_embeddings = output is None or torch.equal(output, embedding)
    config.pooler = head == "Model" and "model.pooler.dense.weight" in renamed
    config.dtype = embedding.dtype
    model = HEADS[head](config).to(embedding.dtype)

    expected = model.state_dict()
    if config.tie_word_embeddings and "lm_head.weight" in expected:
        renamed["lm_head.weight"] = embedding
    prefix = "model." if head == "Model" else ""
    given = {
        name.removeprefix(prefix): tensor
        for name, tensor in renamed.items()
        if name.removeprefix(prefix) in expected
    }
    missing = sorted(expected.keys() - given.keys())
    if missing:
        raise ValueError(
            f"{path} lacks {missing[0]}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}, which "
            f"Encoder{head} needs: it was saved as {', '.join(fields.get('architectures') or ['something else'])}. "
            f"Choose another head of {', '.join(HEADS)}."
        )
    wrong = [name for name in given if given[name].shape != expected[name].shape]
    if wrong:
        raise ValueError(
            f"{path}: {wrong[0]} has shape {list(given[wrong[0]].shape)}, by config.json it should have "
            f"{list(expected[wrong[0]].shape)}: the files belong to different models."
        )
    model.load_state_dict(given)
    model.tie_weights()
    return model.eval()


def import_tokenizer(path: str | PathLike[str]) -> PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer.

    Raises:
        FileNotFoundError: the directory has neither tokenizer.json nor tokenizer_config.json. A bare vocab.txt does not
            say how the text is cut into words, so it is not guessed.
    """
    from transformers import AutoTokenizer

    path = Path(path)
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        raise FileNotFoundError(
            f"{path} has neither tokenizer.json nor tokenizer_config.json: add the tokenizer it was trained with."
        )
    return AutoTokenizer.from_pretrained(
        path, trust_remote_code=False
    )  # code of theirs is refused, not asked about


def export_model(model: PreTrainedModel, directory: str | PathLike[str]) -> None:
    """Writes any encoder class as the BERT class of the same head; see `hfseq.convert.export_model`.

    Dropout rates go along; `label_smoothing` acts in training only and BERT has no field for it.

    Raises:
        ValueError: not an encoder, or options that BERT cannot express (each is named).
    """
    import transformers

    config = model.config
    if config.model_type != EncoderConfig.model_type:
        raise ValueError(
            f"The format bert takes hfseq's encoder, not {type(model).__name__} ({config.model_type})."
        )
    plain = {
        "pre_norm": False,
        "gated_mlp": False,
        "use_bias": True,
        "position_embedding_type": "absolute",
    }
    foreign = [
        f"{name}={getattr(config, name)!r}" for name, value in plain.items() if getattr(config, name) != value
    ]
    if isinstance(model, PooledClassifier) and config.classifier_pooling != "cls":
        foreign.append(f"classifier_pooling={config.classifier_pooling!r}")
    if config.type_vocab_size == 0:
        foreign.append("type_vocab_size=0")
    if foreign:
        raise ValueError(
            f"BERT cannot express {', '.join(foreign)}: only an encoder without them goes into it."
        )

    head = type(model).__name__.removeprefix("Encoder")
    fields = {name: getattr(config, name) for name in _FIELDS}
    if head == "ForQuestionAnswering":  # BERT's has as many outputs as labels: a beginning and an end
        fields |= {"id2label": None, "label2id": None, "num_labels": 2}
    target_class = getattr(transformers, f"Bert{head}")
    options = {"add_pooling_layer": model.pooler is not None} if head == "Model" else {}
    target = target_class(transformers.BertConfig(**fields), **options)
    weights = {("model." if head == "Model" else "") + name: t for name, t in model.state_dict().items()}
    renamed = _to_bert(weights)
    if head == "Model":
        renamed = {name.removeprefix("bert."): tensor for name, tensor in renamed.items()}
    if "cls.predictions.decoder.bias" in renamed:
        renamed["cls.predictions.bias"] = renamed["cls.predictions.decoder.bias"]
    dtype = next(model.parameters()).dtype
    target = target.to(dtype)
    target.load_state_dict(renamed)
    target.tie_weights()
    target.save_pretrained(directory)


def _pattern(template: str, replacement: str) -> tuple[re.Pattern, str]:
    pattern = re.escape(template).replace(r"\{n\}", r"(\d+)")
    return re.compile(rf"^{pattern}\.(weight|bias)$"), replacement.replace("{n}", r"\g<1>")


def _rename(name: str, rules: list[tuple[re.Pattern, str]]) -> str | None:
    for pattern, replacement in rules:
        match = pattern.match(name)
        if match:
            return match.expand(replacement) + "." + match.groups()[-1]
    return None


_TO_OURS = [_pattern(theirs, ours) for theirs, ours in _RULES.items()]
_TO_BERT = [_pattern(ours, theirs) for theirs, ours in _RULES.items()]


def _to_ours(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    heads = ("bert.", "cls.", "classifier.", "qa_outputs.")
    renamed = {}
    for name, tensor in weights.items():
        for old, new in _OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if name == "cls.predictions.bias":
            name = "cls.predictions.decoder.bias"
        # Where the bare model was saved, its names have no prefix.
        ours = _rename(name if name.startswith(heads) else f"bert.{name}", _TO_OURS)
        if ours is not None:
            renamed[ours] = tensor
    return renamed


def _to_bert(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        theirs = _rename(name, _TO_BERT)
        if theirs is None:
            raise ValueError(f"BERT has no place for the parameter {name}.")
        renamed[theirs] = tensor
    return renamed


def _read_config(path: Path) -> dict:
    file = path / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no config.json: name the directory of a BERT checkpoint.")
    fields = read_json(file)
    if not isinstance(fields, dict):
        raise ValueError(f"{file} holds a {type(fields).__name__}, not a JSON object.")
    if fields.get("model_type", "bert") != "bert":
        raise ValueError(f"{file} says model_type {fields['model_type']!r}: the format bert reads BERT only.")
    positions = fields.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise ValueError(f"{file}: position_embedding_type {positions!r} is none of the encoder's.")
    if fields.get("is_decoder") or fields.get("add_cross_attention"):
        raise ValueError(f"{file}: is_decoder makes a decoder of BERT; the encoder has no such form.")
    return fields


def _head(fields: dict, weights: dict, head: str | None, path: Path) -> str:
    if head is None and fields.get("architectures"):
        saved = fields["architectures"][0]
        head = saved.removeprefix("Bert")
        if head not in HEADS:
            raise ValueError(
                f"{path} was saved as {saved}, a head hfseq does not have. Choose one of {', '.join(HEADS)}."
            )
    elif head is None:
        telling = {
            "cls.seq_relationship": "ForPreTraining",
            "cls.predictions": "ForMaskedLM",
            "classifier": "ForSequenceClassification",
            "qa_outputs": "ForQuestionAnswering",
        }
        found = (h for prefix, h in telling.items() if any(name.startswith(prefix) for name in weights))
        head = next(found, "Model")
    if head not in HEADS:
        raise ValueError(f"Unknown head {head!r}: the format bert has {', '.join(HEADS)}.")
    return head


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return read_tensors(path / name)
    raise FileNotFoundError(f"{path} has neither model.safetensors nor pytorch_model.bin (in one file).")
