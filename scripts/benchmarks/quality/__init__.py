"""Time to the same quality: hfseq's command against the peer's own script, each a process of its own.

racing      runs a command and notes the processor time of each checkpoint, or of each score that it prints
tasks       what is learnt, by which commands, and how a checkpoint is scored
record      the results as JSON: curves, targets, seconds
drawing     score over seconds, both sides
"""
