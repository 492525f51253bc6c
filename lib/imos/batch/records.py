"""What was done: one small file a study, so that a run goes on where it was, and every label map is made once.

A record names the label map's SHA-256 and is written before the label map appears under its name. So a label map with a
record is either complete or not there, and one without a record, or with another checksum, is somebody else's work and
is never touched.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from imos.batch.manifest import Study
from imos.errors import UserError
from imos.imaging.writing import replacing

FOLDER = ".batch"
"""In the output folder; a folder for records, one for what is being written."""


@dataclass(frozen=True, slots=True)
class Record:
    """One study that was done.

    Attributes:
        id: The study's.
        asked: What it was made from: the row, weights and adapter, as a checksum.
        output: File name of the label map.
        sha256: Its checksum, hexadecimal.
        stored: Whether it is in the archive, too; nothing else is to be done then.
        report: Times, memory, weights, confidence of each slice.
    """

    id: str
    asked: str
    output: str
    sha256: str
    stored: bool = False
    report: dict[str, Any] = field(default_factory=dict)


class Found(StrEnum):
    """What lies there for a study."""

    NOTHING = "nothing"
    DONE = "done"
    TO_STORE = "to store"


class Records:
    """The records of an output folder.

    Args:
        output: The folder.
    """

    def __init__(self, output: Path) -> None:
        self._output, self._folder, self.partial = output, output / FOLDER / "records", output / FOLDER / "partial"

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self._folder, self.partial):
            folder.mkdir(parents=True, exist_ok=True)

    def read(self, study: str) -> Record | None:
        """A study's record; None where there is none, or none that can be read."""
        try:
            return Record(**json.loads(self._path(study).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, record: Record) -> None:
        """Write one; complete or not at all."""
        with replacing(self._path(record.id)) as beside:
            beside.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")

    def found(self, study: Study, asked: str, *, storing: bool) -> Found:
        """What is left to do.

        Args:
            study: The row.
            asked: What it shall be made from.
            storing: Whether it shall be in the archive, too.

        Raises:
            UserError: There is a label map of that name which no run wrote, or which somebody changed since, or the
                row or the weights are others than those it was made from.
        """
        path, record = self._output / study.output, self.read(study.id)
        if not path.exists():
            return Found.NOTHING
        if record is None or record.output != study.output or record.sha256 != checksum(path):
            raise UserError(f"{path.name} is there and not, or not only, this program's work. Move it away.")
        if record.asked != asked:
            msg = f"{path.name} was made from another row or with other weights. Delete it, or choose another folder."
            raise UserError(msg)
        return Found.TO_STORE if storing and not record.stored else Found.DONE

    def _path(self, study: str) -> Path:
        return self._folder / f"{study}.json"


def asked_for(study: Study, weights: str) -> str:
    """Checksum of a row and the weights' name and content."""
    return hashlib.sha256(json.dumps([study.written, weights]).encode()).hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files and their names, hexadecimal."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    parts = [f"{file.name}:{checksum(file)}" for file in sorted(path.iterdir())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
