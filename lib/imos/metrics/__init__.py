"""Measures of a segmentation against a reference: J, F, Dice."""

from imos.metrics.boundary import boundary_f
from imos.metrics.overlap import dice, jaccard

__all__ = ["boundary_f", "dice", "jaccard"]
