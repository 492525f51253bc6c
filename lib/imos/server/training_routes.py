"""Routes for the panel in OHIF: how the learning goes, begin it now, stop it.

MONAI Label's own requests (`/train/`, `train_stats` of `/info/`) do the same for its clients; these say it in one short
answer that can be asked every few seconds.
"""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from pydantic import BaseModel

from imos.server.learning_routes import Administrator, ProjectHere
from imos.server.routes import Reader, refusals
from imos.server.sentences import SentenceRoute
from imos.server.train_progress import ProgressFile
from imos.server.train_task import NAME

router = APIRouter(prefix="/imos/v1/training", tags=["iMOS"], route_class=SentenceRoute, responses=refusals)


class Training(BaseModel):
    """How the learning goes.

    Attributes:
        running: Whether a round is going on.
        stage: What it does, or how the last one ended; empty where none ever began.
        step: Optimiser steps done.
        steps: In all; 0 before they are counted.
        version: What came of the last round.
        reason: Why that version is used or not, or why there is none.
        in_use: Version that propagates.
        new_labels: Labels accepted since the last round began.
        auto_train: After so many the next round begins by itself; 0: never.
    """

    running: bool
    stage: str
    step: int
    steps: int
    version: str
    reason: str
    in_use: str
    new_labels: int
    auto_train: int


@router.get("", summary="How the learning goes")
def training(project: ProjectHere, _reader: Reader) -> Training:
    """Short enough to be asked every few seconds."""
    stats = ProgressFile(project.registry.folder).stats()
    return Training(
        running=AsyncTask.status("train", check_if_running=True)[0] is not None,
        stage=str(stats.get("stage", "")),
        step=int(stats.get("epoch", 0)),
        steps=int(stats.get("total_epochs", 0)),
        version=str(stats.get("version", "")),
        reason=str(stats.get("reason", "")),
        in_use=project.registry.champion,
        new_labels=project.since_last_round(),
        auto_train=project.conf.auto_train,
    )


@router.post("/begin", status_code=202, summary="Learn now")
def learn(project: ProjectHere, who: Administrator) -> Training:
    """Begins a round with the accepted labels."""
    if not app_instance().async_training(NAME):
        raise HTTPException(409, "A round is going on already. Wait for its end, or stop it.")
    return training(project, who)


@router.post("/stop", status_code=202, summary="Stop learning")
def stop(project: ProjectHere, who: Administrator) -> Training:
    """The version in use stays; the next round for the same labels goes on from the last checkpoint."""
    AsyncTask.stop("train")
    return training(project, who)
