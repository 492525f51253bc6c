"""The model `imos` as MONAI Label sees it: prompts and an image go in, a label map on the image's grid comes out.

Prompts are, in this order: the mask that came with the request, else the newest label stored with the image. Every
painted slice is a prompt for the objects painted on it. Its type, segmentation, puts it into "Auto Segmentation" of
3D Slicer and OHIF; neither of them sends a mask there, so that there the stored label is what is carried.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType

import imos
from imos.errors import UserError
from imos.imaging import Image, Plane, plane_axis, read_label_map, thin_axis
from imos.server.datastores import SafeDatastore
from imos.server.images import ImageCache
from imos.server.model_task import (
    Answer,
    Means,
    ModelTask,
    PropagationRequest,
    direction_on_image,
    limits_on_image,
    view_of,
)
from imos.server.models import ModelCache
from imos.server.segmentations import entries_of
from imos.server.uploads import read_mask

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

NOTHING_TO_START_FROM = (
    "There is nothing to start from: the request has no painted mask and the image has no stored label."
    " Paint the object on one slice and send the mask as the multipart file `label`, or save it as the"
    " image's label first."
)


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is painted on an image.

    Attributes:
        labels: `(I, J, K)` label values on the image's grid, 0 where nothing is painted.
        names: Label value to object name, as far as the source says.
    """

    labels: NDArray[np.uint16]
    names: Mapping[int, str]


class PropagateTask(ModelTask):
    """Carries painted slices through the volume.

    Args:
        means: What all models work with.
    """

    def __init__(self, means: Means) -> None:
        super().__init__(means, InferType.SEGMENTATION, "Carries each painted slice through the whole volume")

    @property
    def models(self) -> ModelCache:
        """Where the loaded model comes from; other parts of the server use it too."""
        return self.means.models

    @property
    def images(self) -> ImageCache:
        """Images that were read lately."""
        return self.means.images

    def warm_up(self) -> None:
        """Load the model in the background, so that the first user does not wait for it."""
        threading.Thread(target=self._load, name="load-model", daemon=True).start()

    def _load(self) -> None:
        try:
            self.models.get()
        except UserError as error:  # said again to whoever asks first
            logger.error("%s", error)

    def __call__(self, request: PropagationRequest) -> Answer:
        """Propagate.

        Raises:
            UserError: No prompt, or one that does not fit the image.
        """
        started = perf_counter()
        image = self.images.read(request.image)
        prompts = self.prompts(request, image)
        if prompts is None:
            if request.parameters.is_read_by_order:
                # 3D Slicer asks for every new sample, unless the user has switched that off; without a file in the
                # answer it shows empty segments, with an error a message box each time.
                return None, {"label_names": {}, "detail": NOTHING_TO_START_FROM}
            raise UserError(NOTHING_TO_START_FROM)
        if not prompts.labels.any():
            msg = "The mask has no painted voxel. Paint the object on one slice, then run again."
            raise UserError(msg)
        parameters, view = request.parameters, view_of(request, image)
        auto = parameters.plane is Plane.AUTO
        axis = thin_axis(prompts.labels, image.spacing) if auto else plane_axis(image, parameters.plane)
        first, last = limits_on_image(parameters, view, axis)
        session = imos.Session(self.models.get(), image, first=first, last=last)
        session.paint_volume(prompts.labels, plane=parameters.plane)
        result = self.propagate(session, direction_on_image(parameters, view, axis))
        return self.answer(request, image, result, prompts.names, started)

    def prompts(self, request: PropagationRequest, image: Image) -> Prompts | None:
        """What is painted: on the mask of the request, else on the newest stored label; None without either.

        Raises:
            UserError: It cannot be used on this image.
        """
        if request.mask is not None:
            return Prompts(labels=read_mask(request.mask, image), names=request.parameters.names)
        if request.image_id is None:
            return None
        return stored_prompts(self.means.datastore, request.image_id, image)


def stored_prompts(datastore: Datastore, image_id: str, image: Image) -> Prompts | None:
    """The newest label stored with an image, whatever its tag; None when there is none.

    Raises:
        UserError: The stored file cannot be read on this image.
    """
    if isinstance(datastore, SafeDatastore):
        datastore.look_for_label(image_id)
    labels = datastore.get_labels_by_image_id(image_id)
    if not labels:
        return None
    infos: dict[str, Mapping[str, Any]] = {
        tag: datastore.get_label_info(label_id, tag) or {} for tag, label_id in labels.items()
    }
    newest = max(infos, key=lambda tag: (infos[tag].get("ts", 0), tag == "final"))
    painted = read_label_map(Path(datastore.get_label_uri(labels[newest], newest)), image)
    return Prompts(labels=painted, names=_stored_names(infos[newest], painted))


def _stored_names(info: Mapping[str, Any], painted: NDArray[np.uint16]) -> dict[int, str]:
    """What the objects of a stored label are called: whoever submitted it said it, or our own answer did."""
    values = [int(value) for value in np.unique(painted) if value]
    entries = entries_of(info.get("label_info"), values)
    said = (info.get("params") or {}).get("label_names")
    answered = {value: name for name, value in said.items()} if isinstance(said, Mapping) else {}
    return answered | {value: str(one["name"]) for value, one in entries.items() if one.get("name")}
