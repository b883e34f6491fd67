"""What `hfseq NAME` runs: one readable file a command, with `add_arguments(parser)` and `main(argv)`.

They stand on hfseq's public API and import nothing of each other; what they share is in `console.py` (how a command
speaks) and `outputs.py` (where it may write). `hfseq/__main__.py` has the table of names.
"""
