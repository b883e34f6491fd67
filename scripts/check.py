"""`hfseq check`, under its old name."""

from hfseq.commands.check import main

if __name__ == "__main__":
    main()
