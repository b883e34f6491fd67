"""`hfseq pretrain`, from a checkout."""

from hfseq.commands.pretrain import main

if __name__ == "__main__":
    main()
