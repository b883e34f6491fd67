"""What `hfseq COMMAND` runs: one readable file each, to use and to copy from."""
