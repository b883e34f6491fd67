"""g2p-en (Park and Kim 2019, Apache-2.0): a published GRU encoder-decoder that spells English words in phonemes.

One GRU layer of 256 on each side, no attention: the decoder begins with the encoder's last state as it is, which is
`GRUForSeq2SeqLM` with `attention=None`, in one direction. Letters and phonemes have vocabularies of their own, and
the original, in NumPy, knows them from lists in its code. Its `G2p` also looks words up in a dictionary first; here is
only the network, for the words that are in none.
"""

from __future__ import annotations

import zipfile
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from ..models.configuration_recurrent_seq2seq import GRUSeq2SeqConfig
from ..models.modeling_recurrent_seq2seq import GRUForSeq2SeqLM

WEIGHTS_FILE = "checkpoint20.npz"
HOW_TO_GET_IT = "pip install --no-deps g2p-en==2.1.0"

GRAPHEMES = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
CONSONANTS = (
    "B",
    "CH",
    "D",
    "DH",
    "F",
    "G",
    "HH",
    "JH",
    "K",
    "L",
    "M",
    "N",
    "NG",
    "P",
    "R",
    "S",
    "SH",
    "T",
    "TH",
    "V",
    "W",
    "Y",
    "Z",
    "ZH",
)
# Vowels come in three stresses and, the bare one besides, UW: 4 special tokens and 70 phonemes in alphabetical order.
PHONEMES = [
    "<pad>", "<unk>", "<s>", "</s>",
    *sorted([vowel + stress for vowel in VOWELS for stress in "012"] + [*CONSONANTS, "UW"]),
]  # fmt: skip
START, END = PHONEMES.index("<s>"), PHONEMES.index("</s>")
LONGEST = 20  # phonemes that the original writes at most

# name there -> name here
LAYERS = {
    "enc_emb": "model.encoder.embed_tokens.weight",
    "dec_emb": "model.decoder.embed_tokens.weight",
    "fc_w": "lm_head.weight",
    "fc_b": "lm_head.bias",
    **{
        f"{side}_{kind}_{which}": f"model.{place}.rnn.{name}_{which}_l0"
        for side, place in (("enc", "encoder.block"), ("dec", "decoder.blocks.0"))
        for kind, name in (("w", "weight"), ("b", "bias"))
        for which in ("ih", "hh")
    },
}


def import_model(path: str | PathLike[str], head: str | None = None) -> GRUForSeq2SeqLM:
    """Fills a `GRUForSeq2SeqLM`; see `hfseq.convert.import_model` for arguments and errors."""
    if head not in (None, "ForSeq2SeqLM"):
        raise ValueError(f"g2p-en is an encoder-decoder: head is ForSeq2SeqLM or left out, not {head!r}.")
    file = _locate(path)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (ValueError, OSError, EOFError, LookupError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is not a whole file of NumPy arrays (pickled objects are none: they can run code). To get the "
            f"published one: {HOW_TO_GET_IT}."
        ) from error
    if set(weights) != set(LAYERS):
        different = ", ".join(sorted(set(weights) ^ set(LAYERS)))
        raise ValueError(f"{file} is not the g2p-en model: it differs in {different}.")
    if len(weights["enc_emb"]) != len(GRAPHEMES) or len(weights["dec_emb"]) != len(PHONEMES):
        raise ValueError(
            f"{file} has {len(weights['enc_emb'])} letters and {len(weights['dec_emb'])} phonemes, not "
            f"{len(GRAPHEMES)} and {len(PHONEMES)}: it is another version of g2p-en."
        )
    config = GRUSeq2SeqConfig(
        vocab_size=len(GRAPHEMES),
        decoder_vocab_size=len(PHONEMES),
        share_encoder_decoder_embeddings=False,
        tie_word_embeddings=False,
        embedding_size=weights["enc_emb"].shape[1],
        hidden_size=weights["dec_w_hh"].shape[1],
        encoder_layers=1,
        decoder_layers=1,
        bidirectional=False,
        attention=None,
        pad_token_id=0,
        bos_token_id=START,
        eos_token_id=END,
        decoder_start_token_id=START,
    )
    model = GRUForSeq2SeqLM(config)
    model.load_state_dict({LAYERS[name]: weight for name, weight in weights.items()})  # strict
    model.generation_config.max_new_tokens = LONGEST
    return model.eval()


def import_tokenizer(path: str | PathLike[str]) -> PreTrainedTokenizerFast:
    """The letters of the source, `</s>` behind them. `import_target_tokenizer` has the phonemes."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    _locate(path)
    letters = {letter: number for number, letter in enumerate(GRAPHEMES)}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", letters["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )


def import_target_tokenizer(path: str | PathLike[str]) -> PreTrainedTokenizerFast:
    """The phonemes of the target, between spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    _locate(path)
    phonemes = {phoneme: number for number, phoneme in enumerate(PHONEMES)}
    tokenizer = Tokenizer(models.WordLevel(phonemes, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, clean_up_tokenization_spaces=False)


def _locate(path: str | PathLike[str]) -> Path:
    """The weights, for the file itself or a directory of the package or of its parent."""
    path = Path(path)
    candidates = [path] if path.is_file() else [path / WEIGHTS_FILE, path / "g2p_en" / WEIGHTS_FILE]
    for file in candidates:
        if file.is_file():
            return file
    raise FileNotFoundError(f"No {WEIGHTS_FILE} in {path}. To get it: {HOW_TO_GET_IT}.")
