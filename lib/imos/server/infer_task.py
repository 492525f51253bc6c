"""The model `imos` as MONAI Label sees it: prompts and an image go in, a label map on the image's grid comes out.

Prompts are, in this order: the mask that came with the request, else the newest label stored with the image. Every
painted slice is a prompt for the objects painted on it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

import imos
from imos.errors import UserError
from imos.imaging import Image, Plane, read_label_map, write_label_map
from imos.propagation.plan import Direction
from imos.server.conf import AppConf
from imos.server.images import ImageCache
from imos.server.models import ModelCache
from imos.server.parameters import Parameters, ResultFormat
from imos.server.uploads import Upload, read_mask

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore
    from numpy.typing import NDArray

    from imos import Result

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PropagationRequest:
    """One checked request.

    Attributes:
        image: Image on the server's disk.
        image_id: Its id in the datastore; None for an image that came with the request.
        mask: Painted mask that came with the request, or None.
        parameters: What else the client said.
    """

    image: Path
    image_id: str | None
    mask: Upload | None
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is painted on an image.

    Attributes:
        labels: `(I, J, K)` label values on the image's grid, 0 where nothing is painted.
        names: Label value to object name, as far as the source says.
    """

    labels: NDArray[np.uint16]
    names: Mapping[int, str]


def tasks(conf: AppConf, datastore: Datastore) -> dict[str, PropagateTask]:
    """All models by the name under which clients call them."""
    models = ModelCache(conf)
    return {"imos": PropagateTask(conf, datastore, models)}


class PropagateTask(InferTask):
    """Carries painted slices through the volume.

    Args:
        conf: Names of labels, and the weights.
        datastore: Where stored labels are looked up.
        models: Where the loaded model comes from.

    Attributes:
        models: The same; other parts of the server use them too.
        images: Images that were read lately.
    """

    def __init__(self, conf: AppConf, datastore: Datastore, models: ModelCache) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=dict(conf.labels),
            dimension=3,
            description="Carries each painted slice through the whole volume",
            config={
                "plane": [str(plane) for plane in Plane if plane is not Plane.TIME],
                "direction": [str(direction) for direction in Direction],
                "first_slice": "",
                "last_slice": "",
            },
        )
        self._conf = conf
        self._datastore = datastore
        self.models = models
        self.images = ImageCache()
        # Two propagations at once on the same cores are slower than one after the other.
        self._turn = threading.Lock()

    def warm_up(self) -> None:
        """Load the model in the background, so that the first user does not wait for it."""
        threading.Thread(target=self._load, name="load-model", daemon=True).start()

    def _load(self) -> None:
        try:
            self.models.get()
        except UserError as error:  # said again to whoever asks first
            logger.error("%s", error)

    def is_valid(self) -> bool:
        """Always: the model needs no training before it can be used."""
        return True

    def __call__(self, request: PropagationRequest) -> tuple[str, dict[str, Any]]:
        """Propagate.

        Returns:
            Path of the result, which the caller removes, and the JSON for the client.

        Raises:
            UserError: No prompt, or one that does not fit the image.
        """
        started = perf_counter()
        image = self.images.read(request.image)
        prompts = self.prompts(request, image)
        if not prompts.labels.any():
            msg = "The mask has no painted voxel. Paint the object on one slice, then run again."
            raise UserError(msg)
        parameters = request.parameters
        session = imos.Session(self.models.get(), image, first=parameters.first, last=parameters.last)
        session.paint_volume(prompts.labels, plane=parameters.plane)
        with self._turn:
            result = session.propagate(direction=parameters.direction)
        file = self._write(result, image, request)
        names = self._object_names(np.unique(result.labels), prompts)
        return file, {
            # By value: Slicer gives the names to the values in this order.
            "label_names": {name: value for value, name in sorted(names.items())},
            "seconds": round(result.seconds, 3),
            "latencies": {"total": round(perf_counter() - started, 3), "infer": round(result.seconds, 3)},
            "axes": {str(label): axis for label, axis in result.axes.items()},
            "confidence": {
                str(label): {str(index): round(float(value), 4) for index, value in sorted(slices.items())}
                for label, slices in result.confidence.items()
            },
            "suggested": {str(label): index for label, index in result.suggested.items()},
        }

    def prompts(self, request: PropagationRequest, image: Image) -> Prompts:
        """What is painted: on the mask of the request, else on the newest stored label.

        Raises:
            UserError: Neither is there, or it cannot be used on this image.
        """
        if request.mask is not None:
            return Prompts(labels=read_mask(request.mask, image), names=request.parameters.names)
        stored = None if request.image_id is None else stored_prompts(self._datastore, request.image_id, image)
        if stored is None:
            msg = (
                "There is nothing to start from: the request has no painted mask and the image has no stored label."
                " Paint the object on one slice and send the mask as the multipart file `label`, or save it as the"
                " image's label first."
            )
            raise UserError(msg)
        return stored

    def _write(self, result: Result, image: Image, request: PropagationRequest) -> str:
        name = request.image.name.lower()
        own = next((known for known in ResultFormat if name.endswith(known)), ResultFormat.NIFTI)
        handle, file = tempfile.mkstemp(prefix="imos-", suffix=request.parameters.result_format or own)
        os.close(handle)
        try:
            write_label_map(Path(file), result.labels, image)
        except BaseException:
            Path(file).unlink(missing_ok=True)
            raise
        return file

    def _object_names(self, values: NDArray[np.integer[Any]], prompts: Prompts) -> dict[int, str]:
        configured = {value: name for name, value in self._conf.labels.items()}
        return {
            int(value): prompts.names.get(int(value)) or configured.get(int(value)) or f"object {value}"
            for value in values
            if value > 0
        }


def stored_prompts(datastore: Datastore, image_id: str, image: Image) -> Prompts | None:
    """The newest label stored with an image, whatever its tag; None when there is none.

    Raises:
        UserError: The stored file cannot be read on this image.
    """
    labels = datastore.get_labels_by_image_id(image_id)
    if not labels:
        return None
    infos = {tag: datastore.get_label_info(label_id, tag) or {} for tag, label_id in labels.items()}
    newest = max(infos, key=lambda tag: (infos[tag].get("ts", 0), tag == "final"))
    names = Parameters.parse({"label_info": infos[newest].get("label_info")}).names
    return Prompts(labels=read_label_map(Path(datastore.get_label_uri(labels[newest], newest)), image), names=names)
