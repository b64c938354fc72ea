"""`python -m normscan`: the command line, where its script is not on the path (`torchrun -m normscan train ...`)."""

from normscan.cli.__main__ import main

if __name__ == "__main__":
    main()
