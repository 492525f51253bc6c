"""Features: what an image looks like to the key encoder, as one short vector, so that images can be compared.

Three slices a volume, in the window in which it would be shown; the mean and the spread of each channel. Kept on disk,
because reading a volume costs a second.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import imos
from imos.errors import UserError
from imos.imaging import Image, Plane, apply_window, choose_window, plane_axis, read_image
from imos.imaging.writing import replacing

logger = logging.getLogger(__name__)

Features = NDArray[np.float32]

_SIDE = 192
_PLACES = (0.3, 0.5, 0.7)


def features_of(model: imos.Model, image: Image) -> Features:
    """What an image looks like.

    Args:
        model: Weights of `small`.
        image: Volume or video.

    Returns:
        `(224,)`, of length 1.

    Raises:
        UserError: The image is constant.
    """
    import torch

    from imos.propagation.target import picture_tensor

    assert model.encoder is not None  # the caller saw to it
    axis = plane_axis(image, Plane.AUTO)
    window = choose_window(image)
    found = []
    for place in _PLACES:
        plane = np.moveaxis(image.voxels, axis, 0)[int(place * (image.shape[axis] - 1))]
        picture = np.ascontiguousarray(apply_window(plane, window))
        if picture.ndim == 3:
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        scale = _SIDE / max(picture.shape)
        height, width = (max(32, 16 * round(side * scale / 16)) for side in picture.shape)  # as the encoder wants it
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            deepest = model.encoder(picture_tensor(picture).to(model.device))[-1][0].float().cpu().numpy()
        found.append(np.concatenate([deepest.mean(axis=(1, 2)), deepest.std(axis=(1, 2))]))
    mean = np.mean(found, axis=0)
    vector: Features = (mean / max(float(np.linalg.norm(mean)), 1e-6)).astype(np.float32)
    return vector


class FeatureStore:
    """Features of a project's images, computed when they are first needed.

    Args:
        folder: Where they are kept.
        models: Gives the model.
    """

    def __init__(self, folder: Path, models: Callable[[], imos.Model]) -> None:
        self._folder = folder
        self._models = models
        self._known: dict[str, Features] = {}

    def of(self, images: Iterable[str], path_of: Callable[[str], Path], seconds: float) -> dict[str, Features]:
        """Features of as many images as there is time for; those that are known take none.

        Args:
            images: Ids, the most wanted first.
            path_of: Where an image lies; may raise what the datastore raises.
            seconds: After so long no further one is computed.
        """
        started = time.monotonic()
        found: dict[str, Features] = {}
        for image in images:
            known = self._read(image)
            if known is None and time.monotonic() - started < seconds:
                try:
                    known = features_of(self._model(), read_image(path_of(image)))
                except UserError as error:
                    logger.warning("%s cannot be compared with others: %s", image, error)
                    continue
                self._write(image, known)
            if known is not None:
                found[image] = known
        return found

    def _model(self) -> imos.Model:
        model = self._models()
        return model if model.encoder is not None else imos.load(device="cpu")  # `xmem` has no such encoder

    def _file(self, image: str) -> Path:
        return self._folder / f"{hashlib.sha256(image.encode()).hexdigest()[:32]}.npy"

    def _read(self, image: str) -> Features | None:
        if image not in self._known:
            try:
                self._known[image] = np.load(self._file(image), allow_pickle=False)
            except (OSError, ValueError):
                return None
        return self._known[image]

    def _write(self, image: str, features: Features) -> None:
        self._known[image] = features
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._file(image)) as beside:
            np.save(beside, features)
