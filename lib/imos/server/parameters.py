"""A request's `params`: JSON that clients send along, of which only what is known here is taken.

Clients send back a model's whole config, their own bookkeeping, and whatever a user types. Names that would steer the
server (`image`, `device`, `model`, …) are therefore not merged over the request as MONAI Label does, but dropped with
all others that nobody reads. `label` is the name of a segment, never a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeVar

from imos.errors import UserError
from imos.imaging import Plane
from imos.propagation.plan import Direction
from imos.server.snapshots import LONGEST_NAME

_Choice = TypeVar("_Choice", bound=StrEnum)
_TAG = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")

Point = tuple[int, int, int]
"""Voxel indices of a click."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and last voxel along each axis."""

FOREGROUND, BACKGROUND = "foreground", "background"
"""What clients call the clicks inside and outside of the selected object."""


class ResultFormat(StrEnum):
    """File formats a result can be asked for in (`result_extension`)."""

    NIFTI = ".nii.gz"
    NIFTI_PLAIN = ".nii"
    NRRD = ".nrrd"
    META = ".mha"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a request may say besides image and mask.

    Attributes:
        plane: Plane in which the prompts are painted.
        direction: Which way to go.
        first: First slice to segment, along the plane's axis, or None.
        last: Last slice to segment, or None.
        result_format: Format of the answer; None means the image's own where it can be written.
        names: Label value to the object's name, from the client's `label_info`.
        save_tag: Keep the result in the study as its label under this tag, or None.
        points: Clicks by what they are of: `foreground` and `background` of the selected object, or names of objects.
        object_name: The object that is selected in the client, or "".
        box: What the client limited the work to, or None.
        client: Who works, as 3D Slicer and MONAI Label's Python client say it; None from others.
    """

    plane: Plane = Plane.AUTO
    direction: Direction = Direction.BOTH
    first: int | None = None
    last: int | None = None
    result_format: ResultFormat | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    save_tag: str | None = None
    points: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    object_name: str = ""
    box: Box | None = None
    client: str | None = None

    @property
    def is_read_by_order(self) -> bool:
        """Whether the client gives the names of the answer to its values 1, 2, 3 … in order, as 3D Slicer does."""
        return self.client is not None

    @classmethod
    def parse(cls, params: str | Mapping[str, Any]) -> Self:
        """Read the JSON of a request.

        Raises:
            UserError: Not a JSON object, or a value that cannot be meant.
        """
        if isinstance(params, str):
            try:
                loaded = json.loads(params or "{}")
            except (ValueError, RecursionError) as error:
                msg = f"`params` is not JSON: {error}. Send an object such as {{}}."
                raise UserError(msg) from error
        else:
            loaded = dict(params)
        if not isinstance(loaded, dict):
            msg = f"`params` must be a JSON object such as {{}}, not a {type(loaded).__name__}."
            raise UserError(msg)
        # Clients show a list as a drop-down; one that was never touched comes back as the list, first = default.
        said = {
            name: value[0] if isinstance(value, list) and value and name != "label_info" else value
            for name, value in loaded.items()
        }
        save = str(said.get("save_label", False)).lower() in ("true", "1", "yes")
        return cls(
            plane=_choice(Plane, said, "plane") or Plane.AUTO,
            direction=_choice(Direction, said, "direction") or Direction.BOTH,
            first=_slice_index(said, "first_slice"),
            last=_slice_index(said, "last_slice"),
            result_format=_choice(ResultFormat, said, "result_extension"),
            names=_names(said.get("label_info")),
            save_tag=_tag(said.get("label_tag") or "original") if save else None,
            points=_points(loaded),
            object_name=_object_name(loaded),
            box=_box(loaded.get("roi")),
            client=str(loaded["client_id"] or "")[:LONGEST_NAME] if "client_id" in loaded else None,
        )


def _choice(kind: type[_Choice], said: Mapping[str, Any], name: str) -> _Choice | None:
    value = said.get(name)
    if value in (None, ""):
        return None
    try:
        return kind(str(value).lower())
    except ValueError as error:
        msg = f"`{name}` is {value!r}; use one of {', '.join(kind)}."
        raise UserError(msg) from error


def _slice_index(said: Mapping[str, Any], name: str) -> int | None:
    value = said.get(name)
    if value in (None, ""):
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"`{name}` is {value!r}; give a slice number, or leave it empty for no limit."
        raise UserError(msg) from error


def _tag(value: object) -> str:
    if not isinstance(value, str) or not _TAG.fullmatch(value):
        msg = f"`label_tag` is {value!r}; use letters, digits, dot, dash and underscore."
        raise UserError(msg)
    return value


def _names(label_info: object) -> dict[int, str]:
    """Value to name. Scribbles say `id`, a submitted label `idx`; both count from 1 without a background."""
    names: dict[int, str] = {}
    for entry in label_info if isinstance(label_info, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            value = entry.get("id", entry.get("idx"))
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                names[value] = entry["name"]
    return names


def _points(said: Mapping[str, Any]) -> dict[str, tuple[Point, ...]]:
    """Every list of clicks. Stock clients name the lists after the objects, so that any name may come."""
    found: dict[str, tuple[Point, ...]] = {}
    for name, value in said.items():
        if name in (FOREGROUND, BACKGROUND) and value not in (None, ""):
            if not isinstance(value, list) or not all(_is_point(one) for one in value):
                msg = f"`{name}` must be a list of clicks, each with three voxel indices, such as [[64, 80, 12]]."
                raise UserError(msg)
            found[name] = _as_points(value)
        elif isinstance(value, list) and value and all(_is_point(one) for one in value):
            found[name[:LONGEST_NAME]] = _as_points(value)
    return found


def _is_point(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < 2**31 for one in value)
    )


def _as_points(value: list[list[float]]) -> tuple[Point, ...]:
    return tuple((round(i), round(j), round(k)) for i, j, k in value)


def _object_name(said: Mapping[str, Any]) -> str:
    """Scribbles say `selected_label_name`, clicks say `label`."""
    for key in ("selected_label_name", "label"):
        value = said.get(key)
        if isinstance(value, str) and value:
            return value[:LONGEST_NAME]
    return ""


def _box(value: object) -> Box | None:
    """`[i, i, j, j, k, k]`; 3D Slicer sends an empty list where no box was drawn, and either end first."""
    if not isinstance(value, list) or not value:
        return None
    if len(value) != 6 or not all(isinstance(one, int | float) and abs(one) < 2**31 for one in value):
        msg = "`roi` must hold six voxel indices: first and last along each axis."
        raise UserError(msg)
    ends = [sorted((round(value[place]), round(value[place + 1]))) for place in (0, 2, 4)]
    return ((ends[0][0], ends[0][1]), (ends[1][0], ends[1][1]), (ends[2][0], ends[2][1]))
