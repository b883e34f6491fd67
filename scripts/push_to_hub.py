"""`hfseq push`, under its old name."""

from hfseq.commands.push import main

if __name__ == "__main__":
    main()
