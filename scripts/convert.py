"""`hfseq convert`, under its old name."""

from hfseq.commands.convert import main

if __name__ == "__main__":
    main()
