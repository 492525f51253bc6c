"""The alias `champion`: which version is in use, and every move it ever made, in one file that is replaced as a whole.

Alias and log are one file on purpose: a process that is killed leaves both as they were, or both as they shall be.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from imos.imaging.writing import replacing
from imos.registry.records import BASE, Move, now

logger = logging.getLogger(__name__)

_FILE = "champion.json"
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Alias:
    """The alias at one moment.

    Attributes:
        line: Versions that rolling back goes through; the last one is in use.
        moves: All moves, the latest last.
        refused: Moves that were not made, because what the version was compared with was no longer in use.
    """

    line: tuple[str, ...] = (BASE,)
    moves: tuple[Move, ...] = ()
    refused: tuple[Move, ...] = ()

    @property
    def champion(self) -> str:
        """The version in use."""
        return self.line[-1]

    @property
    def been(self) -> set[str]:
        """Versions that are or were in use."""
        return {move.after for move in self.moves} | {self.champion}

    def reasons(self) -> dict[str, str]:
        """Why each version that anybody wanted to use is used, or not: the latest word on it."""
        said = sorted((*self.refused, *self.moves), key=lambda move: move.time)
        return {move.after: move.reason for move in said}

    def to(self, name: str, reason: str) -> Alias:
        """After a move forth."""
        return replace(self, line=(*self.line, name), moves=(*self.moves, Move(now(), self.champion, name, reason)))

    def back(self, reason: str) -> Alias:
        """After a move to the version before; the same where there is none."""
        if len(self.line) < 2:
            return self
        line = self.line[:-1]
        return replace(self, line=line, moves=(*self.moves, Move(now(), self.champion, line[-1], reason)))

    def refusing(self, name: str, reason: str) -> Alias:
        """After a move that is not made."""
        return replace(self, refused=(*self.refused, Move(now(), self.champion, name, reason)))


class AliasFile:
    """The alias on disk.

    Args:
        folder: Of the registry.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _FILE

    def stamp(self) -> Stamp | None:
        """Changes whenever the file does; None while there is none. Costs one look at the file system."""
        try:
            state = os.stat(self._path)
        except FileNotFoundError:
            return None
        return state.st_ino, state.st_mtime_ns, state.st_size

    def read(self) -> Alias:
        """The alias now. A file that cannot be read is put aside, and the base is in use again."""
        try:
            said = json.loads(self._path.read_text("utf-8"))
            line = tuple(map(str, said["line"]))
            line = line if line[:1] == (BASE,) else (BASE, *line)  # by hand: there is always a way back
            # Files of before there were refusals have none.
            moves, refused = (tuple(Move(**move) for move in all_) for all_ in (said["moves"], said.get("refused", ())))
            return Alias(line, moves, refused)
        except FileNotFoundError:
            return Alias()
        except (ValueError, KeyError, TypeError, AttributeError):
            aside = self._path.with_name(f"{_FILE}.damaged")
            logger.exception("%s cannot be read; it was put aside and the base is in use", self._path)
            self._path.replace(aside)
            return Alias()

    @contextmanager
    def locked(self) -> Iterator[Alias]:
        """The alias, for this process and thread alone: server, training and command line may all move it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / ".lock"):
            yield self.read()

    def write(self, alias: Alias) -> None:
        """Replace the alias; only inside `locked`."""
        text = json.dumps(asdict(alias), indent=1)
        with replacing(self._path) as beside:
            beside.write_text(text, "utf-8")
