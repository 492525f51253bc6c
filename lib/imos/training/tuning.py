"""What a fine-tuning may train, and how it hands over what it made."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path

from imos.training.sharing import rank


class Tune(StrEnum):
    """What is trained beside the adapters."""

    ADAPTERS = "adapters"
    GATES = "gates"
    DECODER = "decoder"
    ALL = "all"


def hand_over(made: Path, output: Path, *, keeps_folder: bool) -> None:
    """Move a finished run's file to where it was asked for; the first process does it.

    Args:
        made: In the run's folder.
        output: Where it goes.
        keeps_folder: Whether the run's folder stays.
    """
    if rank() > 0:
        return
    made.replace(output)
    if not keeps_folder:
        shutil.rmtree(made.parent)
