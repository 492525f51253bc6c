"""ITK's morphological contour interpolation: what users of 3D Slicer and OHIF have between painted slices today.

It knows shapes only, not the image, and needs a painted slice on either side: it never extrapolates (Albu et al. 2008;
Zukić et al. 2016).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.errors import UserError

_MARGIN = 2


def check_installed() -> None:
    """Make sure that ITK is there, without loading it: that takes ten seconds.

    Raises:
        UserError: It is not.
    """
    try:
        import itk
    except ImportError:
        found = False
    else:
        found = "MorphologicalContourInterpolator" in dir(itk)
    if not found:
        raise UserError(
            "--compare itk needs ITK's contour interpolation: pip install itk-morphologicalcontourinterpolation,"
            " or name other methods in --compare."
        )


def between(lower: NDArray[np.bool_] | None, upper: NDArray[np.bool_] | None, count: int) -> NDArray[np.bool_]:
    """Fill the slices between two painted ones.

    Args:
        lower: `(H, W)` the slice before the gap; None where none is painted.
        upper: `(H, W)` the slice behind it.
        count: Slices in the gap.

    Returns:
        `(count, H, W)`; empty where a neighbour is not painted, or is painted empty.
    """
    known = lower if lower is not None else upper
    assert known is not None  # a gap without any painted slice has nobody to ask
    made = np.zeros((count, *known.shape), bool)
    if lower is None or upper is None or not lower.any() or not upper.any():
        return made
    # Shapes between two shapes lie within both shapes' common box.
    window = tuple(
        slice(max(int(inside[0]) - _MARGIN, 0), int(inside[-1]) + 1 + _MARGIN)
        for inside in (np.flatnonzero((lower | upper).any(axis=axis)) for axis in (1, 0))
    )
    stack = np.zeros((count + 2, *lower[window].shape), np.uint8)
    stack[0], stack[-1] = lower[window], upper[window]
    made[(slice(None), *window)] = _interpolate(stack)[1:-1] > 0
    return made


def _interpolate(stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        # SWIG's modules warn of themselves when they are first used; where warnings are errors that ends the process.
        warnings.simplefilter("ignore")
        import itk

        itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)  # pieces are small, and cases run side by side
        image: Any = itk.image_from_array(stack)
        interpolator = itk.MorphologicalContourInterpolator.New(image)
        interpolator.SetAxis(2)  # ITK counts axes the other way round
        interpolator.Update()
        filled: NDArray[np.uint8] = itk.array_from_image(interpolator.GetOutput())
    return filled
