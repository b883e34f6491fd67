"""`hfseq tokenize`, under its old name."""

from hfseq.commands.tokenize import main

if __name__ == "__main__":
    main()
