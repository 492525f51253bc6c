"""The "Scribbles" section of 3D Slicer: the only place where it sends what the user painted to a model.

The mask holds all segments; the answer is imported into the selected one alone, so it holds nothing but that. Painted
slices of the segment are prompts. Slicer's own scribbles, the layers `foreground_scribbles` and `background_scribbles`,
are taken as strokes of which only some pixels are known: on a slice where the segment is, they mend it, elsewhere they
make its mask.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging import Image, Plane, plane_axis, thin_axis
from imos.propagation.prompts import Prompt
from imos.propagation.slices import plane_of
from imos.server.clicks import grow, mend
from imos.server.continuing import VALUE, Draft, continued
from imos.server.model_task import (
    Answer,
    Means,
    ModelTask,
    PropagationRequest,
    direction_on_image,
    limits_on_image,
    view_of,
)
from imos.server.parameters import Parameters
from imos.server.points_task import picture_of
from imos.server.snapshots import Snapshot, with_prompts
from imos.server.uploads import read_mask

if TYPE_CHECKING:
    from imos import Session

STROKES_INSIDE, STROKES_OUTSIDE = "foreground_scribbles", "background_scribbles"
_NOT_AN_OBJECT = "_scribbles"


class ScribblesTask(ModelTask):
    """Carries the painted slices of the selected segment through the volume.

    Args:
        means: What all models work with.
    """

    def __init__(self, means: Means) -> None:
        said = "Carries the painted slices of the selected segment through the volume; corrected slices too"
        super().__init__(means, InferType.SCRIBBLES, said)

    def __call__(self, request: PropagationRequest) -> Answer:
        """Find out what was painted since the last answer, and propagate it.

        Raises:
            UserError: No mask, or nothing is painted of the selected segment.
        """
        started = perf_counter()
        if request.mask is None:
            msg = "The request has no mask. Send the painted segments as the multipart file `label`."
            raise UserError(msg)
        image = self.means.images.read(request.image)
        labels = read_mask(request.mask, image)
        parameters, view = request.parameters, view_of(request, image)
        name, mask = _selected(labels, parameters)
        inside, outside = (_layer(labels, parameters, layer) for layer in (STROKES_INSIDE, STROKES_OUTSIDE))
        if not (mask.any() or inside.any()):
            msg = f"“{name}” is not painted. Paint it on one slice, or draw foreground scribbles on it, then update."
            raise UserError(msg)
        plane = None if parameters.plane is Plane.AUTO else plane_axis(image, parameters.plane)
        with self.means.drafts.use(request, f"scribbles/{name}") as workspace:
            timeline = workspace.record.timeline
            draft = continued(timeline, mask, inside | outside, image.spacing, plane)
            axis = _axis(draft, inside, image, plane)
            prompts = _strokes(draft, image, axis, mask, inside, outside)
            first, last = limits_on_image(parameters, view, axis)
            state = replace(with_prompts(draft.state, prompts), first=first, last=last)
            if state.propagation_axis(VALUE) is None:
                msg = f"Nothing of “{name}” is left where it was painted. Paint it on one slice, then update."
                raise UserError(msg)
            # Painted slices are on disk before anything long begins.
            said = Snapshot(session=state)
            workspace.write(timeline.do(f"Paint {name}", said))
            session: Session = workspace.session()
            result = self.propagate(session, direction_on_image(parameters, view, axis))
            if session.state is not state:
                timeline = workspace.record.timeline
                workspace.write(replace(timeline, present=Snapshot(session=session.state)))
        return self.answer(request, image, result, {VALUE: name}, started)


def _selected(labels: NDArray[np.uint16], parameters: Parameters) -> tuple[str, NDArray[np.bool_]]:
    """Name and mask of the selected segment.

    Raises:
        UserError: The request does not say which one it is.
    """
    named = {value: name for value, name in parameters.names.items() if not name.endswith(_NOT_AN_OBJECT)}
    if not parameters.object_name and len(named) <= 1:
        strokes = [value for value, name in parameters.names.items() if name.endswith(_NOT_AN_OBJECT)]
        return next(iter(named.values()), "object"), (labels > 0) & ~np.isin(labels, strokes)
    values = [value for value, name in named.items() if name == parameters.object_name]
    if not values:
        listed = ", ".join(named.values()) or "none"
        msg = (
            f"There is no segment “{parameters.object_name}” in `label_info`, which names: {listed}."
            " Select one of them as the label."
        )
        raise UserError(msg)
    return parameters.object_name, np.isin(labels, values)


def _layer(labels: NDArray[np.uint16], parameters: Parameters, layer: str) -> NDArray[np.bool_]:
    return np.isin(labels, [value for value, name in parameters.names.items() if name == layer])


def _axis(draft: Draft, inside: NDArray[np.bool_], image: Image, plane: int | None) -> int:
    """Image axis across which the object's slices lie."""
    known = draft.state.propagation_axis(VALUE)
    if known is not None:
        return known
    return plane if plane is not None else thin_axis(inside, image.spacing)


def _strokes(
    draft: Draft,
    image: Image,
    axis: int,
    mask: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
) -> list[Prompt]:
    """Prompts of the slices with strokes that say something new.

    Strokes stay in Slicer until they are cleared and come with every request, so that those which the answer follows
    already must change nothing.
    """
    found = []
    old = None if draft.before is None else draft.before.labels == VALUE
    rest = tuple(other for other in range(3) if other != axis)
    for index in np.flatnonzero((inside | outside).any(axis=rest)).tolist():
        within, without = plane_of(inside, index, axis), plane_of(outside, index, axis)
        painted = plane_of(mask, index, axis)
        # Slicer exports one segment a voxel: under a stroke there may be more of the object.
        seen = painted if old is None else np.where(within | without, plane_of(old, index, axis), painted)
        if not (within & ~seen).any() and not (without & seen).any():
            continue
        by_hand = (axis, index) in draft.touched
        if by_hand:
            after = (seen | within) & ~without
        else:
            rows, columns = np.nonzero(within | without)
            few = slice(None, None, max(1, len(rows) // 50))
            picture = picture_of(image, axis, index, zip(rows[few].tolist(), columns[few].tolist(), strict=True))
            if seen.any():
                after = mend(picture, seen, within, without)
            elif within.any():
                after = grow(picture, within, without)
            else:
                continue
        found.append(Prompt.of_mask(VALUE, axis, index, after))
    return found
