"""What happens when a label was accepted: it is taken note of, and learned from when enough have come together."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING

from imos.server.conf import AppConf
from imos.server.project import Project
from imos.server.train_task import NAME

if TYPE_CHECKING:
    from monailabel.interfaces.app import MONAILabelApp

logger = logging.getLogger(__name__)


class Training(StrEnum):
    """What an accepted label led to, as clients are told."""

    OFF = "off"
    WAITING = "waiting"
    RUNNING = "running"
    SCHEDULED = "scheduled"


def on_save_label(app: MONAILabelApp, image: str) -> dict[str, str]:
    """MONAI Label's hook: what to add to the answer.

    Args:
        app: Starts the training.
        image: Id of the image; its label may have any tag.
    """
    project = Project.of(AppConf.parse(app.conf), app.datastore())
    try:
        project.accepted(image)
    except Exception:  # the label is stored: whatever is wrong with the books, its owner must hear that it is
        logger.exception("The label of %s could not be taken note of", image)
        return {"training": Training.OFF}
    if project.conf.auto_train <= 0:
        return {"training": Training.OFF}
    if not project.is_due:
        return {"training": Training.WAITING}
    task = app.async_training(NAME)
    if not task:
        return {"training": Training.RUNNING}
    project.begin()
    return {"training": Training.SCHEDULED}
