"""Propagating: one run, slice by slice, in the way that a viewer can draw it while it goes on.

While passes run, each slice is sent as its pass sees it. When all have ended, passes are blended and objects compete;
the slices that look different then are sent again, so that a client that drew all slices shows exactly the result.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.errors import UserError
from imos.propagation.prompts import Place
from imos.propagation.result import Progress, Result
from imos.server.events import EventKind, EventLog
from imos.server.grids import View
from imos.server.painting import Plan
from imos.server.runs import Run
from imos.server.workspaces import Workspace


def propagate(workspace: Workspace, plan: Plan, run: Run) -> None:
    """Carry out a run; its last event says how it ended.

    Args:
        workspace: Its `run` is this one, so nobody else changes it meanwhile. Not locked.
        plan: What to do.
        run: Where to say how it goes on.
    """
    started = perf_counter()
    try:
        with workspace.lock:
            session = workspace.session()
        picture = _Picture(plan, session.image.shape, run.log)

        def report(progress: Progress) -> None:
            seconds = round(perf_counter() - started, 3)
            said = {"done": progress.done, "total": progress.total, "object": progress.label, "seconds": seconds}
            picture.draw(progress)
            run.log.add(EventKind.PROGRESS, said)

        try:
            with workspace.working():
                result = session.propagate(plan.values, plan.direction, report, run.cancelled.is_set)
            with workspace.lock:
                if workspace.record.shape != session.image.shape:
                    raise UserError(
                        "The image was replaced by one of another size while it was propagated."
                        " What was painted on the old one is kept aside for it; paint anew."
                    )
                if not result.cancelled and session.state is not plan.snapshot.session:
                    snapshot = replace(plan.snapshot, session=session.state)
                    workspace.write(workspace.record.timeline.do(plan.name, snapshot))
        finally:
            # However it ended: what the client shows is what the server knows.
            with workspace.lock:
                shown = workspace.shown
            if shown.labels.shape == session.image.shape:
                picture.complete(shown.labels, shown.result)
    finally:
        with workspace.lock:
            workspace.run = None
    with workspace.lock:
        said = workspace.describe()
    run.log.add(EventKind.CANCELLED if result.cancelled else EventKind.DONE, said)


class _Picture:
    """What the client shows, and the events that change it.

    A client that receives a slice of an object gives every pixel of it to the object, and makes the object's other
    pixels on that slice background.
    """

    def __init__(self, plan: Plan, shape: tuple[int, int, int], log: EventLog) -> None:
        self._view: View = plan.view
        self._prompts = plan.snapshot.session.prompts
        self._log = log
        self._labels = plan.client_labels.copy()
        taken = np.zeros(shape, np.uint16)
        for prompt in self._prompts.values():
            np.moveaxis(taken, prompt.axis, 0)[prompt.index][prompt.mask] = prompt.label
        if plan.snapshot.locked is not None:
            locked = plan.snapshot.locked.on(shape)
            taken[locked > 0] = locked[locked > 0]
        self._taken = taken

    def draw(self, progress: Progress) -> None:
        """Send a slice as a pass sees it, without what is painted or locked."""
        layer, value, axis, index = progress.layer, progress.label, progress.axis, progress.index
        if layer is None or self._view.turn is None or Place(value, axis, index) in self._prompts:
            return
        taken = np.moveaxis(self._taken, axis, 0)[index]
        mask = layer.crop.foreground((taken.shape[0], taken.shape[1]))
        mask = (mask & (taken == 0)) | (taken == value)
        self._send(
            value,
            self._view.axis_from_image(axis),
            self._view.index_from_image(axis, index),
            self._view.plane_from_image(axis, mask),
            layer.confidence,
        )

    def complete(self, labels: NDArray[Any], result: Result) -> None:
        """Send every slice that differs from the label map `(I, J, K)` of the image."""
        final = self._view.from_image(labels)
        differs = self._labels != final
        if not differs.any():
            return
        values = np.union1d(np.unique(self._labels[differs]), np.unique(final[differs]))
        for value in values[values != 0].tolist():
            changed = ((self._labels == value) != (final == value)) & differs
            axis_of_image = result.axes.get(value, result.axis)
            axis = self._view.axis_from_image(axis_of_image)
            confidence: Mapping[int, float] = result.confidence.get(value, {})
            used = np.flatnonzero(changed.any(axis=tuple(other for other in range(3) if other != axis)))
            for index in used.tolist():
                mask = np.moveaxis(final, axis, 0)[index] == value
                of_image = self._view.index_to_image(axis, index)
                self._send(value, axis, index, mask, confidence.get(of_image, 1.0))

    def _send(self, value: int, axis: int, index: int, mask: NDArray[np.bool_], confidence: float) -> None:
        plane = np.moveaxis(self._labels, axis, 0)[index]
        plane[(plane == value) & ~mask] = 0
        plane[mask] = value
        self._log.add(
            EventKind.SLICE,
            {
                "object": value,
                "axis": axis,
                "index": index,
                "confidence": round(float(min(1.0, max(0.0, confidence))), 4),
                **_packed(mask),
            },
        )


def _packed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """The smallest rectangle that holds a mask, one bit a pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return {"top": 0, "left": 0, "rows": 0, "columns": 0, "bits": ""}
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return {
        "top": int(rows[0]),
        "left": int(columns[0]),
        "rows": part.shape[0],
        "columns": part.shape[1],
        "bits": base64.b64encode(np.packbits(part).tobytes()).decode("ascii"),
    }
