"""Workbench: what the routes of our own work with, made once when the server starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imos.server.dicomweb.catalog import Catalog
from imos.server.images import ImageCache
from imos.server.inference import image_path
from imos.server.models import ModelCache
from imos.server.runs import RunQueue
from imos.server.workspaces import Workspace, WorkspaceStore

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore


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
        catalog: The studies of a folder; None where they are in an archive.
        runs: Propagations.
    """

    datastore: Datastore
    folder: Path
    labels: Mapping[str, int]
    images: ImageCache
    models: ModelCache
    on_save_label: Callable[[str, str], Mapping[str, Any] | None]
    catalog: Catalog | None = None
    runs: RunQueue = field(default_factory=RunQueue)

    def __post_init__(self) -> None:
        self._workspaces = WorkspaceStore(self.folder / "workspaces", self.images, self.models)

    def image_id(self, name: str) -> str:
        """The id of an image that is named by its id or by its series; what is neither comes back as it is."""
        if self.catalog is None or name in self.datastore.list_images():
            return name
        return self.catalog.image_of_series(name) or name

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
