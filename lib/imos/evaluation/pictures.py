"""Pictures: a sequence as a row of slices, the true outline and ours in two colours.

Volumes hang as on the contact sheet of a propagation (`imos.propagation.sheet`), upright and true to scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from imos.datasets.categories import Categories
from imos.datasets.collection import Case, Modality
from imos.evaluation.experiment import Method, Row
from imos.evaluation.planes import View
from imos.evaluation.sequences import Protocol
from imos.evaluation.tables import short
from imos.imaging import read_image
from imos.propagation.sheet import PAINTED, Colour, choose_slices, draw_masks, lay, view_along
from imos.propagation.sheet import View as Hanging

Scalar = TypeVar("Scalar", bound=np.generic)

TRUE: Colour = (80, 225, 120)
OURS: Colour = (255, 95, 80)

SLICES = 10
"""Slices of a picture, in two rows."""

_COLUMNS = 5
_TILE = 240
_TALLEST, _FLATTEST = 1.5, 0.4  # height over width of a tile
_GAP, _CAPTION, _TEXT_SIZE = 6, 26, 17
_BACKGROUND: Colour = (16, 18, 22)
_TEXT: Colour = (236, 238, 242)
_LEAST_SIDE = 24  # voxels to show, however small the object


class Rank(StrEnum):
    """Which sequence of a modality."""

    BEST = "best"
    MEDIAN = "median"
    WORST = "worst"


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence to show.

    Attributes:
        rank: Why it is shown.
        row: The sequence; it has kept what was found.
    """

    rank: Rank
    row: Row


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of the report.

    Attributes:
        group: Heading under which it stands.
        caption: What it shows.
        png: The picture.
    """

    group: str
    caption: str
    png: bytes


def pictures_of(cases: Sequence[Case], rows: Sequence[Row], categories: Categories) -> Iterator[Shown]:
    """The examples of all modalities, of the first protocol.

    Args:
        cases: Where the rows are from.
        rows: Those of `ours` have kept what was found.
        categories: Names of the labels.
    """
    of = {(case.group, case.name): case for case in cases}
    first = min((row.protocol for row in rows), key=list(Protocol).index, default=None)
    for modality, examples in choose_examples([row for row in rows if row.protocol is first]).items():
        for rank, row in ((example.rank, example.row) for example in examples):
            name = categories.name(row.group, row.case, row.sequence.label)
            score = row.score
            caption = (
                f"{rank}: {row.group}/{row.case}, {name}. J&F {short(score.j_and_f)}, J {short(score.j)},"
                f" F {short(score.f)}, leak {score.leak:.2f}"
            )
            yield Shown(str(modality), caption, draw_example(of[row.group, row.case], row))


def choose_examples(rows: Sequence[Row]) -> dict[Modality, list[Example]]:
    """The best, the median and the worst sequence of ours of each modality, by J&F.

    Args:
        rows: Of one protocol. Of fewer than three sequences each is shown once.
    """
    groups: dict[Modality, list[Row]] = {}
    for row in rows:
        if row.method is Method.OURS and row.view is View.OWN and row.found is not None:
            groups.setdefault(row.modality, []).append(row)
    examples: dict[Modality, list[Example]] = {}
    for modality in sorted(groups):
        ranked = sorted(groups[modality], key=lambda row: (-row.score.j_and_f, row.group, row.case, row.sequence.label))
        places = {0: Rank.BEST, len(ranked) // 2: Rank.MEDIAN, len(ranked) - 1: Rank.WORST}
        if len(ranked) < 3:
            places = {0: Rank.BEST, len(ranked) - 1: Rank.WORST}
        examples[modality] = [Example(rank, ranked[place]) for place, rank in sorted(places.items())]
    return examples


def draw_example(case: Case, row: Row) -> bytes:
    """A sequence as a PNG.

    Args:
        case: Where it is from.
        row: The sequence, with what was found.

    Raises:
        UserError: The case cannot be read any more.
    """
    assert row.found is not None  # `choose_examples` saw to it
    slices, labels = case.load()
    found, sequence = row.found.mask(), row.sequence
    true = labels == sequence.label
    hanging = None if case.is_video else view_along(read_image(case.path), case.axis)
    # One slice more at either end shows whether the object ends where ours does.
    first, last = max(sequence.first - 1, 0), min(sequence.last + 1, len(slices) - 1)
    indices = choose_slices(first, last, [sequence.painted], SLICES)
    shown = _hang(true[indices].any(0) | found[indices].any(0), hanging)
    rows, columns = _window(shown)
    pixel = (1.0, 1.0) if hanging is None else hanging.pixel
    aspect = (rows.stop - rows.start) * pixel[0] / ((columns.stop - columns.start) * pixel[1])
    aspect = min(max(aspect, _FLATTEST), _TALLEST)
    width, height = _TILE, round(_TILE * aspect)

    across = min(len(indices), _COLUMNS)
    down = -(-len(indices) // _COLUMNS)
    page = Picture.new("RGB", (across * (width + _GAP) - _GAP, down * (height + _CAPTION + _GAP) - _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(_TEXT_SIZE)
    kind = "frame" if case.is_video else "slice"
    scores = {part.index: part.j for part in row.score.slices}
    for number, index in enumerate(indices):
        left, top = (number % _COLUMNS) * (width + _GAP), (number // _COLUMNS) * (height + _CAPTION + _GAP)
        tile = cv2.resize(_hang(slices[index], hanging)[rows, columns], (width, height), interpolation=cv2.INTER_CUBIC)
        if tile.ndim == 2:
            tile = cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB)
        masks = [(_hang(mask[index], hanging)[rows, columns], colour) for mask, colour in ((true, TRUE), (found, OURS))]
        is_painted = index == sequence.painted
        draw_masks(tile, masks[:1] if is_painted else masks, fill=0)
        page.paste(Picture.fromarray(tile), (left, top))
        said, middle = f"{kind} {index}", top + height + _CAPTION // 2
        if is_painted:
            draw.rectangle((left, top, left + width - 1, top + height - 1), outline=PAINTED, width=3)
            said += ", painted"
        draw.text((left + 2, middle), said, fill=PAINTED if is_painted else _TEXT, font=font, anchor="lm")
        value = f"J {scores[index]:.2f}" if index in scores else "" if is_painted else "beyond the object"
        draw.text((left + width - 2, middle), value, fill=_TEXT, font=font, anchor="rm")
    png = BytesIO()
    page.save(png, format="PNG", optimize=True)
    return png.getvalue()


def _hang(plane: NDArray[Scalar], hanging: Hanging | None) -> NDArray[Scalar]:
    return np.ascontiguousarray(plane if hanging is None else lay(plane, hanging), plane.dtype)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """What is shown: the mask with surroundings, not flatter or taller than a tile."""
    inside = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    sides = [int(used[-1] - used[0]) + 1 for used in inside]
    window = []
    for used, side, count in zip(inside, sides, mask.shape, strict=True):
        wanted = max(round(1.4 * side), round(0.8 * max(sides)), _LEAST_SIDE)
        start = int(used[0]) - (wanted - side) // 2
        window.append(slice(max(start, 0), min(start + wanted, count)))
    return window[0], window[1]
