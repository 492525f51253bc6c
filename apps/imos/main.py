"""The iMOS app of MONAI Label: registers what `imos.server` offers and nothing else.

`monailabel start_server --app apps/imos --studies FOLDER` imports this file and looks for a class whose direct base is
named MONAILabelApp.
"""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from imos.server import (
    conf,
    datastores,
    inference,
    install,
    learning_hooks,
    scoring,
    sessions,
    starting,
    strategies,
    tasks,
    train_task,
)
from imos.server.conf import AppConf

conf.apply_defaults()


class ImosApp(MONAILabelApp):
    """Paint one slice, get the volume."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        with starting.ends_in_a_sentence():
            AppConf.parse(conf).check_files()
            super().__init__(
                app_dir=app_dir,
                studies=studies,
                conf=conf,
                name="iMOS",
                description="Paint one slice, get the volume",
                version="0.1.0",
            )

    def init_datastore(self) -> Datastore:
        """Where images and labels lie; MONAI Label's own datastores, with the holes closed."""
        return datastores.open_datastore(self.studies) or super().init_datastore()

    def init_infers(self) -> dict[str, InferTask]:
        """The models that clients see."""
        return tasks.tasks(AppConf.parse(self.conf), self.datastore())

    def init_trainers(self) -> dict[str, TrainTask]:
        """What learns from accepted labels."""
        return train_task.trainers(AppConf.parse(self.conf), self.datastore())

    def init_strategies(self) -> dict[str, Strategy]:
        """How the next image is chosen."""
        return strategies.strategies(self.datastore(), self._infers["imos"].models)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """What tells how good the first propagation was."""
        return scoring.scoring_methods(self.datastore())

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, str]:
        """Take note of an accepted label, and train when enough have come together."""
        return learning_hooks.on_save_label(self, image_id)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run one model for a checked request; see `imos.server.inference`."""
        return inference.infer(self, self._infers, request, datastore or self.datastore())

    def _load_sessions(self, load: bool = False) -> sessions.SafeSessions | None:
        return sessions.open_sessions() if load else None

    def on_init_complete(self) -> None:
        """Install our routes once the server's own are there."""
        with starting.ends_in_a_sentence():
            super().on_init_complete()
            task = self._infers["imos"]
            install.install(self, task)
            task.warm_up()
            conf.greet(self.studies, len(self.datastore().list_images()))
