"""Which tracker belongs to which weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from imos.imaging import ImageKind

if TYPE_CHECKING:
    from imos.propagation.model import Model
    from imos.propagation.session import Tracker


def tracker_for(model: Model, kind: ImageKind = ImageKind.VOLUME) -> Tracker:
    """The function that makes one pass with these weights.

    Args:
        model: What `imos.load` returned.
        kind: What the passes go through: in a video an object may come back, in a volume it ends.
    """
    if model.xmem is None:
        from imos.propagation.track import track

        return partial(track, patience=None) if kind is ImageKind.VIDEO else track
    from imos.propagation.track_xmem import XMemSettings, track_xmem

    return partial(track_xmem, settings=XMemSettings(patience=None)) if kind is ImageKind.VIDEO else track_xmem
