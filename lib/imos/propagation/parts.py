"""An object in several parts on the painted slice: each part is carried in a region of its own.

One window around several parts would show each of them coarsely and would not follow any; and parts end on different
slices. Parts that nearly touch stay together: one grows into the other.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

MOST_PARTS = 8
LEAST_SHARE = 0.03
"""Of the object's area: smaller specks go with the nearest part."""

GAP = 0.25
"""Parts farther apart than so many times the diameter of the smaller one are carried apart."""

GAP_OF_VIDEOS = 1.5
"""The same in videos, where an object may be seen in parts because another one is before it."""


def split(mask: NDArray[np.bool_], gap: float = GAP) -> list[NDArray[np.bool_]]:
    """Parts of a painted object that are carried apart.

    Args:
        mask: `(H, W)` with at least one pixel.
        gap: Least distance between parts, in diameters of the smaller one.

    Returns:
        Masks of the same shape, disjoint, together the object; the largest first.
    """
    count, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return [mask]
    areas = np.bincount(components.ravel(), minlength=count)[1:]
    order = np.argsort(-areas, kind="stable") + 1
    large = [int(number) for number in order if areas[number - 1] >= LEAST_SHARE * areas.sum()][:MOST_PARTS]
    distances = {
        number: cv2.distanceTransform((components != number).astype(np.uint8), cv2.DIST_L2, 5) for number in large
    }
    group = {number: number for number in large}
    for place, one in enumerate(large):
        for other in large[place + 1 :]:
            diameter = 2 * float(np.sqrt(areas[other - 1] / np.pi))
            if distances[one][components == other].min() <= gap * diameter:
                old, new = group[other], group[one]
                group = {number: new if home == old else home for number, home in group.items()}
    home_of = np.zeros(count, np.int64)
    for number in order:
        nearest = min(large, key=lambda part: float(distances[part][components == number].min()))
        home_of[number] = group[nearest]
    homes = home_of[components]
    return [homes == home for home in dict.fromkeys(group[number] for number in large)]
