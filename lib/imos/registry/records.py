"""Records: what is known about one version, and why the alias moved. They never change once they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

BASE = "base"
"""Name of what was there before any version: the weights that the server was started with."""


class State(StrEnum):
    """Where a version stands.

    `champion` is in use; `retired` was; `kept` never was: it lost, could not be judged, or was imported.
    """

    CHAMPION = "champion"
    RETIRED = "retired"
    KEPT = "kept"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, order=True)
class LabelRef:
    """One accepted label.

    Attributes:
        image: Id of the image.
        digest: SHA-256 of the label file: a label that was accepted again is another one.
    """

    image: str
    digest: str


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better a candidate is than another version, over the same volumes.

    Attributes:
        mean: Mean difference of J&F.
        low: Lower end of its interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """J&F of a candidate and of what it was compared with, means over held-out volumes.

    Attributes:
        volumes: How many were judged.
        candidate: Its J&F; None where nothing was judged.
        champion: That of the version in use then.
        base: That of the weights without any adapter of the project.
        over_champion: What is gained, with its interval.
        over_base: The same against the base.
    """

    volumes: int = 0
    candidate: float | None = None
    champion: float | None = None
    base: float | None = None
    over_champion: Gain | None = None
    over_base: Gain | None = None

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Figures:
        """From what `as_json` made."""
        return cls(
            volumes=int(said.get("volumes", 0)),
            candidate=said.get("candidate"),
            champion=said.get("champion"),
            base=said.get("base"),
            over_champion=_gain(said.get("over_champion")),
            over_base=_gain(said.get("over_base")),
        )


def _gain(said: Mapping[str, float] | None) -> Gain | None:
    return None if said is None else Gain(**said)


@dataclass(frozen=True, slots=True)
class Record:
    """One version.

    Attributes:
        name: `v0001`, `v0002`, …
        parent: The version that it was trained from.
        base_sha256: Digest of the weights that it belongs to.
        sha256: Digest of the adapter file.
        time: When it was published, ISO 8601 in UTC.
        new: Labels that it was the first to learn from.
        replay: Older labels that it learned from again.
        figures: How good it was found to be.
        promoted: Whether the gate let it pass.
        reason: Why, or why not.
    """

    name: str
    parent: str
    base_sha256: str
    sha256: str
    time: str
    new: tuple[LabelRef, ...] = ()
    replay: tuple[LabelRef, ...] = ()
    figures: Figures = field(default_factory=Figures)
    promoted: bool = False
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a file, or an answer of the server."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Record:
        """From what `as_json` made.

        Raises:
            KeyError: An entry is missing.
            TypeError: An entry is of another kind.
        """
        return cls(
            name=str(said["name"]),
            parent=str(said["parent"]),
            base_sha256=str(said["base_sha256"]),
            sha256=str(said["sha256"]),
            time=str(said["time"]),
            new=tuple(LabelRef(**one) for one in said["new"]),
            replay=tuple(LabelRef(**one) for one in said["replay"]),
            figures=Figures.from_json(said["figures"]),
            promoted=bool(said["promoted"]),
            reason=str(said["reason"]),
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """What a version is before it has a name.

    Attributes:
        parent: As in `Record`.
        new: As in `Record`.
        replay: As in `Record`.
        figures: As in `Record`.
        promoted: As in `Record`.
        reason: As in `Record`.
    """

    parent: str
    new: tuple[LabelRef, ...] = ()
    replay: tuple[LabelRef, ...] = ()
    figures: Figures = field(default_factory=Figures)
    promoted: bool = False
    reason: str = ""

    def named(self, name: str, base_sha256: str) -> Record:
        """The record of it, now, without the digest of the file that holds this very record."""
        return Record(
            name=name,
            parent=self.parent,
            base_sha256=base_sha256,
            sha256="",
            time=now(),
            new=self.new,
            replay=self.replay,
            figures=self.figures,
            promoted=self.promoted,
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class Move:
    """One move of the alias `champion`.

    Attributes:
        time: ISO 8601 in UTC.
        before: Version that was in use.
        after: Version in use from then on.
        reason: Why.
    """

    time: str
    before: str
    after: str
    reason: str


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
