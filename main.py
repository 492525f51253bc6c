"""`python main.py VERB …`: a thin door to `imos.cli`. It works in a clone whose package is not installed, too."""

import os.path
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

from imos.cli import program

if __name__ == "__main__":
    program()
