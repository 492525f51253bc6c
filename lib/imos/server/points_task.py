"""Clicks as prompts: each clicked slice gets a mask, and the masks are carried through the volume.

3D Slicer ("Smart Edit") and OHIF ("Point Prompts") send all clicks of the selected object with every request, so
nothing has to be remembered between requests. Clicks on one slice make its mask together; clicks on several slices are
several prompts. A slice with clicks outside of the object alone is mended where the object was carried to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging import Image, apply_window, choose_window, plane_axis
from imos.propagation.composition import SessionState
from imos.propagation.prompts import Prompt
from imos.propagation.slices import plane_of
from imos.server.clicks import discs, grow, mend
from imos.server.grids import View
from imos.server.model_task import (
    Answer,
    Means,
    ModelTask,
    PropagationRequest,
    direction_on_image,
    limits_on_image,
    view_of,
)
from imos.server.parameters import BACKGROUND, FOREGROUND, Parameters, Point
from imos.server.snapshots import with_prompts

if TYPE_CHECKING:
    from imos import Result, Session

_NEAR = 8
"""Pixels around a click whose values choose the window."""


@dataclass(frozen=True, slots=True)
class Clicks:
    """The clicks for one object.

    Attributes:
        value: Its label value in the answer.
        name: What the client calls it.
        inside: Voxels of the object.
        outside: Voxels that are not of it.
    """

    value: int
    name: str
    inside: tuple[Point, ...]
    outside: tuple[Point, ...]


class PointsTask(ModelTask):
    """Carries clicked objects through the volume.

    Args:
        means: What all models work with.
        several: Whether clicks come for all objects at once, each list under the name of its object (type deepedit),
            or for the selected one alone (type deepgrow).
    """

    def __init__(self, means: Means, *, several: bool) -> None:
        if several:
            said = "Clicks on a slice of each object make masks, which are carried through the volume"
            super().__init__(means, InferType.DEEPEDIT, said)
        else:
            said = "Clicks inside and outside of an object on a slice make a mask, which is carried through the volume"
            super().__init__(means, InferType.DEEPGROW, said)
        self._several = several

    def __call__(self, request: PropagationRequest) -> Answer:
        """Make masks of clicks, and propagate them.

        Raises:
            UserError: No click, or one outside of the image.
        """
        started = perf_counter()
        image = self.means.images.read(request.image)
        parameters, view = request.parameters, view_of(request, image)
        clicked = self._clicked(parameters)
        clicked = [
            replace(one, inside=_on_image(one.inside, view), outside=_on_image(one.outside, view)) for one in clicked
        ]
        axis = plane_axis(image, parameters.plane)
        first, last = limits_on_image(parameters, view, axis)
        direction = direction_on_image(parameters, view, axis)
        prompts = [prompt for one in clicked for prompt in _prompts(one, image, axis)]
        if not prompts:
            msg = "No click is inside of the object. Click on it at least once, then run again."
            raise UserError(msg)
        name = f"clicks/{parameters.object_name}" if not self._several else "clicks"
        with self.means.drafts.use(request, name) as workspace:
            session: Session = workspace.session()
            session.restore(with_prompts(SessionState(first=first, last=last), prompts))
            result = self.propagate(session, direction)
            mended = [prompt for one in clicked for prompt in _mended(one, image, axis, result)]
            if mended:
                session.restore(with_prompts(session.state, mended))
                result = replace(self.propagate(session, direction), seconds=perf_counter() - started)
        return self.answer(request, image, result, {one.value: one.name for one in clicked}, started)

    def _clicked(self, parameters: Parameters) -> list[Clicks]:
        points = parameters.points
        common = points.get(BACKGROUND, ())
        if not self._several or FOREGROUND in points:
            name = parameters.object_name or "object"
            return [Clicks(1, name, points.get(FOREGROUND, ()), common)]
        values = _values(self.means.conf.labels, points)
        return [
            Clicks(
                value,
                name,
                points[name],
                # What is inside of one object is outside of the others.
                common + tuple(point for other in values if other != name for point in points[other]),
            )
            for name, value in values.items()
        ]


def _values(configured: Mapping[str, int], points: Mapping[str, Any]) -> dict[str, int]:
    """Label value of every clicked object: the configured one, the next free one for a name never seen before."""
    names = [name for name in points if name != BACKGROUND]
    free = max(configured.values(), default=0) + 1
    new = {name: free + number for number, name in enumerate(name for name in names if name not in configured)}
    return {name: configured.get(name) or new[name] for name in names}


def _on_image(points: Iterable[Point], view: View) -> tuple[Point, ...]:
    """Clicks in voxels of the image.

    Raises:
        UserError: One lies outside.
    """
    found = []
    for point in points:
        there = view.point_to_image(point)
        if not all(0 <= index < size for index, size in zip(there, view.image.shape, strict=True)):
            grid = "×".join(map(str, view.grid.size))
            msg = f"The click {list(point)} lies outside the image, which has {grid} voxels. Click inside the image."
            raise UserError(msg)
        found.append(there)
    return tuple(found)


def _prompts(clicks: Clicks, image: Image, axis: int) -> list[Prompt]:
    """A mask for every slice with a click inside of the object, the slice clicked last said last."""
    found = {}
    for index in dict.fromkeys(point[axis] for point in clicks.inside):
        inside, outside = _pixels(clicks.inside, axis, index), _pixels(clicks.outside, axis, index)
        picture = picture_of(image, axis, index, [*inside, *outside])
        shape = (picture.shape[0], picture.shape[1])
        mask = grow(picture, discs(shape, inside), discs(shape, outside))
        found[index] = Prompt.of_mask(clicks.value, axis, index, mask)
    return list(found.values())


def _mended(clicks: Clicks, image: Image, axis: int, result: Result) -> list[Prompt]:
    """Masks for slices on which only what is not of the object was clicked, where it was carried to all the same."""
    clicked = {point[axis] for point in clicks.inside}
    found = []
    for index in dict.fromkeys(point[axis] for point in clicks.outside):
        mask = plane_of(result.labels, index, axis) == clicks.value
        outside = discs((mask.shape[0], mask.shape[1]), _pixels(clicks.outside, axis, index))
        if index in clicked or not (mask & outside).any():
            continue
        picture = picture_of(image, axis, index, _pixels(clicks.outside, axis, index))
        left = mend(picture, mask, np.zeros_like(mask), outside)
        found.append(Prompt.of_mask(clicks.value, axis, index, left))
    return found


def _pixels(points: Iterable[Point], axis: int, index: int) -> list[tuple[int, int]]:
    """Row and column of the clicks on a slice."""
    on_it = [point for point in points if point[axis] == index]
    rest = [other for other in range(3) if other != axis]
    return [(point[rest[0]], point[rest[1]]) for point in on_it]


def picture_of(image: Image, axis: int, index: int, pixels: Iterable[tuple[int, int]]) -> NDArray[np.uint8]:
    """A slice in the window that shows best what is around some of its pixels.

    Args:
        image: The image.
        axis: Array axis across which the slice lies.
        index: Slice index.
        pixels: Row and column of each.
    """
    plane = plane_of(image.voxels, index, axis)
    if plane.ndim == 3:
        return np.ascontiguousarray(plane, dtype=np.uint8)
    around = [
        plane[max(row - _NEAR, 0) : row + _NEAR + 1, max(column - _NEAR, 0) : column + _NEAR + 1].ravel()
        for row, column in pixels
    ]
    return apply_window(plane, choose_window(image, np.concatenate(around) if around else None))
