"""`hfseq compare`, under its old name."""

from hfseq.commands.compare import main

if __name__ == "__main__":
    main()
