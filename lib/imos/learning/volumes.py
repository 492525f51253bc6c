"""Labelled volumes: an image with the label that somebody accepted, and where the next one comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imos.imaging import Image, ImageKind, Plane, plane_axis
from imos.registry.records import LabelRef

if TYPE_CHECKING:
    from imos.datasets.collection import Case


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """An image and its accepted label.

    Attributes:
        name: For messages, and for figures: one name, one volume.
        image: Volume or video.
        labels: `(I, J, K)` label values on its grid.
        axes: Label value → axis along which it was painted; others are walked across the thickest slices.
    """

    name: str
    image: Image
    labels: NDArray[Any]
    axes: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of_slices(
        cls, name: str, slices: NDArray[np.uint8], labels: NDArray[np.uint8], *, is_video: bool = False
    ) -> LabelledVolume:
        """From a stack as collections load it.

        Args:
            name: Of the volume.
            slices: `(D, H, W)` or `(D, H, W, 3)`.
            labels: `(D, H, W)`.
            is_video: Whether these are frames.
        """
        kind = ImageKind.VIDEO if is_video else ImageKind.VOLUME
        # With the identity as affine the third axis, along which slices are walked, is the first one of the stack.
        image = Image(np.moveaxis(slices, 0, 2), np.eye(4), kind, name)
        values = [int(value) for value in np.unique(labels) if value]
        return cls(name, image, np.moveaxis(labels, 0, 2), dict.fromkeys(values, 2))

    @classmethod
    def of_case(cls, case: Case) -> LabelledVolume:
        """From a case of a collection."""
        slices, labels = case.load()
        return cls.of_slices(f"{case.group}/{case.name}", slices, labels, is_video=case.is_video)

    @property
    def values(self) -> list[int]:
        """Label values that occur."""
        counts = np.bincount(self.labels.ravel(order="K"))
        return [int(value) for value in np.flatnonzero(counts) if value]

    def axis_of(self, value: int) -> int:
        """Axis along which an object is walked."""
        known = self.axes.get(value)
        if known is not None:
            return known
        return plane_axis(self.image, Plane.AUTO)

    def plane_of(self, value: int) -> Plane:
        """The plane whose slices lie across that axis."""
        axis = self.axis_of(value)
        planes = (Plane.TIME,) if self.image.kind is ImageKind.VIDEO else (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)
        return next(plane for plane in planes if plane_axis(self.image, plane) == axis)


@dataclass(frozen=True, eq=False)
class VolumeRef:
    """A labelled volume that is read when it is needed: a round never holds more than one of them.

    Attributes:
        label: Which label of which image.
        load: Reads it; may raise a `UserError`.
        patient: Whose it is; empty where nobody said. Volumes of one patient count as one when versions are compared.
    """

    label: LabelRef
    load: Callable[[], LabelledVolume]
    patient: str = ""

    @classmethod
    def of(cls, volume: LabelledVolume, digest: str = "") -> VolumeRef:
        """One that is in memory."""
        return cls(LabelRef(volume.name, digest), lambda: volume)
