"""`python -m imos VERB …`: what the program `imos` does, where only the interpreter is known."""

from imos.cli import program

if __name__ == "__main__":
    program()
