"""What the project page says: figures about the work so far, from the log of what was accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from imos.registry.split import Side
from imos.server.acceptances import Acceptance
from imos.server.project import FINAL, Project
from imos.server.train_progress import ProgressFile


class VersionSaid(BaseModel):
    """A version, as `GET /imos/v1/models` lists it."""

    name: str
    parent: str
    state: str
    reason: str
    time: str
    promoted: bool
    new: list[str]
    replay: list[str]
    figures: dict[str, Any]
    sha256: str
    base_sha256: str


class MoveSaid(BaseModel):
    """One move of the alias."""

    time: str
    before: str
    after: str
    reason: str


class Models(BaseModel):
    """All versions, and which one is in use."""

    champion: str
    versions: list[VersionSaid]
    moves: list[MoveSaid]


class AcceptedSaid(BaseModel):
    """One accepted label; `slices`, `painted`, `untouched` and `corrected` are null where nobody counted."""

    time: str
    image: str
    side: str
    version: str
    slices: int | None
    painted: int | None
    untouched: int | None
    corrected: int | None


class Report(BaseModel):
    """The whole project.

    `untouched_share` is the share of slices with an object that were accepted as they had been propagated;
    `painted_per_volume` the mean number of slices painted by hand; `corrected_voxels` the voxels of first propagations
    that were not accepted as they were. Each counts every image once, as it was accepted last; `accepted` lists all.
    """

    images: int
    done: int
    training: int
    validation: int
    untouched_share: float | None
    painted_per_volume: float | None
    corrected_voxels: int | None
    since_last_round: int
    auto_train: int
    round: dict[str, Any]
    accepted: list[AcceptedSaid]
    models: Models


def models_of(project: Project) -> Models:
    """The versions as they stand now."""
    registry = project.registry
    versions = [
        VersionSaid(
            name=one.record.name,
            parent=one.record.parent,
            state=str(one.state),
            reason=one.reason,
            time=one.record.time,
            promoted=one.record.promoted,
            new=[label.image for label in one.record.new],
            replay=[label.image for label in one.record.replay],
            figures=asdict(one.record.figures),
            sha256=one.record.sha256,
            base_sha256=one.record.base_sha256,
        )
        for one in registry.versions()
    ]
    moves = [MoveSaid(**asdict(move)) for move in registry.moves]
    return Models(champion=registry.champion, versions=versions, moves=moves)


def report_of(project: Project) -> Report:
    """How the project stands now."""
    accepted = list(project.log.latest().values())
    counted = [one.effort for one in accepted if one.effort is not None]
    slices = sum(effort.slices for effort in counted)
    corrected = [effort.corrected for effort in counted if effort.corrected is not None]
    return Report(
        images=len(project.datastore.list_images()),
        done=len(project.datastore.get_labeled_images(FINAL)),
        training=_count(accepted, Side.TRAINING),
        validation=_count(accepted, Side.VALIDATION),
        untouched_share=sum(effort.untouched for effort in counted) / slices if slices else None,
        painted_per_volume=sum(effort.painted for effort in counted) / len(counted) if counted else None,
        corrected_voxels=sum(corrected) if corrected else None,
        since_last_round=project.since_last_round(),
        auto_train=project.conf.auto_train,
        round=ProgressFile(project.registry.folder).stats(),
        accepted=[_said(one) for one in project.log.read()],
        models=models_of(project),
    )


def _count(accepted: Sequence[Acceptance], side: Side) -> int:
    return sum(one.side is side for one in accepted)


def _said(one: Acceptance) -> AcceptedSaid:
    effort = one.effort
    return AcceptedSaid(
        time=one.time,
        image=one.image,
        side=str(one.side),
        version=one.version,
        slices=None if effort is None else effort.slices,
        painted=None if effort is None else effort.painted,
        untouched=None if effort is None else effort.untouched,
        corrected=None if effort is None else effort.corrected,
    )
