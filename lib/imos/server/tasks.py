"""Tasks: all models by the name under which clients call them.

The first one is what 3D Slicer and OHIF preselect.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from imos.server.conf import AppConf
from imos.server.images import ImageCache
from imos.server.infer_task import PropagateTask
from imos.server.model_task import Drafts, Means, ModelTask
from imos.server.models import ModelCache
from imos.server.places import STATE_FOLDER
from imos.server.points_task import PointsTask
from imos.server.project import registry_of
from imos.server.scribbles_task import ScribblesTask

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore

PROPAGATE = "imos"
SCRIBBLES = "imos_scribbles"
CLICKS = "imos_clicks"
CLICKS_OF_ALL = "imos_clicks_of_all"


def tasks(conf: AppConf, datastore: Datastore) -> dict[str, ModelTask]:
    """All models.

    Args:
        conf: What the server was started with.
        datastore: Images and labels; its folder also keeps what clients have painted.
    """
    models, images = ModelCache(conf, registry_of(conf, datastore)), ImageCache()
    folder = Path(datastore._datastore_path) / STATE_FOLDER / "drafts"
    means = Means(conf, datastore, models, images, Drafts(folder, images, models), threading.Lock())
    found: dict[str, ModelTask] = {
        PROPAGATE: PropagateTask(means),
        SCRIBBLES: ScribblesTask(means),
        CLICKS: PointsTask(means, several=False),
    }
    if conf.labels:  # without names the clients have nothing to click for
        found[CLICKS_OF_ALL] = PointsTask(means, several=True)
    return found
