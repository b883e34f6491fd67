"""Training tokenizers that `AutoTokenizer` reloads, and fitting a model's vocabulary to them.

| algorithm | unit | `decode(encode(x)) == x` | what it does not know |
|---|---|---|---|
| bpe | bytes merged by frequency (as GPT-2) | always, any Unicode and white space | nothing: every byte is in it |
| unigram | subwords of a unigram language model (as SentencePiece) | for known characters | rare characters |
| wordpiece | word pieces (as BERT) | no: white space is lost, and line breaks | words with unknown characters |
| word | words, punctuation, line breaks | no: other white space is lost | words beyond the vocabulary |
| character | characters | for known characters | rare characters |

What an algorithm does not know becomes `<|unk|>`. With `lowercase` none is exact.

Ids: `<|endoftext|>` = 0 ends every document and, being what stands before the next one, begins texts too (bos = eos);
`<|pad|>` = 1 is never anything else; `<|unk|>` = 2 only where it is needed. Encoding adds no special tokens. Padding
is on the left, as generation wants it.

With `masked=True` the special tokens are BERT's, for masked-language models: `[PAD]` = 0, `[UNK]` where it is needed,
`[CLS]`, `[SEP]`, `[MASK]`. Encoding makes `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, padding is on the right, and
documents in token arrays end with `[SEP]` (eos = sep, bos = cls). `[MASK]` takes the space before it: what is to be
guessed is " word", not "word" after a space of its own.

With `translation=True` they are a sequence-to-sequence model's: `<pad>` = 0, `<s>` (stands before a target), `</s>`,
and `<unk>` where it is needed. Encoding makes `A </s>`, padding is on the right. bpe puts a space before the first
word, so that it is the same token as inside a sentence, and takes it away again when decoding. What pretraining on
plain text needs stands right after these: `<mask>` with `mask=True`, `<extra_id_0>`, `<extra_id_1>`, ... with
`sentinels=n`. Two languages share one tokenizer or have one each, see `cached_pair_tokenizers`.

bpe, word and character make the same tokenizer of the same text every time. wordpiece and unigram do not (the trainers
of `tokenizers` go by the order of a hash table): keep what was saved, as `cached_tokenizer` does, and never train one
again for an existing model.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hints import nearest_hint
from ..paths import user_path
from .cache import build_once, cache_folder
from .fingerprints import fingerprint_of
from .pre_tokenizers import ALGORITHMS, pre_tokenizer_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.processors import PostProcessor
    from transformers import PreTrainedTokenizerFast

    from .corpora import Corpus
    from .pair_corpora import HalfCorpus, PairCorpus

END, PAD, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|unk|>"
SEQUENCE_PAD, START, STOP, SEQUENCE_UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SEQUENCE_MASK, SENTINEL = "<mask>", "<extra_id_{}>"
logger = logging.getLogger(__name__)

# One tokenizer for sources and targets, or one for each.
VOCABULARIES = ("joint", "separate")
TARGET_FOLDER = "target_tokenizer"
MASKED_PAD, MASKED_UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"

# Part of the name of every kept tokenizer: raise it when training here gives another one from the same text.
TRAINER_VERSION = 1

LARGEST_VOCABULARY = 10_000_000
# Of text without white space a trainer reads so many characters.
LONGEST_RUN = 100_000
_LONG_RUN = re.compile(rf"(\S{{{LONGEST_RUN}}})\S+")


def train_tokenizer(
    documents: Iterable[str],
    algorithm: str = "bpe",
    vocab_size: int = 4096,
    *,
    lowercase: bool = False,
    model_max_length: int | None = None,
    masked: bool = False,
    translation: bool = False,
    mask: bool = False,
    sentinels: int = 0,
) -> PreTrainedTokenizerFast:
    """Trains a tokenizer.

    Args:
        documents: the training side only; what is held out must stay unseen. Read once, never held in memory.
        algorithm: one of `ALGORITHMS`.
        vocab_size: upper limit, special tokens included; small texts give fewer. Where the characters alone exceed it,
            character and wordpiece keep the most frequent ones, and unigram, which needs all, is an error that names
            the number that is needed.
        lowercase: lower-case text before tokenising.
        model_max_length: for models with a limit; None: none, as recurrent models have none.
        masked: for a masked-language model, see the module; translation: for a sequence-to-sequence model.
        mask: with translation, a mask token (BART's infilling); sentinels: so many tokens that stand for a span (T5).

    Raises:
        ValueError: unknown algorithm, a vocabulary too small for it, options that exclude each other, no text.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"Unknown tokenizer algorithm {algorithm!r}.{nearest_hint(algorithm, ALGORITHMS)} Known: "
            f"{', '.join(ALGORITHMS)}."
        )
    if masked and translation:
        raise ValueError("A tokenizer is made for masked=True or for translation=True, not for both.")
    if (mask or sentinels) and not translation:
        raise ValueError("mask and sentinels are for translation=True (masked=True has its [MASK] anyway).")
    if sentinels < 0:
        raise ValueError(f"sentinels must be at least 0, not {sentinels}.")
    unknown = MASKED_UNKNOWN if masked else SEQUENCE_UNKNOWN if translation else UNKNOWN
    # A tokenizer of characters has the space itself as a token, to be masked or not like any other.
    mask_token = AddedToken(
        SEQUENCE_MASK if translation else MASK,
        lstrip=algorithm != "character",
        normalized=False,
        special=True,
    )
    spans = [SENTINEL.format(i) for i in range(sentinels)]
    specials = [MASKED_PAD, unknown, CLS, SEP, mask_token] if masked else [END, PAD, unknown]
    if translation:
        specials = [SEQUENCE_PAD, START, STOP, unknown, *([mask_token] if mask else []), *spans]
    if algorithm == "bpe":
        specials.remove(unknown)
    smallest = len(specials) + (256 if algorithm == "bpe" else 1)
    if vocab_size > LARGEST_VOCABULARY:  # the trainers make room for all of it, and die
        raise ValueError(
            f"vocab_size {vocab_size} is more than any text fills: at most {LARGEST_VOCABULARY:,}."
        )
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size {vocab_size} is too small for {algorithm}: it needs at least {smallest} ({len(specials)} "
            f"special tokens{' and 256 bytes' if algorithm == 'bpe' else ''})."
        )
    options: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": specials, "show_progress": False}
    trainer: trainers.Trainer
    if algorithm == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    elif algorithm == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
        tokenizer.decoder = decoders.WordPiece(cleanup=True)
        trainer = trainers.WordPieceTrainer(**options)
    elif algorithm == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
        trainer = trainers.UnigramTrainer(unk_token=unknown, **options)
    elif algorithm == "word":
        tokenizer = Tokenizer(models.WordLevel(unk_token=unknown))
        # Joined by spaces, then the spaces that no writer would put are taken out.
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.WordPiece(prefix="\0", cleanup=False),
                decoders.Fuse(),
                decoders.Replace(Regex(r" (?=[,.;:!?%)\]}\n])|(?<=[(\[{\n]) "), ""),
            ]
        )
        trainer = trainers.WordLevelTrainer(**options)
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=unknown))
        tokenizer.decoder = decoders.Fuse()
        trainer = trainers.WordLevelTrainer(**options)
    tokenizer.pre_tokenizer = pre_tokenizer_of(algorithm)
    if translation and algorithm == "bpe":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()

    counted = _Counted(documents)
    if algorithm == "unigram":
        counted = _Different(documents, vocab_size - len(specials), len(specials), lowercase)
    elif algorithm == "wordpiece":
        counted = _Frequencies(documents, lowercase)
    tokenizer.train_from_iterator(counted, trainer)
    if counted.characters == 0:
        raise ValueError("No text to train a tokenizer on: the documents are empty.")
    if isinstance(counted, _Frequencies) and tokenizer.get_vocab_size() > vocab_size:
        tokenizer.model = _limited(tokenizer, vocab_size, len(specials), counted.frequencies, unknown)
    if isinstance(counted, _Different) and tokenizer.get_vocab_size() > vocab_size:
        raise ValueError(_too_small(vocab_size, counted.needed))
    fields: dict[str, Any] = {} if model_max_length is None else {"model_max_length": model_max_length}
    if masked:
        tokenizer.post_processor = _bert_template(tokenizer, algorithm)
        fields |= {"bos_token": CLS, "eos_token": SEP, "cls_token": CLS, "sep_token": SEP}
        fields["mask_token"] = mask_token
        fields |= {"pad_token": MASKED_PAD, "padding_side": "right"}
        fields |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    elif translation:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {STOP}", special_tokens=[(STOP, tokenizer.token_to_id(STOP))]
        )
        fields |= {"bos_token": START, "eos_token": STOP, "pad_token": SEQUENCE_PAD, "padding_side": "right"}
        fields |= {"model_input_names": ["input_ids", "attention_mask"]}
        if mask:
            fields["mask_token"] = mask_token
        if spans:
            fields["extra_special_tokens"] = spans
    else:
        fields |= {"bos_token": END, "eos_token": END, "pad_token": PAD, "padding_side": "left"}
        fields |= {"model_input_names": ["input_ids", "attention_mask"]}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown if unknown in specials else None,
        clean_up_tokenization_spaces=False,
        **fields,
    )


def _bert_template(tokenizer: Tokenizer, algorithm: str) -> PostProcessor:
    """[CLS] A [SEP] and [CLS] A [SEP] B [SEP], with token types 0 and 1 (a `tokenizers` post-processor)."""
    from tokenizers import processors

    template = processors.TemplateProcessing(
        single=f"{CLS}:0 $A:0 {SEP}:0",
        pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (CLS, SEP)],
    )
    if algorithm != "bpe":
        return template
    # Offsets of a token are those of the word, without the space before it: spans in the text come out clean.
    return processors.Sequence([processors.ByteLevel(trim_offsets=True), template])


class _Counted:
    """Documents, and how many characters went by."""

    def __init__(self, documents: Iterable[str]):
        self.documents, self.characters = documents, 0

    def __iter__(self):
        for document in self.documents:
            self.characters += len(document)
            if len(document) > LONGEST_RUN:  # encoded data, no writing; a trainer's memory grows with it
                document = _LONG_RUN.sub(r"\1", document)
            yield document


class _Frequencies(_Counted):
    """How often each character went by."""

    def __init__(self, documents: Iterable[str], lowercase: bool):
        super().__init__(documents)
        self.lowercase = lowercase
        self.frequencies: Counter[str] = Counter()

    def __iter__(self):
        for document in super().__iter__():
            self.frequencies.update(document.lower() if self.lowercase else document)
            yield document


class _Different(_Counted):
    """Raises where there are more different characters than places. With too few the unigram trainer of `tokenizers`
    raises a bare Exception, exceeds its limit or never ends, whichever comes first."""

    def __init__(self, documents: Iterable[str], places: int, specials: int, lowercase: bool):
        super().__init__(documents)
        self.places, self.specials, self.lowercase, self.needed = places, specials, lowercase, 0

    def __iter__(self):
        different: set[str] = set()
        for document in super().__iter__():
            different.update(document.lower() if self.lowercase else document)
            yield document
        if " " in different:  # written as this
            different = different - {" "} | {"\u2581"}
        self.needed = self.specials + len(different) + 1
        if len(different) > self.places:
            raise ValueError(_too_small(self.places + self.specials, self.needed))


def _too_small(vocab_size: int, needed: int) -> str:
    return (
        f"vocab_size {vocab_size} is too small for unigram on this text: its characters alone need {needed}. Set "
        f"vocab_size to {needed} or more, or take bpe, which makes every character of 256 bytes."
    )


def _limited(
    tokenizer: Tokenizer, vocab_size: int, specials: int, frequencies: Counter[str], unknown: str
) -> WordPiece:
    """A WordPiece model of the special tokens and the most frequent characters, each with its form inside a word. The
    trainer of `tokenizers` keeps all characters, whatever its limit, and adds nothing else where they exceed it."""
    from tokenizers import models

    ids, characters = tokenizer.get_vocab(), 0
    kept: set[str] = set()
    for character, _ in sorted(frequencies.items(), key=lambda item: (-item[1], item[0])):
        forms = [form for form in (character, f"##{character}") if form in ids]
        if specials + len(kept) + len(forms) > vocab_size:
            break
        kept.update(forms)
        characters += bool(forms)
    logger.warning(
        "vocab_size %d has no room for all characters of the text: wordpiece keeps the %d most frequent, and words "
        "with others are %s. All need %d; bpe makes every character of 256 bytes.",
        vocab_size, characters, unknown, len(ids),
    )  # fmt: skip
    names = [
        token for token, i in sorted(ids.items(), key=lambda item: item[1]) if i < specials or token in kept
    ]
    return models.WordPiece({token: i for i, token in enumerate(names)}, unk_token=unknown)


def id_count(tokenizer: PreTrainedTokenizerFast) -> int:
    """One more than the largest id; not `len(tokenizer)` where ids have holes."""
    return max(tokenizer.get_vocab().values()) + 1


def padded_vocab_size(tokenizer: PreTrainedTokenizerFast, multiple: int = 64) -> int:
    """Vocabulary for a new model: the tokenizer's ids, rounded up; matrix kernels like round sizes."""
    return -(-id_count(tokenizer) // multiple) * multiple


def surplus_ids(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> list[int]:
    """Ids never to be generated (`generation_config.suppress_tokens`): those of the model that no token has, and
    padding, unless it is the end token too."""
    pad = {tokenizer.pad_token_id} - {tokenizer.eos_token_id, None}
    return sorted(set(range(vocab_size)) - set(tokenizer.get_vocab().values()) | pad)


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, config: Any, multiple: int = 64) -> None:
    """Refuses a tokenizer that does not fit a model.

    Args:
        config: with vocab_size and, unless None, eos_token_id, pad_token_id, bos_token_id.
        multiple: how far the model's vocabulary may have been rounded up.

    Raises:
        ValueError: the tokenizer has ids that the model lacks, the model has more surplus ids than rounding explains,
            or the special tokens have other ids.
    """
    ids, size = id_count(tokenizer), config.vocab_size
    remedy = "Load both from the same checkpoint, or train the model anew with this tokenizer."
    if ids > size:
        raise ValueError(f"The tokenizer has {ids} ids, the model only {size} (config.vocab_size). {remedy}")
    if size - ids >= multiple:
        raise ValueError(
            f"The model has {size} ids (config.vocab_size), the tokenizer only {ids}: more than rounding up to a "
            f"multiple of {multiple} explains, so they were not made for each other. {remedy}"
        )
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        expected, actual = getattr(config, name, None), getattr(tokenizer, name, None)
        allowed = expected if isinstance(expected, (list, tuple)) else [expected]
        if expected is not None and actual is not None and actual not in allowed:
            raise ValueError(
                f"{name} is {actual} in the tokenizer but {expected} in the model's config. {remedy}"
            )


def tokenizer_config_fields(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    """What a new model's config takes from its tokenizer: the rounded-up `vocab_size` and the special ids
    (`mask_token_id` where there is one)."""
    special = ["pad_token_id", "bos_token_id", "eos_token_id"]
    if tokenizer.mask_token_id is not None:
        special.append("mask_token_id")
    return {
        "vocab_size": padded_vocab_size(tokenizer),
        **{name: getattr(tokenizer, name) for name in special},
    }


def sentinel_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>`, ..., as far as the tokenizer has them without a gap."""
    vocab = tokenizer.get_vocab()
    ids: list[int] = []
    while (name := SENTINEL.format(len(ids))) in vocab:
        ids.append(vocab[name])
    return ids


def cached_tokenizer(
    corpus: Corpus | HalfCorpus,
    algorithm: str,
    vocab_size: int,
    *,
    lowercase: bool = False,
    masked: bool = False,
    translation: bool = False,
    mask: bool = False,
    sentinels: int = 0,
    model_max_length: int | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> PreTrainedTokenizerFast:
    """`train_tokenizer` on the corpus' training side, once: later calls and other processes load what it saved.

    Args:
        corpus: its fingerprint, with the other arguments, names the cache entry.
        cache_dir: default `default_cache_dir()`.
    """
    from transformers import AutoTokenizer

    cache = cache_folder(cache_dir)
    options: dict[str, Any] = {
        "masked": masked,
        "translation": translation,
        "mask": mask,
        "sentinels": sentinels,
        "model_max_length": model_max_length,
    }
    options = {option: value for option, value in options.items() if value}
    # Without further options the name is that of earlier versions.
    name = "tokenizer-" + fingerprint_of(
        [
            TRAINER_VERSION,
            corpus.fingerprint,
            algorithm,
            vocab_size,
            lowercase,
            *([options] if options else []),
        ]
    )
    target = cache / name

    def train() -> None:
        tokenizer = train_tokenizer(
            corpus.reading("train"), algorithm, vocab_size, lowercase=lowercase, **options
        )
        with tempfile.TemporaryDirectory(dir=cache) as partial:
            tokenizer.save_pretrained(Path(partial) / name)
            os.replace(Path(partial) / name, target)

    build_once(target, train, f"the tokenizer of {corpus.name}")
    return AutoTokenizer.from_pretrained(target)


def cached_pair_tokenizers(
    corpus: PairCorpus,
    algorithm: str,
    vocab_size: int,
    *,
    vocabulary: str = "joint",
    lowercase: bool = False,
    cache_dir: str | os.PathLike | None = None,
    **options: Any,
) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """The tokenizers of sources and targets, trained once on the training side.

    Args:
        vocab_size: of each.
        vocabulary: "joint": one tokenizer, trained on both sides and returned twice, so that names and numbers keep
            their tokens and all embeddings can be shared; "separate": one for each side, for languages that share
            little. Their special tokens have the same ids.
        options: mask, sentinels, model_max_length of `train_tokenizer`.

    Raises:
        ValueError: unknown vocabulary, or what `train_tokenizer` raises.
    """
    if vocabulary not in VOCABULARIES:
        raise ValueError(
            f"Unknown vocabulary {vocabulary!r}.{nearest_hint(vocabulary, VOCABULARIES)} Choose joint (one "
            "tokenizer for both languages) or separate (one each)."
        )
    halves = [corpus.both] if vocabulary == "joint" else [corpus.sources, corpus.targets]
    tokenizers = [
        cached_tokenizer(
            half,
            algorithm,
            vocab_size,
            lowercase=lowercase,
            translation=True,
            cache_dir=cache_dir,
            **options,
        )
        for half in halves
    ]
    return tokenizers[0], tokenizers[-1]


def save_pair_tokenizers(
    directory: str | os.PathLike, source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast
) -> None:
    """Saves the source's tokenizer (or the joint one) in `directory`, where `AutoTokenizer` finds it, and the target's,
    where it is another, in `directory/target_tokenizer`."""
    import shutil

    directory = user_path(directory)
    folder = directory / TARGET_FOLDER
    source.save_pretrained(directory)
    if target is not source:
        target.save_pretrained(folder)
    elif (
        folder.is_dir()
    ):  # of an earlier run with two vocabularies; load_pair_tokenizers would take it for ours
        shutil.rmtree(folder)


def load_pair_tokenizers(
    directory: str | os.PathLike, **options: Any
) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """What `save_pair_tokenizers` saved; the same tokenizer twice where there is one. Also reads Hub ids (one only).

    Args:
        options: of `AutoTokenizer.from_pretrained`.
    """
    name = str(user_path(directory))
    source, folder = read_tokenizer(name, **options), Path(name) / TARGET_FOLDER
    return source, read_tokenizer(folder, **options) if folder.is_dir() else source


def read_tokenizer(name: str | os.PathLike, **options: Any) -> PreTrainedTokenizerFast:
    """The tokenizer of a directory or Hub id.

    Args:
        options: of `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: there is none, or none that can be read; says where.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(name), **options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        file = Path(name) / "tokenizer.json"
        there = f"{file} cannot be read" if file.is_file() else f"{name} holds no tokenizer that can be read"
        raise ValueError(f"{there} ({reason}). Save it again beside the model (save_pretrained).") from error
