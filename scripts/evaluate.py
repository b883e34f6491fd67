"""`hfseq evaluate`, under its old name."""

from hfseq.commands.evaluate import main

if __name__ == "__main__":
    main()
