"""Batch plans: which rows of a token array, a pair array or a table make each update of a run.

`base.py` has what all plans are, `cuts.py` the ways to cut an epoch into updates; one file a kind says what a batch
holds: `streams`, `causal_rows`, `masked`, `pairs`, `denoising`, `buckets`, `features`. Import the classes from
`hfseq.data`, which loads a file when its name is first used.
"""
