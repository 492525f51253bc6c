"""Prompts: what the user painted, and what that says about each object.

A painted slice speaks for the objects painted on it and is silent about all others (design, section 3). A prompt
therefore belongs to one object and one slice; "absent" is a prompt too. Slices that the user accepts are remembered
the same way, because they also come back voxel for voxel; but no pass starts or stops at them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imos.errors import UserError
from imos.propagation.crops import Crop
from imos.propagation.states import SliceState

__all__ = [
    "LARGEST_LABEL",
    "Place",
    "Prompt",
    "SliceState",
    "as_labels",
    "check_label",
    "check_label_map",
    "label_values",
]

LARGEST_LABEL = 65535
"""Label maps are written with 16 bits."""


@dataclass(frozen=True, slots=True)
class Place:
    """One object on one slice.

    Attributes:
        label: The user's label value.
        axis: Array axis across which the slice lies.
        index: Slice index along `axis`.
    """

    label: int
    axis: int
    index: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """One object painted (or accepted) on one slice.

    Attributes:
        label: The user's label value, 1…65535.
        axis: Array axis across which the slice lies.
        index: Slice index along `axis`.
        shape: Height and width of the slice: the two other array axes, in order.
        crop: The painted pixels; empty says that the object is absent here.
        painted: The user painted here, so passes start (or, when empty, stop) here. False: accepted from a result.
        accepted: The user looked at it and keeps it.
    """

    label: int
    axis: int
    index: int
    shape: tuple[int, int]
    crop: Crop
    painted: bool = True
    accepted: bool = False

    @classmethod
    def of_mask(cls, label: int, axis: int, index: int, mask: NDArray[np.bool_]) -> Prompt:
        """A prompt of a painted mask `(H, W)`; all False says that the object is absent here."""
        return cls(label, axis, index, (mask.shape[0], mask.shape[1]), Crop.of_mask(mask))

    @property
    def place(self) -> Place:
        """What and where."""
        return Place(self.label, self.axis, self.index)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """`(H, W)` bool; all False says the object is absent here."""
        return self.crop.foreground(self.shape)

    @property
    def is_empty(self) -> bool:
        """Whether it says that the object is absent here."""
        return self.crop.is_empty

    @property
    def starts_passes(self) -> bool:
        """Whether a pass can start here."""
        return self.painted and not self.is_empty

    @property
    def digest(self) -> str:
        """Names the painted pixels: equal masks have equal digests."""
        where = f"{self.axis},{self.index},{self.shape},{self.crop.top},{self.crop.left},{self.crop.width};"
        return hashlib.blake2b(where.encode() + self.crop.packed, digest_size=16).hexdigest()

    def accept(self, mask: NDArray[np.bool_]) -> Prompt:
        """The same slice, accepted as `mask`."""
        return replace(self, crop=Crop.of_mask(mask), accepted=True)


def check_label(label: object) -> int:
    """An object's label value as `int`.

    Raises:
        UserError: Not a whole number of 1…65535.
    """
    if isinstance(label, bool | np.bool_) or not isinstance(label, int | np.integer):
        msg = f"A label is a whole number of 1 to {LARGEST_LABEL}, not {label!r}."
        raise UserError(msg)
    if not 1 <= label <= LARGEST_LABEL:
        hint = " 0 is the background." if label == 0 else ""
        msg = f"Label {label} cannot be used: labels are 1 to {LARGEST_LABEL}.{hint}"
        raise UserError(msg)
    return int(label)


def check_label_map(labels: object, shape: tuple[int, ...], what: str) -> NDArray[np.generic]:
    """Label values as a whole-numbered array of `shape`.

    Args:
        labels: Array of label values; bool, whole numbers, or floats that are whole numbers.
        shape: The shape it must have.
        what: Names the array's purpose in messages ("slice 4 along axis 2").

    Raises:
        UserError: Another shape, values that are no labels, or nothing painted.
    """
    try:
        array = np.asarray(labels)
    except ValueError as error:
        msg = f"The painted labels of {what} are no array: their rows differ in length."
        raise UserError(msg) from error
    if array.shape != shape:
        given, needed = (" × ".join(str(size) for size in sizes) for sizes in (array.shape, shape))
        turned = array.ndim == 2 and array.shape == shape[::-1]
        hint = "Transpose it." if turned else "Paint on this image's own grid."
        msg = f"The painted labels have shape {given or 'of a single value'}, but {what} has {needed}. {hint}"
        raise UserError(msg)
    if array.dtype.kind not in "buif":
        msg = f"The painted labels are of type {array.dtype}. Use whole numbers, 0 to {LARGEST_LABEL}."
        raise UserError(msg)
    low, high = (array.min().item(), array.max().item()) if array.size else (0, 0)
    if not (low >= 0 and high <= LARGEST_LABEL):  # also NaN
        wrong = low if not low >= 0 else high
        msg = f"The painted labels hold the value {wrong:g}: labels are 1 to {LARGEST_LABEL}, 0 = background."
        raise UserError(msg)
    if array.dtype.kind == "f":
        whole = array.astype(np.uint16)
        if not np.array_equal(whole, array):
            msg = "The painted labels are not whole numbers. Give label values, not probabilities."
            raise UserError(msg)
        array = whole
    if high == 0:
        msg = f"Nothing is painted on {what}. Paint at least one voxel, or say that an object is not there: absent()."
        raise UserError(msg)
    return array


def label_values(array: NDArray[np.generic]) -> list[int]:
    """The label values above 0 that occur in what `check_label_map` returned, in order."""
    seen = np.zeros(LARGEST_LABEL + 1, bool)
    for part in array:  # part by part: numpy turns values that are used as an index to eight bytes each
        seen[part.astype(np.uint16)] = True
    return [int(value) for value in np.flatnonzero(seen) if value]


def as_labels(labels: int | Iterable[int]) -> list[int]:
    """One label or several as a list without repetitions, checked.

    Raises:
        UserError: A value is not a whole number of 1…65535.
    """
    values = [labels] if isinstance(labels, int | np.integer) else as_list(labels, "labels")
    return sorted({check_label(value) for value in values})


def as_list(values: Iterable[int], what: str) -> list[int]:
    """Several numbers as a list.

    Raises:
        UserError: It is nothing that holds several.
    """
    try:
        return list(values)
    except TypeError as error:
        msg = f"Give the {what} as a whole number or a list of them, not {values!r}."
        raise UserError(msg) from error
