"""A request's `params`: JSON that clients send along, of which only what is known here is taken.

Clients send back a model's whole config, their own bookkeeping, and whatever a user types. Names that would steer the
server (`image`, `label`, `device`, `model`, …) are therefore not merged over the request as MONAI Label does, but
dropped with all others that nobody reads.
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

_Choice = TypeVar("_Choice", bound=StrEnum)
_TAG = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


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
    """

    plane: Plane = Plane.AUTO
    direction: Direction = Direction.BOTH
    first: int | None = None
    last: int | None = None
    result_format: ResultFormat | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    save_tag: str | None = None

    @classmethod
    def parse(cls, params: str | Mapping[str, Any]) -> Self:
        """Read the JSON of a request.

        Raises:
            UserError: Not a JSON object, or a value that cannot be meant.
        """
        if isinstance(params, str):
            try:
                loaded = json.loads(params or "{}")
            except ValueError as error:
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
    except (TypeError, ValueError) as error:
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
