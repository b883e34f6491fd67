"""`hfseq finetune`, under its old name."""

from hfseq.commands.finetune import main

if __name__ == "__main__":
    main()
