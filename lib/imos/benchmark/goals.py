"""What the product promises on two cores without a GPU, beside what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import linregress

from imos.benchmark.measure import Measured


@dataclass(frozen=True, slots=True)
class Goal:
    """One promise.

    Attributes:
        what: In words.
        limit: Of `found`.
        found: Measured.
        unit: Of both.
        at_least: Whether `found` must not be below the limit; else not above.
    """

    what: str
    limit: float
    found: float
    unit: str = "s"
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        limit, found = (f"{value:.2f}{' ' * bool(self.unit)}{self.unit}" for value in (self.limit, self.found))
        return f"{self.what:<62} {found:>9}   {sign} {limit:<9} {'met' if self.met else 'MISSED'}"


def linearity(slices: Sequence[int], seconds: Sequence[float]) -> float:
    """R² of a straight line through seconds over slices."""
    return float(linregress(slices, seconds).rvalue ** 2)


def growth(one: Measured, many: Measured) -> float:
    """Seconds of many objects over those of one, a object; below 1 where objects share work."""
    return many.all / one.all / (many.task.objects / one.task.objects)
