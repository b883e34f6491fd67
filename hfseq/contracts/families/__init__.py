"""The models that the contracts run on, a module for each family: one line per class and variant.

To add a family: write its tiny config and its `Case`s in a module here, and its rows in `table.py`. Nothing else; a
test fails while a class that hfseq registers has no case or no row.
"""

from __future__ import annotations

from .encoder import ENCODER
from .features import FEATURES
from .pervasive import PERVASIVE
from .recurrent import RECURRENT
from .recurrent_heads import RECURRENT_HEADS
from .recurrent_seq2seq import RECURRENT_SEQ2SEQ
from .transformer import TRANSFORMER

CASES = (
    *RECURRENT,
    *FEATURES,
    *RECURRENT_HEADS,
    *RECURRENT_SEQ2SEQ,
    *ENCODER,
    *TRANSFORMER,
    *PERVASIVE,
)

SOURCE = f"{__name__}:CASES"
