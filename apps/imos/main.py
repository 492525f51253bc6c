"""The iMOS app of MONAI Label: registers what `imos.server` offers and nothing else.

`monailabel start_server --app apps/imos --studies FOLDER` imports this file and looks for a class whose direct base is
named MONAILabelApp.
"""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask

from imos.server import conf, datastores, infer_task, inference, install, sessions

conf.apply_defaults()


class ImosApp(MONAILabelApp):
    """Paint one slice, get the volume."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
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
        return infer_task.tasks(conf.AppConf.parse(self.conf), self.datastore())

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run one model for a checked request; see `imos.server.inference`."""
        return inference.infer(self, self._infers, request, datastore or self.datastore())

    def _load_sessions(self, load: bool = False) -> sessions.SafeSessions | None:
        return sessions.open_sessions() if load else None

    def on_init_complete(self) -> None:
        """Install our routes once the server's own are there."""
        super().on_init_complete()
        task = self._infers["imos"]
        install.install(self, task)
        task.warm_up()
        conf.greet()
