"""Workbench: what the routes of our own work with, made once when the server starts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from fastapi import HTTPException

from imos.errors import UserError
from imos.server import stored
from imos.server.dicomweb.catalog import Catalog
from imos.server.images import ImageCache
from imos.server.inference import image_path
from imos.server.models import ModelCache
from imos.server.project import Project
from imos.server.runs import RunQueue
from imos.server.snapshots import ImageObject, Snapshot
from imos.server.strategies import stamps_of
from imos.server.workspaces import Workspace, WorkspaceStore

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore
    from monailabel.interfaces.tasks.strategy import Strategy

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Workbench:
    """Everything that requests share.

    Attributes:
        datastore: Where images and labels lie.
        folder: Where the server keeps its own files.
        labels: Names that the server was started with, to label values.
        images: Images that were read lately.
        models: The model.
        on_save_label: MONAI Label's hook: image id, label id → what to add to the answer.
        project: What was accepted, and what is learned from it.
        strategies: How the next image can be chosen, by name.
        catalog: The studies of a folder; None where they are in an archive.
        runs: Propagations.
        choosing: Held from looking for the next image until it is noted down who was sent there.
    """

    datastore: Datastore
    folder: Path
    labels: Mapping[str, int]
    images: ImageCache
    models: ModelCache
    on_save_label: Callable[[str, str], Mapping[str, Any] | None]
    project: Project
    strategies: Mapping[str, Strategy]
    catalog: Catalog | None = None
    runs: RunQueue = field(default_factory=RunQueue)
    choosing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._workspaces = WorkspaceStore(self.folder / "workspaces", self.images, self.models)
        # Which label a workspace that nobody touched shows; gone with the workspace.
        self._begun: WeakKeyDictionary[Workspace, tuple[str, str, int, int] | None] = WeakKeyDictionary()

    def image_id(self, name: str) -> str:
        """The id of an image that is named by its id or by its series; what is neither comes back as it is."""
        if self.catalog is None or name in self.datastore.list_images():
            return name
        return self.catalog.image_of_series(name) or name

    def choose(self, strategy: str, client: str) -> str | None:
        """The image that a strategy sends a client to; None where none is left.

        Raises:
            HTTPException: 404, there is no such strategy.
        """
        if strategy not in self.strategies:
            known = ", ".join(self.strategies)
            raise HTTPException(404, f"There is no strategy {strategy!r}. There are: {known}.")
        with self.choosing:
            found = self.strategies[strategy]({"strategy": strategy, "client_id": client}, self.datastore)
            if not found:
                return None
            image = str(found["id"])
            stamps = stamps_of(self.datastore, image)
            stamps[strategy] = {"ts": int(time.time()), "client_id": client}
            self.datastore.update_image_info(image, {"strategy": stamps})
        return image

    @contextmanager
    def workspace(self, image: str, client: str) -> Iterator[Workspace]:
        """A client's work on an image, for this thread alone.

        Args:
            image: Id of the image, or UID of its series.
            client: Who works.

        Raises:
            HTTPException: 404, there is no such image.
            UserError: The image cannot be read.
        """
        found = self.image_id(image)
        with self._workspaces.use(found, client, image_path(self.datastore, found)) as workspace:
            yield workspace

    @contextmanager
    def opened(self, image: str, client: str) -> Iterator[Workspace]:
        """The same for somebody who looks: who has not worked on the image starts from the label stored with it.

        Args:
            image: Id of the image, or UID of its series.
            client: Who works.

        Raises:
            HTTPException: 404, there is no such image.
            UserError: The image cannot be read.
        """
        with self.workspace(image, client) as workspace:
            if workspace.is_untouched and workspace.run is None:
                self._begin(workspace)
            yield workspace

    def _begin(self, workspace: Workspace) -> None:
        label = stored.label_of(self.datastore, workspace.record.image)
        notices = stored.notices_of(self.datastore, workspace.record.image, label)
        key = None if label is None else label.key
        if label is None or self._begun.get(workspace) != key:
            workspace.notices = tuple(notices)
        if self._begun.get(workspace) == key:
            return
        snapshot, objects = Snapshot(), list[ImageObject]()
        if label is not None:
            try:
                snapshot, objects = stored.read(
                    label, workspace.image, {value: name for name, value in self.labels.items()}
                )
            except UserError as error:
                # The image can be painted on all the same.
                logger.warning("The stored label of %s is not shown: %s", workspace.record.image, error)
                workspace.notices = (*notices, f"The stored label is not shown: {error}")
        workspace.begin(snapshot, objects, is_saved=label is not None and label.is_final)
        self._begun[workspace] = key
