"""Model tasks: what all models have in common that MONAI Label's clients can call.

The stock clients show each model in a section of their own by its type, and send a request of their own for each type.
Whatever the request, the answer is a label map on the grid on which the client sees the image, and JSON about it.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging import Image, ImageKind, Plane, write_label_map
from imos.propagation.plan import Direction
from imos.server.conf import AppConf
from imos.server.grids import Grid, View, slices_from_image
from imos.server.images import ImageCache
from imos.server.models import ModelCache
from imos.server.parameters import Box, Parameters, ResultFormat
from imos.server.temporary import temporary_folder, temporary_prefix
from imos.server.uploads import Upload
from imos.server.workspaces import WorkspaceStore

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore

    from imos import Result, Session

Answer = tuple[str | None, dict[str, Any]]
"""Path of the label map, which the caller removes (None: there is none), and the JSON for the client."""


@dataclass(frozen=True, slots=True)
class PropagationRequest:
    """One checked request.

    Attributes:
        image: Image on the server's disk.
        image_id: Its id in the datastore; None for an image that came with the request.
        mask: Painted mask that came with the request, or None.
        parameters: What else the client said.
        session_id: The MONAI Label session that the image was uploaded in before, or None.
        grid: Grid on which the client sees the image; None for the image's own.
    """

    image: Path
    image_id: str | None
    mask: Upload | None
    parameters: Parameters
    session_id: str | None = None
    grid: Grid | None = None


class Drafts:
    """What stock clients have painted so far, for each image, client and object.

    Work on images of the datastore is on disk beside them, and survives a restart. Work on uploaded images goes when
    the server ends.

    Args:
        folder: Where work on images of the datastore is kept; made when the first one is.
        images: Where images come from.
        models: Where the model comes from.
    """

    def __init__(self, folder: Path, images: ImageCache, models: ModelCache) -> None:
        self._passing = temporary_folder()
        self._kept = WorkspaceStore(folder, images, models)
        self._uploaded = WorkspaceStore(Path(self._passing.name), images, models)

    def use(self, request: PropagationRequest, name: str) -> Any:
        """The workspace of a request's client for one object, as a context manager; see `WorkspaceStore.use`."""
        client = f"{request.parameters.client or ''}/{name}"
        if request.image_id is not None:
            return self._kept.use(request.image_id, client, request.image)
        return self._uploaded.use(request.session_id or str(request.image), client, request.image)


@dataclass(frozen=True, eq=False)
class Means:
    """What all models work with.

    Attributes:
        conf: Names of labels, and the weights.
        datastore: Where stored labels are looked up.
        models: Where the loaded model comes from.
        images: Images that were read lately.
        drafts: What clients have painted so far.
        turn: Held while passes run: two propagations at once on the same cores are slower than one after the other.
    """

    conf: AppConf
    datastore: Datastore
    models: ModelCache
    images: ImageCache
    drafts: Drafts
    turn: threading.Lock = field(default_factory=threading.Lock)


class ModelTask(InferTask):
    """One model as MONAI Label sees it.

    Args:
        means: What all models work with.
        type: Decides in which section the clients show it, and what they send.
        description: One line; the clients show it as a tooltip.
    """

    def __init__(self, means: Means, type: InferType, description: str) -> None:  # noqa: A002  MONAI Label's name
        super().__init__(
            type=type,
            labels=dict(means.conf.labels),
            dimension=3,
            description=description,
            config={
                "plane": [str(plane) for plane in Plane if plane is not Plane.TIME],
                "direction": [str(direction) for direction in Direction],
                "first_slice": "",
                "last_slice": "",
            },
        )
        self.means = means

    def is_valid(self) -> bool:
        """Always: the model needs no training before it can be used."""
        return True

    def propagate(self, session: Session, direction: Direction) -> Result:
        """Carry everything that a session knows through the volume, when it is this request's turn."""
        with self.means.turn, self.means.models.working():  # training stands still meanwhile
            return session.propagate(direction=direction)

    def answer(
        self, request: PropagationRequest, image: Image, result: Result, names: Mapping[int, str], started: float
    ) -> Answer:
        """What the client gets.

        Args:
            request: What it asked for.
            image: The image.
            result: What came of it, on the image's grid.
            names: Label value to name, as far as they are known.
            started: `perf_counter` when the request came.
        """
        view = view_of(request, image)
        labels = _in_box(result.labels, request.parameters.box)
        values = [int(value) for value in np.flatnonzero(np.bincount(labels.ravel(order="K"))) if value]
        renamed = {value: value for value in values}
        # 3D Slicer gives the first name to value 1, the second to value 2, …, whatever values they are said to have.
        # Who sends a mask has chosen its values; Slicer sends one for a single object only.
        if request.parameters.is_read_by_order and request.mask is None and values != list(range(1, len(values) + 1)):
            renamed = {value: place for place, value in enumerate(values, start=1)}
            table = np.zeros(values[-1] + 1, np.uint16)
            table[values] = list(renamed.values())
            labels = table[labels]
        file = _write(view.from_image(labels), view, request)
        known = {value: result.axes[value] for value in values if value in result.axes}
        return file, {
            "label_names": {
                name: renamed[value] for value, name in _unique(values, names, self.means.conf.labels).items()
            },
            "seconds": round(result.seconds, 3),
            "latencies": {"total": round(perf_counter() - started, 3), "infer": round(result.seconds, 3)},
            "axes": {str(renamed[value]): view.axis_from_image(axis) for value, axis in known.items()},
            "confidence": {
                str(renamed[value]): {
                    str(index): round(float(sure), 4)
                    for index, sure in slices_from_image(view, axis, result.confidence.get(value, {})).items()
                }
                for value, axis in known.items()
            },
            "suggested": {
                str(renamed[value]): None if index is None else view.index_from_image(axis, index)
                for value, axis in known.items()
                for index in (result.suggested.get(value),)
            },
        }


def view_of(request: PropagationRequest, image: Image) -> View:
    """How the client sees the image."""
    return View(request.grid or Grid.of_image(image), image)


def limits_on_image(parameters: Parameters, view: View, axis: int) -> tuple[int | None, int | None]:
    """First and last slice along an image axis; the client says them in its own indices.

    Raises:
        UserError: They are no slices of the image.
    """
    seen = view.axis_from_image(axis)
    size = view.grid.size[seen]
    for name, index in (("first_slice", parameters.first), ("last_slice", parameters.last)):
        if index is not None and not 0 <= index < size:
            msg = f"`{name}` is {index}, but the slices are counted from 0 to {size - 1}. Change it, or leave it empty."
            raise UserError(msg)
    first = None if parameters.first is None else view.index_to_image(seen, parameters.first)
    last = None if parameters.last is None else view.index_to_image(seen, parameters.last)
    return (last, first) if _is_flipped(view, axis) else (first, last)


def direction_on_image(parameters: Parameters, view: View, axis: int) -> Direction:
    """Which way along an image axis; the client says it in the order of its own slices."""
    turned = {Direction.FORWARD: Direction.BACKWARD, Direction.BACKWARD: Direction.FORWARD}
    return turned.get(parameters.direction, parameters.direction) if _is_flipped(view, axis) else parameters.direction


def _is_flipped(view: View, axis: int) -> bool:
    return view.turn is not None and view.turn.flipped[view.axis_from_image(axis)]


def _in_box(labels: NDArray[Any], box: Box | None) -> NDArray[Any]:
    if box is None:
        return labels
    inside = np.zeros_like(labels)
    part = tuple(slice(max(first, 0), max(last + 1, 0)) for first, last in box)
    inside[part] = labels[part]
    return inside


def _unique(values: Sequence[int], names: Mapping[int, str], configured: Mapping[str, int]) -> dict[int, str]:
    """A name for each value, ascending; two values of one name would be one entry for the client."""
    by_value = {value: name for name, value in configured.items()}
    found: dict[int, str] = {}
    for value in values:
        name = names.get(value) or by_value.get(value) or f"object {value}"
        found[value] = name if name not in found.values() else f"{name} ({value})"
    return found


def _write(labels: NDArray[Any], view: View, request: PropagationRequest) -> str:
    name = request.image.name.lower()
    own = next((known for known in ResultFormat if name.endswith(known)), ResultFormat.NIFTI)
    seen = view.image
    if request.grid is not None:
        voxels = np.broadcast_to(np.uint8(0), view.grid.size)
        seen = Image(voxels=voxels, affine=view.grid.affine, kind=ImageKind.VOLUME, name=view.image.name)
    handle, file = tempfile.mkstemp(prefix=temporary_prefix(), suffix=request.parameters.result_format or own)
    os.close(handle)
    try:
        write_label_map(Path(file), labels, seen)
    except BaseException:
        Path(file).unlink(missing_ok=True)
        raise
    return file
