"""`hfseq generate`, under its old name."""

from hfseq.commands.generate import main

if __name__ == "__main__":
    main()
