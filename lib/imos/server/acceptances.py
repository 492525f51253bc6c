"""Acceptances: every label that was ever accepted, in the order in which that happened, and what it cost.

The project page and the start of rounds by themselves live on it; labels are replaced by later ones, this log is not.
One line each, appended and on disk before anybody is answered; a line that a power cut left half is skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from imos.registry.split import Side


@dataclass(frozen=True, slots=True)
class Effort:
    """What a person did to an image before it was accepted.

    Attributes:
        slices: Slices that show an object.
        painted: Slices painted or corrected by hand.
        corrected: Voxels of the first propagation that were not accepted as it had them; None where nothing was
            propagated.
    """

    slices: int
    painted: int
    corrected: int | None = None

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Effort:
        """From a part of one line; raises as `Acceptance.from_json`."""
        corrected = said.get("corrected")
        return cls(int(said["slices"]), int(said["painted"]), None if corrected is None else int(corrected))

    @property
    def untouched(self) -> int:
        """Slices that were accepted as they had been propagated."""
        return max(0, self.slices - self.painted)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One accepted label.

    Attributes:
        time: ISO 8601 in UTC.
        image: Id of the image.
        digest: Of the label file.
        side: What it is for.
        version: The version in use then.
        client: Who accepted it.
        effort: What it cost; None where the client did not work with our own routes.
    """

    time: str
    image: str
    digest: str
    side: Side
    version: str
    client: str = ""
    effort: Effort | None = None

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Acceptance:
        """From one line.

        Raises:
            KeyError: An entry is missing.
            ValueError, TypeError, AttributeError: An entry is not what was written.
        """
        effort = said.get("effort")
        return cls(
            time=str(said["time"]),
            image=str(said["image"]),
            digest=str(said["digest"]),
            side=Side(said["side"]),
            version=str(said["version"]),
            client=str(said["client"]),
            effort=None if effort is None else Effort.from_json(effort),
        )


class AcceptanceLog:
    """The log on disk.

    Args:
        folder: Of the registry.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "accepted.jsonl"

    def add(self, one: Acceptance) -> None:
        """Append a line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._path.with_name(".accepted.lock")), self._path.open("ab") as file:
            # Behind half a line of a power cut this one would be lost with it.
            start = b"\n" if file.tell() and not self._ends_well() else b""
            file.write(start + json.dumps(asdict(one), separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Acceptance]:
        """All of them, the first one first."""
        if not self._path.is_file():
            return []
        found = []
        for line in self._path.read_text("utf-8", errors="replace").splitlines():
            try:
                found.append(Acceptance.from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def latest(self) -> dict[str, Acceptance]:
        """The latest acceptance of each image, in the order in which images were first accepted."""
        return {one.image: one for one in self.read()}

    def _ends_well(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
