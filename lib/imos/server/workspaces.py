"""Workspaces: what one client has said about one image, in memory while it works and on disk after every change.

Nothing is answered before it is on disk. Two clients on one image have a workspace each; they share the image and the
model, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import imos
from imos.imaging import Image
from imos.propagation.prompts import Place
from imos.propagation.states import SliceState
from imos.server.grids import Grid, View, slices_from_image
from imos.server.images import ImageCache
from imos.server.models import ModelCache
from imos.server.runs import Run
from imos.server.snapshots import ImageObject, Shown, Snapshot, Timeline, show
from imos.server.workspace_files import DamagedFileError, Record, read_record, write_record

logger = logging.getLogger(__name__)

_LIVE_SESSIONS = 3
_LIVE_WORKSPACES = 32
_LISTED = {
    SliceState.PROMPTED: "painted",
    SliceState.PROPAGATED: "propagated",
    SliceState.ACCEPTED: "accepted",
    SliceState.ABSENT: "absent",
}


class Workspace:
    """One client's work on one image. Its methods are called with `lock` held.

    Args:
        file: Where it is kept.
        image_path: The image.
        record: What is known already.
        images: Where the image comes from.
        models: Where the model comes from.

    Attributes:
        lock: Held by whoever reads or changes it.
        run: The run that goes on, or None.
        notices: What the stored label, which a client starts from, does not show; sentences.
    """

    def __init__(self, file: Path, image_path: Path, record: Record, images: ImageCache, models: ModelCache) -> None:
        self.lock = threading.RLock()
        self.run: Run | None = None
        self.notices: tuple[str, ...] = ()
        self._file = file
        self._image_path = image_path
        self._record = record
        self._images = images
        self._models = models
        self._session: imos.Session | None = None
        self._version = ""
        self._shown: tuple[Snapshot, Shown] | None = None

    @property
    def is_untouched(self) -> bool:
        """Whether its client has not changed anything yet: then it is not on disk, either."""
        return self._record.revision == 0

    def begin(self, snapshot: Snapshot, objects: list[ImageObject], *, is_saved: bool) -> None:
        """Start from what others stored; nothing is written before the client changes something.

        Args:
            snapshot: What holds.
            objects: What is in it.
            is_saved: Whether it is the image's accepted label.
        """
        self._record = replace(
            self._record,
            timeline=Timeline(snapshot),
            objects={one.value: one for one in objects},
            listed=tuple(one.value for one in objects),
            saved=self._record.revision if is_saved else None,
        )

    @property
    def record(self) -> Record:
        """What is on disk, too."""
        return self._record

    @property
    def present(self) -> Snapshot:
        """What holds now."""
        return self._record.timeline.present

    @property
    def image(self) -> Image:
        """The image."""
        return self._images.read(self._image_path)

    @property
    def view(self) -> View:
        """The client's grid; the image's own before the client has sent one."""
        return View(self._record.grid or Grid.of_image(self.image), self.image)

    @property
    def shown(self) -> Shown:
        """What the present snapshot looks like."""
        if self._shown is None or self._shown[0] is not self.present:
            self._shown = self.present, show(self.present, self.image.shape)
        return self._shown[1]

    def session(self) -> imos.Session:
        """A session that knows what is known now."""
        current = self._models.current()
        if self._session is None or self._session.image is not self.image or self._version != current.version:
            self._session, self._version = imos.Session(current.model, self.image), current.version
        self._session.restore(self.present.session)
        return self._session

    def working(self) -> AbstractContextManager[None]:
        """Says, for as long as it is held, that the client waits for a run."""
        return self._models.working()

    def forget_session(self) -> None:
        """Free the memory of passes; they are computed again when they are needed."""
        if self.run is None:
            self._session = None
            self._shown = None

    def fit(self) -> None:
        """Make sure that what is known belongs to the image as it is now.

        Raises:
            UserError: The image cannot be read.
        """
        shape = self.image.shape
        if self._record.shape == shape:
            return
        if self._record.revision and self._file.exists():
            # Another image lies where this one was: what was painted fits the old one, and is kept for it.
            self._file.rename(self._file.with_suffix(f".{int(time.time())}.old"))
            logger.warning("%s has another size than before; the work on it was put aside", self._record.image)
        self._record = Record(self._record.image, self._record.client, shape=shape)

    def name_of(self, value: int) -> str:
        """What an object is called."""
        known = self._record.objects.get(value)
        return known.name if known is not None and known.name else f"object {value}"

    def write(
        self,
        timeline: Timeline,
        *,
        grid: Grid | None = None,
        objects: list[ImageObject] | None = None,
        is_saved: bool = False,
    ) -> None:
        """Go on to another timeline: first on disk, then here.

        Args:
            timeline: What holds from now on.
            grid: The client's grid, where it said one.
            objects: The client's objects, where it listed them; earlier ones are remembered behind them.
            is_saved: Whether this is what is stored as the image's label.

        Raises:
            UserError: It cannot be written; nothing has changed then.
        """
        old = self._record
        revision = old.revision + 1
        known, shown = dict(old.objects), old.listed
        if objects is not None:
            listed = {one.value: one for one in objects}
            known = listed | {value: one for value, one in known.items() if value not in listed}
            shown = tuple(listed)
        record = replace(
            old,
            timeline=timeline,
            revision=revision,
            saved=revision if is_saved else old.saved,
            grid=grid or old.grid,
            objects=known,
            listed=shown,
        )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_record(self._file, record)
        self._record = record

    def describe(self) -> dict[str, Any]:
        """STATE, as the API describes it; slices and axes in the client's grid."""
        record, shown, view = self._record, self.shown, self.view
        result = shown.result
        values = {int(value) for value in result.states} | _values(shown)
        order = [*record.listed, *sorted(values.difference(record.listed))]
        objects = [record.objects.get(value) or ImageObject(value, self.name_of(value)) for value in order]
        slices: dict[str, dict[str, Any]] = {}
        for value, states in sorted(result.states.items()):
            axis = result.axes[value]
            listed: dict[str, list[int]] = {name: [] for name in _LISTED.values()}
            for index, state in states.items():
                if state in _LISTED:
                    prompt = self.present.session.prompts.get(Place(value, axis, index))
                    # Accepted with the whole object, which is not there: no reader shall take it for a slice of it.
                    seen = SliceState.ABSENT if prompt is not None and prompt.is_empty else state
                    listed[_LISTED[seen]].append(view.index_from_image(axis, index))
            slices[str(value)] = {
                "axis": view.axis_from_image(axis),
                **{name: sorted(indices) for name, indices in listed.items()},
            }
        has_work = not self.present.is_empty
        is_saved = record.saved == record.revision
        return {
            "image": record.image,
            "client": record.client.rpartition("/")[2],
            "revision": record.revision,
            "running": None if self.run is None else self.run.key,
            "grid": {
                "size": list(view.grid.size),
                "spacing": view.grid.spacing,
                "origin": view.grid.origin,
                "directions": view.grid.directions,
            },
            "objects": [
                {"value": one.value, "name": one.name, "color": one.color, "locked": one.locked} for one in objects
            ],
            "slices": slices,
            "confidence": {
                str(value): {
                    str(index): round(float(confidence), 4)
                    for index, confidence in slices_from_image(view, result.axes[value], found).items()
                }
                for value, found in sorted(result.confidence.items())
            },
            "suggested": {
                str(value): view.index_from_image(result.axes[value], index)
                for value, index in sorted(result.suggested.items())
                if index is not None
            },
            "undo": record.timeline.undoable,
            "redo": record.timeline.redoable,
            "notices": list(self.notices),
            "accepted": is_saved and has_work,
            "unsaved": has_work and not is_saved,
        }


class WorkspaceStore:
    """All workspaces of one datastore.

    Args:
        folder: Where they are kept; made when the first one is.
        images: Where images come from.
        models: Where the model comes from.
    """

    def __init__(self, folder: Path, images: ImageCache, models: ModelCache) -> None:
        self._folder = folder
        self._images = images
        self._models = models
        self._lock = threading.Lock()
        self._workspaces: OrderedDict[tuple[str, str], Workspace] = OrderedDict()
        self._users: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def use(self, image: str, client: str, image_path: Path) -> Iterator[Workspace]:
        """The workspace of a client on an image, for this thread alone; an empty one is not on disk yet.

        Args:
            image: Id of the image.
            client: Who works.
            image_path: The image.

        Raises:
            UserError: The image cannot be read.
        """
        key = (image, client)
        with self._lock:
            if key not in self._workspaces:
                self._workspaces[key] = self._open(image, client, image_path)
            self._workspaces.move_to_end(key)
            found = self._workspaces[key]
            self._users[key] += 1
        try:
            with found.lock:
                found.fit()
                yield found
        finally:
            with self._lock:
                self._users[key] -= 1
                self._forget()

    def _forget(self) -> None:
        """Free what nobody uses now, the one used longest ago first; it is all on disk."""
        idle = [key for key, one in self._workspaces.items() if not self._users[key] and one.run is None]
        for key in idle[: max(0, len(self._workspaces) - _LIVE_SESSIONS)]:
            self._workspaces[key].forget_session()
        for key in idle[: max(0, len(self._workspaces) - _LIVE_WORKSPACES)]:
            del self._workspaces[key], self._users[key]

    def _open(self, image: str, client: str, image_path: Path) -> Workspace:
        name = hashlib.sha256(f"{image}\0{client}".encode()).hexdigest()[:40]
        file = self._folder / f"{name}.imos"
        record = Record(image, client)
        try:
            found = read_record(file)
            if (found.image, found.client) == (image, client):
                record = found
        except FileNotFoundError:
            pass
        except (DamagedFileError, OSError, ValueError, KeyError, TypeError, struct.error, json.JSONDecodeError):
            logger.exception("The work of %s on %s cannot be read; it was put aside", client, image)
            file.rename(file.with_suffix(f".{int(time.time())}.damaged"))
        return Workspace(file, image_path, record, self._images, self._models)


def _values(shown: Shown) -> set[int]:
    # Counting is several times faster than sorting a volume.
    counts = np.bincount(shown.labels.ravel(order="K"))
    return {int(value) for value in np.flatnonzero(counts) if value}
