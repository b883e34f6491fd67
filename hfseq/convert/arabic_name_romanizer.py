"""arabic-name-romanizer (MIT): a published GRU encoder-decoder with attention, Arabic letters in, Latin ones out.

Two bidirectional layers of 128 read the source, two of 256 write; multiplicative attention after the top layer; the
mean of the encoder's outputs makes the first state of both layers. That is `GRUForSeq2SeqLM` with
`attention_position="last"` and `bridge="mean"`. The weights lie in two ONNX graphs, as initializers of the operators
that are found by their kind and order (the exporter's names say nothing). ONNX's gates are z, r, h, torch's r, z, n.

The original does not mask the padding of its encoder: rows of unequal lengths in one batch influence each other
there, and do not here. One row at a time the two are equal.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from ..data.tables import read_json
from ..models.configuration_recurrent_seq2seq import GRUSeq2SeqConfig
from ..models.modeling_recurrent_seq2seq import GRUForSeq2SeqLM
from .onnx_graph import import_onnx

ENCODER_FILE, DECODER_FILE, VOCABULARY_FILE = "encoder.onnx", "decoder.onnx", "vocab.json"
HOW_TO_GET_IT = "pip install --no-deps arabic-name-romanizer==0.2.0"
PAD, START, END, UNKNOWN = "<PAD>", "<BOS>", "<EOS>", "<UNK>"
LONGEST = 32  # letters that the original writes at most


def import_model(path: str | PathLike[str], head: str | None = None) -> GRUForSeq2SeqLM:
    """Fills a `GRUForSeq2SeqLM`; see `hfseq.convert.import_model` for arguments and errors."""
    if head not in (None, "ForSeq2SeqLM"):
        raise ValueError(
            f"arabic-name-romanizer is an encoder-decoder: head is ForSeq2SeqLM or left out, not {head!r}."
        )
    folder = _locate(path)
    encoder, decoder = _Weights(folder / ENCODER_FILE), _Weights(folder / DECODER_FILE)
    weights = {"model.encoder.embed_tokens.weight": encoder.named("m.emb.weight")}
    layers = encoder.recurrent_layers()
    for layer, tensors in enumerate(layers):
        weights |= {
            f"model.encoder.block.rnn.{name.format(layer)}": tensor for name, tensor in tensors.items()
        }
    for name in ("weight", "bias"):
        weights[f"model.encoder.bridge.projection.{name}"] = encoder.named(f"m.bridge.{name}")
        weights[f"lm_head.{name}"] = decoder.named(f"m.out.{name}")
    count = 0
    while f"m.decoder.weight_ih_l{count}" in decoder.tensors:
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            weights[f"model.decoder.blocks.0.rnn.{name}_l{count}"] = decoder.named(
                f"m.decoder.{name}_l{count}"
            )
        count += 1
    query, combine = decoder.products()
    weights["model.decoder.attention.query.weight"] = query.t()
    weights["model.decoder.combine.weight"] = combine.t()
    weights["model.decoder.combine.bias"] = decoder.named("m.combine.bias")

    vocabulary = read_vocabulary(folder)
    embedding = weights["model.encoder.embed_tokens.weight"]
    if len(embedding) != len(vocabulary):
        raise ValueError(
            f"{folder / ENCODER_FILE} has {len(embedding)} embeddings, {VOCABULARY_FILE} {len(vocabulary)} tokens: "
            "they belong to different models."
        )
    config = GRUSeq2SeqConfig(
        vocab_size=len(embedding),
        embedding_size=embedding.shape[1],
        hidden_size=decoder.named("m.decoder.weight_hh_l0").shape[1],
        encoder_hidden_size=layers[0]["weight_hh_l{}"].shape[1],
        encoder_layers=len(layers),
        decoder_layers=count,
        attention="multiplicative",
        attention_position="last",
        bridge="mean",
        tie_word_embeddings=False,
        pad_token_id=vocabulary[PAD],
        bos_token_id=vocabulary[START],
        eos_token_id=vocabulary[END],
        decoder_start_token_id=vocabulary[START],
    )
    model = GRUForSeq2SeqLM(config)
    try:
        model.load_state_dict(weights)  # strict: every parameter filled, nothing left over
    except RuntimeError as error:
        raise ValueError(f"{folder} is not the arabic-name-romanizer GRU: {error}") from error
    model.generation_config.max_new_tokens = LONGEST
    return model.eval()


def import_tokenizer(path: str | PathLike[str]) -> PreTrainedTokenizerFast:
    """One id per letter, `<EOS>` behind. The original puts a country and a role first: "<EG><ROLE_SURNAME>..."."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = read_vocabulary(_locate(path))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in vocabulary if len(t) > 1])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    names = {"pad_token": PAD, "bos_token": START, "eos_token": END, "unk_token": UNKNOWN}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, clean_up_tokenization_spaces=False)


def read_vocabulary(folder: Path) -> dict[str, int]:
    """{token: id}."""
    file = folder / VOCABULARY_FILE
    try:
        tokens = read_json(file)["tokens"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is no JSON object with a list of tokens: {error!r}") from error
    vocabulary = {token: number for number, token in enumerate(tokens)}
    missing = [token for token in (PAD, START, END, UNKNOWN) if token not in vocabulary]
    if missing or len(vocabulary) != len(tokens):
        raise ValueError(f"{file} is not the vocabulary of the model: {missing or 'it repeats tokens'}.")
    return vocabulary


def _locate(path: str | PathLike[str]) -> Path:
    """The folder of graphs and vocabulary, for itself or a directory of the package or of its parent."""
    path = Path(path)
    inside = "arabic_name_romanizer"
    for folder in (path, path / "resources", path / inside / "resources"):
        if all((folder / name).is_file() for name in (ENCODER_FILE, DECODER_FILE, VOCABULARY_FILE)):
            return folder
    raise FileNotFoundError(
        f"{ENCODER_FILE}, {DECODER_FILE} and {VOCABULARY_FILE} do not lie together in {path}. To get them: "
        f"{HOW_TO_GET_IT}."
    )


class _Weights:
    """The constants of an ONNX graph, by name and by the operators that take them."""

    def __init__(self, file: Path):
        onnx = import_onnx()
        from google.protobuf.message import DecodeError

        self.file = file
        try:
            # Weights that lie in other files are not followed: the published graphs have none, and a stranger's graph
            # could name any file of this machine.
            self.graph = onnx.load(file, load_external_data=False).graph
        except (DecodeError, ValueError) as error:
            raise ValueError(f"{file} is not an ONNX model: {error}. To get it: {HOW_TO_GET_IT}.") from error
        if outside := [t.name for t in self.graph.initializer if t.data_location == t.EXTERNAL]:
            raise ValueError(f"{file} keeps {outside[0]} in another file, which is not followed.")
        self.tensors = {
            t.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(t))) for t in self.graph.initializer
        }

    def named(self, name: str) -> torch.Tensor:
        if name not in self.tensors:
            raise ValueError(f"{self.file} has no weight {name}: it is not the arabic-name-romanizer GRU.")
        return self.tensors[name]

    def products(self) -> list[torch.Tensor]:
        """The constant matrices of the graph's products, in order."""
        found = [
            self.tensors[n.input[1]]
            for n in self.graph.node
            if n.op_type == "MatMul" and n.input[1] in self.tensors
        ]
        if len(found) != 2:
            raise ValueError(f"{self.file} multiplies by {len(found)} constant matrices, not by 2.")
        return found

    def recurrent_layers(self) -> list[dict[str, torch.Tensor]]:
        """torch's parameters of each bidirectional GRU, `{}` standing for the layer's number."""
        layers = []
        for node in self.graph.node:
            if node.op_type != "GRU":
                continue
            kernel, recurrent = (_torch_gates(self.named(name)) for name in node.input[1:3])
            halves = self.named(node.input[3]).chunk(2, dim=1)  # [directions, 3 * hidden] of each
            bias_ih, bias_hh = (_torch_gates(half) for half in halves)
            layer = {}
            for way, suffix in enumerate(("", "_reverse")):
                layer[f"weight_ih_l{{}}{suffix}"] = kernel[way]
                layer[f"weight_hh_l{{}}{suffix}"] = recurrent[way]
                layer[f"bias_ih_l{{}}{suffix}"] = bias_ih[way]
                layer[f"bias_hh_l{{}}{suffix}"] = bias_hh[way]
            layers.append(layer)
        if not layers:
            raise ValueError(f"{self.file} has no GRU: it is not the arabic-name-romanizer GRU.")
        return layers


def _torch_gates(weight: torch.Tensor) -> torch.Tensor:
    """Gates in the order r, z, n of a kernel [directions, 3 * hidden, in] or a bias [directions, 3 * hidden]."""
    z, r, n = weight.chunk(3, dim=1)
    return torch.cat([r, z, n], dim=1)
