"""The trainer `imos` as MONAI Label sees it: "Update Model" in OHIF, "Train" in 3D Slicer, `POST /train/imos`.

MONAI Label builds the app again in a process of its own and calls the task there; what the server tells its clients
comes from files. Stopping it kills that process: the version in use is not touched, and the next round goes on from the
last checkpoint.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.train import TrainTask

from imos.errors import UserError
from imos.learning.finetuning import FineTuningError, Recipe
from imos.learning.rounds import Round
from imos.server.activity import is_busy
from imos.server.conf import AppConf, is_task_process
from imos.server.project import Project
from imos.server.tracking import track
from imos.server.train_progress import ProgressFile, Teller
from imos.training.lifeline import end_with_parent

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore

logger = logging.getLogger(__name__)

NAME = "imos"
_DEVICES = ("auto", "cpu", "cuda")
_NICE = 10


def trainers(conf: AppConf, datastore: Datastore) -> dict[str, TrainTask]:
    """All trainers by the name under which clients call them."""
    return {NAME: FineTuneTask(conf, Project.of(conf, datastore))}


class FineTuneTask(TrainTask):
    """Makes a better version of the accepted labels, or finds that it is none.

    Args:
        conf: How the server was started.
        project: What was accepted.
    """

    def __init__(self, conf: AppConf, project: Project) -> None:
        super().__init__("Learns from accepted labels; the new version is used only if it is better on held-out ones")
        self._conf = conf
        self._project = project
        self._file = ProgressFile(project.registry.folder)

    def config(self) -> dict[str, Any]:
        """What clients may choose: a list becomes a drop-down, a bool a check box."""
        return {
            "steps": self._conf.train_steps or 0,  # 0: the recipe's own
            "device": list(self._devices()),
            "multi_gpu": True,
        }

    def stats(self) -> dict[str, Any]:
        """How far the round is, for `/info`."""
        return self._file.stats()

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """One round.

        Raises:
            HTTPException: 422, it was asked for inside the server.
        """
        if not is_task_process():
            raise HTTPException(422, "run_sync is not offered: training runs beside the server; ask GET /train/.")
        end_with_parent()  # a server that comes back could not stop it
        os.nice(_NICE)
        project, registry = self._project, self._project.registry
        champion = next((one.record for one in registry.versions() if one.record.name == registry.champion), None)
        teller = Teller(self._file, None if champion is None else champion.figures.candidate)
        project.begin()
        try:
            lessons = project.lessons()
            project.begin()  # again: labels that lay there were only taken note of now, and this round learns from them
            if not lessons.new:
                raise UserError(f"No label is new since {registry.champion}. Accept more volumes, then train.")
            round_ = Round(registry, self._recipe(request), teller, partial(is_busy, registry.folder))
            record = round_.run(lessons)
        except (UserError, FineTuningError) as error:
            teller.fail(str(error))
            logger.error("%s", error)
            sys.exit(1)
        track(record)
        return self._file.stats()

    def _devices(self) -> tuple[str, ...]:
        """Where clients may have it trained: anywhere, unless whoever started the server said where."""
        return _DEVICES if self._conf.device == _DEVICES[0] else (self._conf.device,)

    def _recipe(self, request: Mapping[str, Any]) -> Recipe:
        """How to train, with what the client chose; anything else in a request is ignored."""
        from imos.propagation.model import BUNDLED

        conf = self._conf
        steps = str(request.get("steps") or "")
        device = request.get("device")
        recipe = Recipe(
            weights=Path(conf.weights) if conf.weights else BUNDLED,
            adapter=Path(conf.adapter) if conf.adapter else None,
            steps=int(steps) if steps.isdecimal() and int(steps) > 0 else conf.train_steps,
            device=device if device in self._devices() else conf.device,
        )
        wants_all = str(request.get("multi_gpu", True)).lower() in ("true", "1")
        return replace(recipe, gpus=_gpus() if wants_all and recipe.device != "cpu" else 1)


def _gpus() -> int:
    import torch

    return max(1, int(torch.cuda.device_count()))
