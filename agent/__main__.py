"""`python -m ponder`: the command line, where the script is not on the path."""

from ponder.cli import main

if __name__ == "__main__":
    main()
