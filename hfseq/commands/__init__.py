"""What `hfseq NAME` runs: one readable file a command, with `add_arguments(parser)` and `main(argv)`.

They stand on hfseq's public API and import nothing of each other; what they share is in `console.py` (how a command
speaks) and `outputs.py` (where it may write). `hfseq/__main__.py` has the table of names.
"""

import os

# Linux gives pages of 2 MB only to who asks, on most distributions ("madvise" in
# /sys/kernel/mm/transparent_hugepage/enabled); with pages of 4 kB a training on a CPU waits for page faults and address
# translation. By this variable PyTorch asks, for tensors of 2 MB and more; it is read when the first one is made, and
# numbers are the same. Set to 0 it is left as it is.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
