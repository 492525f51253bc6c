"""How far the memory network is trusted with an object, from its painted slice.

Where the picture is smooth, flow and the target model alone hold an outline for many slices, and the network's small
errors add up; where it is full of edges, as in electron microscopy, they get lost and the network does not
(docs/training.md).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LOW, HIGH = 40.0, 120.0
"""Canny's thresholds, in gray values of 8 bits a pixel."""


def edge_density(picture: NDArray[np.uint8], inside: tuple[slice, slice]) -> float:
    """Share of a region's pixels that are edges.

    Args:
        picture: `(S, S)` gray, the region of interest on its grid.
        inside: Where the region lies within the slice.
    """
    edges: NDArray[np.uint8] = cv2.Canny(picture, LOW, HIGH)[inside]
    return np.count_nonzero(edges) / max(edges.size, 1)
