"""Types of command-line words that several verbs take."""

from __future__ import annotations

import argparse


def names(text: str) -> tuple[str, ...]:
    """`a,b`: names in their order, each once.

    Raises:
        argparse.ArgumentTypeError: There is none.
    """
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise argparse.ArgumentTypeError("names are missing")
    return found


def numbers(text: str) -> tuple[int, ...]:
    """`1,5`: whole numbers from 1 on, in their order.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,5")
    return found


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def rate(text: str) -> float:
    """A learning rate: a number above 0, at most 1.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    number = _number(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate; give a number such as 1e-4")
    return number


def share(text: str) -> float:
    """A number from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number from 0 to 1")
    return number


def _number(text: str) -> float:
    """A number; -1 where it is none, which nothing here takes."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def shares(text: str) -> tuple[float, ...]:
    """`0.5,0,0.8,3`: four numbers from 0 on.

    Raises:
        argparse.ArgumentTypeError: They are not.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 4 or not all(0 <= number < 100 for number in found):
        raise argparse.ArgumentTypeError(f"{text!r} are not four numbers such as 0.5,0,0.8,3")
    return found
