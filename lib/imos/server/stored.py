"""Stored labels: what somebody sees who opens an image for the first time.

Whoever has not worked on an image yet starts from the label that is stored with it. What was accepted is accepted for
them too, slice by slice as whoever stored it left it; a label that nobody accepted is only shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imos.imaging import Image, read_label_map, thin_axis
from imos.propagation.blending import Layer
from imos.propagation.composition import Outcome, SessionState
from imos.propagation.crops import Crop
from imos.propagation.prompts import Place, Prompt
from imos.propagation.result import Result
from imos.propagation.states import SliceState
from imos.server.datastores import SafeDatastore
from imos.server.segmentations import color_of, entries_of
from imos.server.snapshots import LONGEST_NAME, ImageObject, Snapshot, Voxels

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore

FINAL = "final"
_STATES = ("prompted", "absent", "accepted", "propagated", "by_hand")


@dataclass(frozen=True, eq=False, slots=True)
class StoredLabel:
    """A label as the datastore knows it, not read yet.

    Attributes:
        path: The file.
        tag: `final` for what was accepted.
        info: What was stored with it.
    """

    path: Path
    tag: str
    info: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Another one when the label was replaced."""
        state = self.path.stat()
        return str(self.path), self.tag, state.st_mtime_ns, state.st_size

    @property
    def is_final(self) -> bool:
        """Whether somebody accepted it."""
        return self.tag == FINAL


def label_of(datastore: Datastore, image_id: str) -> StoredLabel | None:
    """The label stored with an image: the accepted one, else the latest; None where there is none.

    An archive is asked first whether it has a newer one.
    """
    if isinstance(datastore, SafeDatastore):
        datastore.look_for_label(image_id)
    found = []
    for tag, label in datastore.get_labels_by_image_id(image_id).items():
        info = datastore.get_label_info(label, tag) or {}
        path = Path(datastore.get_label_uri(label, tag))
        if path.is_file():
            found.append(StoredLabel(path, tag, info))
    return max(found, key=lambda one: (one.is_final, when(one.info)), default=None)


def empty_values(label: StoredLabel | None) -> set[int]:
    """Objects that a label names and that have no voxel in it."""
    said = label.info.get("empty") if label is not None else None
    return {value for value in said if _is_index(value)} if isinstance(said, list) else set()


def notices_of(datastore: Datastore, image_id: str, label: StoredLabel | None) -> list[str]:
    """What a user should know who sees a stored label: what it does not show, and which segmentations are not shown.

    Args:
        datastore: Where it is.
        image_id: The image.
        label: What `label_of` found.

    Returns:
        Sentences.
    """
    missed = datastore.notices(image_id) if isinstance(datastore, SafeDatastore) else []
    return [*missed, *(str(one) for one in _list(label.info.get("notices") if label is not None else None))]


def slices_said(result: Result, session: SessionState, values: Sequence[int]) -> dict[str, dict[str, Any]]:
    """What is known about each slice of some objects, to be kept with their label; on the image's grid.

    Returns:
        Label value → `axis`, slice indices by state, those painted `by_hand`, the `confidence` of those propagated.
    """
    said: dict[str, dict[str, Any]] = {}
    for value in values:
        by_state: dict[str, list[int]] = {}
        for index, state in sorted(result.states.get(value, {}).items()):
            if state is not SliceState.UNKNOWN:
                by_state.setdefault(str(state), []).append(index)
        if by_state:
            confidence = result.confidence.get(value, {})
            sure = {str(one): round(float(confidence.get(one, 0)), 4) for one in by_state.get("propagated", [])}
            axis = result.axes[value]
            hand = sorted(one.index for one in session.prompts_of(value) if one.painted and one.axis == axis)
            said[str(value)] = {"axis": axis, **by_state, "by_hand": hand, "confidence": sure}
    return said


def read(
    label: StoredLabel, image: Image, names: Mapping[int, str] | None = None
) -> tuple[Snapshot, list[ImageObject]]:
    """What somebody new starts from, and what the objects are called.

    Args:
        label: Stored with the image.
        image: The image.
        names: What the server calls label values; for objects that nobody named with the label.

    Raises:
        UserError: The file cannot be read on this image.
    """
    voxels = read_label_map(label.path, image, may_be_empty=True)
    values = [int(value) for value in np.flatnonzero(np.bincount(voxels.ravel(order="K"))) if value]
    # Objects that were named and have no voxel: a client of ours would not have lost them, either.
    empty = empty_values(label).difference(values)
    objects = _objects(label.info, sorted([*values, *empty]), names or {})
    if not label.is_final:
        return Snapshot(brought=Voxels.of(voxels)), objects
    prompts: dict[Place, Prompt] = {}
    outcomes: dict[int, Outcome] = {}
    for value in values:
        mask = voxels == value
        said = _slices(label.info, value, mask)
        axis = thin_axis(mask, image.spacing) if said is None else int(said["axis"])
        planes = np.moveaxis(mask, axis, 0)
        if said is None:
            # Stored by another program: its user has accepted what is there, and said nothing of the other slices.
            said = {"accepted": np.flatnonzero(planes.any(axis=(1, 2))).tolist()}
        by_hand = set(said.get("by_hand", []))
        # Where it was not the hand that said so, passes ended before or were not to come: later ones may.
        ended = frozenset(index for index in said.get("absent", []) if index not in by_hand)
        for state in ("prompted", "absent", "accepted"):
            for index in set(said.get(state, [])) - ended:
                prompt = Prompt.of_mask(value, axis, index, planes[index])
                prompt = replace(prompt, painted=index in by_hand, accepted=state == "accepted")
                prompts[prompt.place] = prompt
        confidence = said.get("confidence") or {}
        layers = {
            index: Layer(Crop.of_mask(planes[index]), existence=1.0, confidence=float(confidence.get(str(index), 0)))
            for index in said.get("propagated", [])
        }
        if layers or ended:
            outcomes[value] = Outcome(axis, layers, ended)
    return Snapshot(SessionState(prompts, outcomes), finished=frozenset(values)), objects


def _slices(info: Mapping[str, Any], value: int, mask: NDArray[np.bool_]) -> Mapping[str, Any] | None:
    """What was said about an object's slices; None where nothing was, or not about this mask.

    Any program can store anything with a label: what is not as `slices_said` has it counts as nothing.
    """
    all_said = info.get("slices")
    said = all_said.get(str(value)) if isinstance(all_said, Mapping) else None
    if not isinstance(said, Mapping) or said.get("axis") not in (0, 1, 2):
        return None
    count = mask.shape[int(said["axis"])]
    for state in _STATES:
        if not all(_is_index(index) and index < count for index in _list(said.get(state, []), [-1])):
            return None
    sure = said.get("confidence") or {}
    if not isinstance(sure, Mapping) or not all(isinstance(one, int | float) for one in sure.values()):
        return None
    shown = np.flatnonzero(np.moveaxis(mask, int(said["axis"]), 0).any(axis=(1, 2))).tolist()
    known = {index for state in ("prompted", "accepted", "propagated") for index in said.get(state, [])}
    return said if known.issuperset(shown) else None


def _list(said: object, otherwise: Sequence[int] = ()) -> Sequence[Any]:
    return said if isinstance(said, list) else otherwise


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def when(info: Mapping[str, Any]) -> float:
    """Seconds since 1970 at which something was stored, as it says itself; 0 where it does not."""
    said = info.get("ts")
    return float(said) if isinstance(said, int | float) else 0.0


def _objects(info: Mapping[str, Any], values: list[int], names: Mapping[int, str]) -> list[ImageObject]:
    entries = entries_of(info.get("label_info"), values)
    params = info.get("params")
    said = params.get("label_names") if isinstance(params, Mapping) else None
    answered = (
        {value: str(name) for name, value in said.items() if _is_index(value)} if isinstance(said, Mapping) else {}
    )
    objects = []
    for value in values:
        entry = entries.get(value, {})
        name = str(entry.get("name") or answered.get(value) or names.get(value) or f"object {value}")[:LONGEST_NAME]
        objects.append(ImageObject(value, name, color_of(entry.get("color"))))
    return objects
