"""What hfseq is measured against, and how: one module per kind of line, run by `scripts/benchmark.py`.

A line is one claim with its goal. The peer is what people write today, at its best, with the same batches, dtype and
threads; its code stands beside the line that measures it.
"""
