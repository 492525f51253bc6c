"""`python -m imos VERB …`: what the program `imos` does, where only the interpreter is known."""

import sys

from imos.cli import main

if __name__ == "__main__":
    sys.exit(main())
