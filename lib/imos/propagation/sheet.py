"""The contact sheet: one picture that shows whether a propagation follows the anatomy.

It has slices through the objects in order, evenly chosen, with the painted ones framed; the other two planes through
the objects' centre, where a slip from slice to slice is a step in the outline; and the confidence along the slices.
Volumes are shown as radiologists hang them: upright, the patient's right on the left, anterior on the left in sagittal
planes, and true to scale whatever the spacing. Frames are shown as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from imos.imaging.image import ImageKind
from imos.imaging.planes import array_axes
from imos.imaging.windowing import choose_window
from imos.imaging.writing import replacing
from imos.propagation.slices import VolumeSlices
from imos.propagation.states import SliceState

if TYPE_CHECKING:
    from imos.imaging.image import Image
    from imos.propagation.result import Result

Colour = tuple[int, int, int]

PAINTED: Colour = (255, 205, 40)
"""Frames and lines of painted slices; no object has it."""
SUGGESTED: Colour = (255, 255, 255)
OBJECTS: tuple[Colour, ...] = (
    (64, 196, 255),  # sky blue
    (255, 110, 90),  # coral
    (90, 220, 140),  # green
    (230, 130, 255),  # violet
    (255, 160, 60),  # orange
    (80, 235, 220),  # turquoise
    (255, 130, 185),  # pink
    (165, 165, 255),  # lavender
    (185, 225, 80),  # lime
    (205, 160, 125),  # sand
)
"""Told apart on gray, also by most colour-blind people when neighbours in this order."""

_BACKGROUND: Colour = (16, 18, 22)
_RULE: Colour = (62, 67, 76)
_TEXT: Colour = (236, 238, 242)
_QUIET: Colour = (156, 162, 172)

# Pixels. The README shows the sheet at half its size, so no text is smaller than 19.
_WIDTH = 1680
_MARGIN = 30
_GAP = 8
_CAPTION = 30
_CHART = 170
_LARGEST_TILE = 460
_TALLEST = 960
_FEWEST = 10  # slices to show, where there are as many
_TALLEST_SIDE = 560
_TITLE_SIZE, _TEXT_SIZE, _SMALL_SIZE = 34, 22, 19

_SAME_FOR_ALL = ("image", "images", "img", "imgs", "frames", "volume", "scan")

_FILL = 0.2  # opacity of an object's area: enough to see which side is inside, little enough to see the tissue


@dataclass(frozen=True)
class View:
    """How an array slice is laid on the page.

    Attributes:
        across: Array axis that runs from left to right.
        down: Array axis that runs from top to bottom.
        flip_across: Whether the first voxel of `across` is on the right.
        flip_down: Whether the first voxel of `down` is at the bottom.
        pixel: Height and width of a voxel in mm.
        edges: What is at the left, right, top and bottom: anatomical letters, or empty for frames.
    """

    across: int
    down: int
    flip_across: bool
    flip_down: bool
    pixel: tuple[float, float]
    edges: tuple[str, str, str, str]


def view_along(image: Image, axis: int) -> View:
    """How to show slices that are cut across an array axis.

    Args:
        image: Its affine says where the patient's right, anterior and superior sides are.
        axis: Array axis, 0…2.
    """
    spacing = [float(value) for value in image.spacing]
    if image.kind is ImageKind.VIDEO:
        # A strip one pixel a frame could not be seen: time gets about half a frame's height.
        spacing[2] = max(1.0, 0.5 * max(image.shape[:2]) / image.shape[2]) * max(spacing[:2])
        if np.array_equal(image.affine[:3, :3], np.eye(3)):  # frames: rows, columns, time
            across, down = {2: (1, 0), 0: (1, 2), 1: (2, 0)}[axis]
            return View(across, down, False, False, (spacing[down], spacing[across]), ("", "", "", ""))
    array_axis = array_axes(image.affine)  # of right-left, front-back, head-foot
    across_world, down_world = {0: (1, 2), 1: (0, 2), 2: (0, 1)}[array_axis.index(axis)]
    across, down = array_axis[across_world], array_axis[down_world]
    # Right, anterior and superior come first on the page, and RAS+ counts towards them.
    letters = ["RL", "AP", "SI"]
    if image.kind is ImageKind.VIDEO:
        letters[array_axis.index(2)] = "  "  # time has no sides
    return View(
        across=across,
        down=down,
        flip_across=bool(image.affine[across_world, across] > 0),
        flip_down=bool(image.affine[down_world, down] > 0),
        pixel=(spacing[down], spacing[across]),
        edges=(*letters[across_world], *letters[down_world]),
    )


def lay(plane: NDArray[np.generic], view: View) -> NDArray[np.generic]:
    """Turn an array slice (its two axes in array order, perhaps a channel axis behind) to the way it is shown."""
    shown = plane if view.down < view.across else np.swapaxes(plane, 0, 1)
    if view.flip_down:
        shown = shown[::-1]
    if view.flip_across:
        shown = shown[:, ::-1]
    return shown


def choose_slices(first: int, last: int, wanted: Sequence[int], most: int = 24) -> list[int]:
    """Pick slices to show: evenly from first to last, each wanted one in place of its neighbour.

    Args:
        first: First slice that shows something.
        last: Last one.
        wanted: Slices that should be among them, the most important first.
        most: How many at most.

    Returns:
        Ascending slice indices.
    """
    wanted = list(dict.fromkeys(wanted))[:most]
    count = min(most, last - first + 1)
    even = {round(index) for index in np.linspace(first, last, count)} - set(wanted)
    inside = [index for index in wanted if first <= index <= last]
    for index in inside:
        if even and len(even) + len(wanted) > most:
            even.discard(min(even, key=lambda other: abs(other - index)))
    while even and len(even) + len(wanted) > most:
        even.discard(max(even))
    return sorted(even | set(wanted))


@dataclass(frozen=True)
class _Object:
    """One object as the sheet shows it."""

    label: int
    colour: Colour
    about: str
    painted: tuple[int, ...]  # these three are empty when its slices lie across another axis than the sheet's
    confidence: dict[int, float]
    suggested: int | None


@dataclass(frozen=True)
class _Box:
    """The part of a laid-out slice that is shown, in voxels."""

    top: int
    bottom: int
    left: int
    right: int


class _Scene:
    """The image with its objects: draws any slice along any axis, at any size."""

    def __init__(self, image: Image, labels: NDArray[np.generic], objects: Sequence[_Object]) -> None:
        self.image = image
        self.labels = labels
        self.objects = objects
        inside = [np.flatnonzero(labels.any(axis=_others(axis))) for axis in range(3)]
        self.extent = [(int(i[0]), int(i[-1])) if i.size else (0, labels.shape[n] - 1) for n, i in enumerate(inside)]
        around = tuple(slice(first, last + 1) for first, last in self.extent)
        self._window = choose_window(image, image.voxels[around] if not image.is_rgb else None)

    def box(self, axis: int, margin: float) -> _Box:
        """The part of the slices across `axis` that holds all objects, with `margin` of their size around."""
        view = view_along(self.image, axis)
        ranges: list[tuple[int, int]] = []
        size = {a: (self.extent[a][1] - self.extent[a][0] + 1) * mm for a, mm in _measures(view)}
        for a, mm in _measures(view):
            first, last = self.extent[a]
            # Nearly square, so that the tiles fill the page; and never less than a few voxels of surroundings.
            wanted = max(size[a], 0.8 * max(size.values())) + 2 * margin * max(size.values())
            spare = max(ceil((wanted / mm - (last - first + 1)) / 2), 3)
            count = self.labels.shape[a]
            first, last = max(first - spare, 0), min(last + spare, count - 1)
            if last - first + 1 > 0.8 * count:
                first, last = 0, count - 1
            flipped = view.flip_down if a == view.down else view.flip_across
            ranges.append((count - 1 - last, count - first) if flipped else (first, last + 1))
        return _Box(*ranges[0], *ranges[1])

    def aspect(self, axis: int, box: _Box) -> float:
        """Height over width of `box` in mm."""
        high, wide = view_along(self.image, axis).pixel
        return (box.bottom - box.top) * high / ((box.right - box.left) * wide)

    def draw(self, axis: int, index: int, box: _Box, width: int, height: int) -> NDArray[np.uint8]:
        """One slice with areas and outlines: `(height, width, 3)` RGB."""
        view = view_along(self.image, axis)
        shown = _cut(lay(VolumeSlices(self.image, axis, self._window)[index], view), box)
        growing = width >= shown.shape[1], height >= shown.shape[0]
        how = {2: cv2.INTER_CUBIC, 1: cv2.INTER_LINEAR, 0: cv2.INTER_AREA}[sum(growing)]
        picture = cv2.resize(shown, (width, height), interpolation=how)
        if picture.ndim == 2:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
        labels = _cut(lay(np.take(self.labels, index, axis=axis), view), box)
        masks = ((labels == item.label, item.colour) for item in self.objects)
        draw_masks(picture, masks)
        return np.asarray(picture, dtype=np.uint8)


def draw_masks(
    picture: NDArray[np.uint8], masks: Iterable[tuple[NDArray[np.bool_], Colour]], *, fill: float = _FILL
) -> None:
    """Draw areas and outlines of masks over a picture.

    Args:
        picture: `(height, width, 3)` RGB, drawn on.
        masks: Masks of the same part of the slice, on its own grid, and their colours; later ones lie on top.
        fill: Opacity of the areas; 0 draws outlines only.
    """
    height, width = picture.shape[:2]
    outlines: list[tuple[Colour, list[NDArray[np.int32]]]] = []
    for mask, colour in masks:
        if not mask.any():
            continue
        # Interpolated, then cut at one half: as smooth as the picture, and still through the voxels' borders.
        soft = cv2.resize(mask.astype(np.float32, order="C"), (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
        fine = soft >= 0.5
        area = fine[::2, ::2]
        if fill:
            picture[area] = ((1 - fill) * picture[area] + fill * np.array(colour)).astype(np.uint8)
        found, _ = cv2.findContours(fine.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        outlines.append((colour, list(found)))
    for colour, found in outlines:
        cv2.polylines(picture, found, True, colour, 2, cv2.LINE_AA, shift=1)


def draw_sheet(image: Image, result: Result, *, most: int = 24) -> NDArray[np.uint8]:
    """Draw the contact sheet of a propagation.

    Args:
        image: What was propagated through.
        result: What came out.
        most: How many slices to show at most.

    Returns:
        `(H, W, 3)` RGB; W is 1680.
    """
    axis = result.axis
    objects = _objects(image, result)
    scene = _Scene(image, result.labels, objects)
    first, last = scene.extent[axis]
    painted = sorted({index for item in objects for index in item.painted})
    suggested = sorted({item.suggested for item in objects if item.suggested is not None})
    first, last = min([first, *painted]), max([last, *painted])
    # One slice more at either end shows whether the object ends where its outline does; of a short object, more.
    more = max(1, ceil((_FEWEST - (last - first + 1)) / 2))
    first, last = max(first - more, 0), min(last + more, image.shape[axis] - 1)
    layout = _plan(scene, axis, count=last - first + 1, most=most)
    indices = choose_slices(first, last, painted + suggested, layout.columns * layout.rows)

    legend = _legend_rows(objects)
    top = _MARGIN + 86 + len(legend) * 34 + 14
    chart_top = top + layout.height + 26
    height = chart_top + (_CHART + _MARGIN if last > first else 0)
    page = Picture.new("RGB", (_WIDTH, height), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    _draw_heading(draw, image, axis, legend)
    for number, index in enumerate(indices):
        row, column = divmod(number, layout.columns)
        left = _MARGIN + column * (layout.tile_width + _GAP)
        upper = top + row * (layout.tile_height + _CAPTION + _GAP)
        tile = scene.draw(axis, index, layout.box, layout.tile_width, layout.tile_height)
        page.paste(Picture.fromarray(tile), (left, upper))
        frame = PAINTED if index in painted else SUGGESTED if index in suggested else None
        if frame:
            right, lower = left + layout.tile_width - 1, upper + layout.tile_height - 1
            draw.rectangle((left, upper, right, lower), outline=frame, width=5 if frame is PAINTED else 3)
        if number == 0:
            _draw_edges(draw, view_along(image, axis), left, upper, layout.tile_width, layout.tile_height)
        _draw_caption(draw, objects, index, left, upper + layout.tile_height, layout.tile_width)
    _draw_side(page, draw, scene, axis, layout, top, painted)
    if last > first:
        _draw_chart(page, draw, objects, painted, first, last, chart_top)
    return np.asarray(page, dtype=np.uint8)


def write_sheet(path: str | os.PathLike[str], sheet: NDArray[np.uint8]) -> None:
    """Write a contact sheet as PNG; complete or not at all.

    Args:
        path: Where to.
        sheet: `(H, W, 3)` RGB.
    """
    with replacing(Path(path)) as beside:
        Picture.fromarray(sheet).save(beside, format="PNG")


def _objects(image: Image, result: Result) -> list[_Object]:
    objects: list[_Object] = []
    for number, (label, states) in enumerate(sorted(result.states.items())):
        painted = tuple(sorted(index for index, state in states.items() if state is SliceState.PROMPTED))
        confidence = dict(result.confidence.get(label, {}))
        about = f"label {label}"
        if painted:
            listed = ", ".join(str(index) for index in painted[:5]) + (", …" if len(painted) > 5 else "")
            plane = "" if result.axes[label] == result.axis else f"{_plane_name(image, result.axes[label])} "
            about += f", painted on {plane}{listed}"
        guessed = [value for index, value in confidence.items() if states.get(index) is SliceState.PROPAGATED]
        if guessed:
            about += f", confidence {_share(float(np.mean(guessed)))}"
        colour = OBJECTS[number % len(OBJECTS)]
        if result.axes[label] == result.axis:
            objects.append(_Object(label, colour, about, painted, confidence, result.suggested.get(label)))
        else:
            objects.append(_Object(label, colour, about, (), {}, None))
    return objects


def _others(axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(3) if other != axis)


def _measures(view: View) -> tuple[tuple[int, float], tuple[int, float]]:
    return (view.down, view.pixel[0]), (view.across, view.pixel[1])


def _cut(plane: NDArray[np.generic], box: _Box) -> NDArray[np.generic]:
    return np.ascontiguousarray(plane[box.top : box.bottom, box.left : box.right])


@dataclass(frozen=True)
class _Layout:
    """Sizes of the sheet's middle: the slices on the left, the other two planes on the right. In pixels."""

    columns: int
    rows: int
    tile_width: int
    tile_height: int
    box: _Box
    side_width: int
    side: dict[int, tuple[_Box, int, int]]  # by axis: what is shown, width, height

    @property
    def grid_height(self) -> int:
        return self.rows * (self.tile_height + _CAPTION + _GAP) - _GAP

    @property
    def side_height(self) -> int:
        return sum(height + _CAPTION for _, _, height in self.side.values()) + _GAP * (len(self.side) - 1)

    @property
    def height(self) -> int:
        return max(self.grid_height, self.side_height)


def _plan(scene: _Scene, axis: int, count: int, most: int) -> _Layout:
    """Lay out the sheet so that pictures cover as much of it as they can.

    Args:
        scene: What is shown.
        axis: Array axis along which the slices lie.
        count: How many slices there are to show.
        most: How many may be shown.
    """
    box = scene.box(axis, 0.3)
    aspect = scene.aspect(axis, box)
    # Three slices or fewer make no picture of the other planes.
    others = {other: scene.box(other, 0.3) for other in (1, 0, 2) if other != axis and scene.labels.shape[axis] > 3}
    best: _Layout | None = None
    best_score = -1.0
    for side_width in range(320, 621, 20) if others else (0,):
        side = {}
        for other, cut in others.items():
            width = max(round(min(side_width, _TALLEST_SIDE / scene.aspect(other, cut))), 24)
            side[other] = (cut, width, max(round(width * scene.aspect(other, cut)), 24))
        across = _WIDTH - 2 * _MARGIN - (side_width + 3 * _GAP if others else 0)
        for columns in range(1, min(most, 12) + 1):
            rows = max(min(most // columns, ceil(count / columns)), 1)
            width = min((across - (columns - 1) * _GAP) // columns, _LARGEST_TILE)
            layout = _Layout(columns, rows, width, max(round(width * aspect), 24), box, side_width, side)
            shown = min(columns * rows, count)
            covered = shown * layout.tile_width * layout.tile_height + sum(w * h for _, w, h in side.values())
            # Few large tiles cover a page as well as many small ones, but they show less of the way.
            score = covered / (layout.height * _WIDTH) * min(1.0, shown / min(count, 0.8 * most))
            if layout.height > _TALLEST:
                score *= (_TALLEST / layout.height) ** 4
            if score > best_score:
                best, best_score = layout, score
    assert best is not None  # one column always fits
    return best


def _plane_name(image: Image, axis: int, index: int | None = None) -> str:
    number = "" if index is None else f" {index}"
    if image.kind is ImageKind.VIDEO:
        return (f"row{number} over time", f"column{number} over time", f"frame{number}")[axis]
    return ("sagittal", "coronal", "axial")[array_axes(image.affine).index(axis)] + number


def _title(image: Image) -> str:
    # Many data sets have a folder a case, whose files all have the same name.
    if image.source is not None and image.name.lower() in _SAME_FOR_ALL:
        return f"{image.source.resolve().parent.name}/{image.name}"
    return image.name


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, colour: Colour, size: int, anchor: str) -> int:
    """Write a line of text; returns its width."""
    font = _font(size)
    draw.text(at, text, fill=colour, font=font, anchor=anchor)
    return ceil(font.getlength(text))


def _share(value: float) -> str:
    """A value of [0, 1] with two digits, as papers write it: .93."""
    return f"{value:.2f}".removeprefix("0")


def _legend_rows(objects: Sequence[_Object]) -> list[list[tuple[Colour, str]]]:
    """Entries of the legend, filled into rows of the page's width."""
    rows: list[list[tuple[Colour, str]]] = [[]]
    used = 0
    for item in objects:
        width = 34 + ceil(_font(_TEXT_SIZE).getlength(item.about)) + 44
        if rows[-1] and used + width > _WIDTH - 2 * _MARGIN:
            rows.append([])
            used = 0
        rows[-1].append((item.colour, item.about))
        used += width
    return rows


def _draw_heading(draw: ImageDraw.ImageDraw, image: Image, axis: int, legend: list[list[tuple[Colour, str]]]) -> None:
    _text(draw, (_MARGIN, _MARGIN), _title(image), _TEXT, _TITLE_SIZE, "lt")
    shape = " x ".join(str(size) for size in image.shape)
    if image.kind is ImageKind.VIDEO:
        about = f"{shape[: shape.rindex(' x ')]} pixels, {image.shape[2]} frames"
    else:
        spacing = " x ".join(f"{mm:.3g}" for mm in image.spacing)
        about = f"{_plane_name(image, axis)} slices of {shape} voxels, {spacing} mm"
    _text(draw, (_MARGIN, _MARGIN + 46), about, _QUIET, _TEXT_SIZE, "lt")
    right: float = _WIDTH - _MARGIN
    for colour, text in ((SUGGESTED, "paint next"), (PAINTED, "painted")):
        right -= _text(draw, (right, _MARGIN + 57), text, _QUIET, _TEXT_SIZE, "rm") + 12
        draw.rectangle((right - 26, _MARGIN + 47, right, _MARGIN + 66), outline=colour, width=3)
        right -= 26 + 34
    for number, row in enumerate(legend):
        left, middle = _MARGIN, _MARGIN + 86 + 34 * number + 17
        for colour, text in row:
            draw.rounded_rectangle((left, middle - 10, left + 20, middle + 10), 5, fill=colour)
            left += 34 + _text(draw, (left + 32, middle), text, _TEXT, _TEXT_SIZE, "lm") + 44


def _draw_caption(
    draw: ImageDraw.ImageDraw, objects: Sequence[_Object], index: int, left: int, top: int, width: int
) -> None:
    """The slice's number, and on its right how sure each object is."""
    middle = top + _CAPTION // 2
    painted = any(index in item.painted for item in objects)
    used = _text(draw, (left + 2, middle), str(index), PAINTED if painted else _TEXT, _TEXT_SIZE, "lm") + 16
    values = [
        (item.colour, item.confidence[index])
        for item in objects
        if index in item.confidence and index not in item.painted
    ]
    room = int((width - used) // (_font(_SMALL_SIZE).getlength(".00") + 9))
    right: float = left + width - 2
    if len(values) <= room:
        for colour, value in reversed(values):
            right -= _text(draw, (right, middle), _share(value), colour, _SMALL_SIZE, "rm") + 9
    elif room > 1:
        colour, value = min(values, key=lambda pair: pair[1])
        right -= _text(draw, (right, middle), _share(value), colour, _SMALL_SIZE, "rm") + 7
        _text(draw, (right, middle), "least", _QUIET, _SMALL_SIZE, "rm")


def _draw_edges(draw: ImageDraw.ImageDraw, view: View, left: int, top: int, width: int, height: int) -> None:
    """Anatomical letters at the edges of a picture."""
    places = (
        ((left + 9, top + height / 2), "lm"),
        ((left + width - 9, top + height / 2), "rm"),
        ((left + width / 2, top + 8), "mt"),
        ((left + width / 2, top + height - 8), "mb"),
    )
    for letter, (at, anchor) in zip(view.edges, places, strict=True):
        draw.text(at, letter, fill=_TEXT, font=_font(_SMALL_SIZE), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _draw_side(
    page: Picture.Image,
    draw: ImageDraw.ImageDraw,
    scene: _Scene,
    axis: int,
    layout: _Layout,
    top: int,
    painted: Sequence[int],
) -> None:
    """The other two planes through the objects' centre, with lines where slices were painted."""
    spare = layout.height - layout.side_height
    for other, (box, wide, high) in layout.side.items():
        view = view_along(scene.image, other)
        left = _WIDTH - _MARGIN - layout.side_width + (layout.side_width - wide) // 2
        index = _middle(scene.labels, other)
        page.paste(Picture.fromarray(scene.draw(other, index, box, wide, high)), (left, top))
        upright = view.across == axis  # slices of the grid are seen from the side: as columns or as rows
        start, stop = (box.left, box.right) if upright else (box.top, box.bottom)
        flipped = view.flip_across if upright else view.flip_down
        for number in painted:
            place = scene.labels.shape[axis] - 1 - number if flipped else number
            along = (place + 0.5 - start) / (stop - start)
            if upright:
                _dash(draw, (left + along * wide, top), (left + along * wide, top + high), PAINTED)
            else:
                _dash(draw, (left, top + along * high), (left + wide, top + along * high), PAINTED)
        _draw_edges(draw, view, left, top, wide, high)
        caption = _plane_name(scene.image, other, index)
        _text(draw, (left + wide // 2, top + high + _CAPTION // 2), caption, _QUIET, _SMALL_SIZE, "mm")
        top += high + _CAPTION + _GAP + max(spare, 0)


def _dash(draw: ImageDraw.ImageDraw, start: tuple[float, float], stop: tuple[float, float], colour: Colour) -> None:
    """A dashed line, upright or level."""
    length = max(stop[0] - start[0], stop[1] - start[1])
    across, down = (stop[0] - start[0]) / length, (stop[1] - start[1]) / length
    for at in range(0, int(length), 10):
        end = min(at + 4, length)
        draw.line(
            (start[0] + across * at, start[1] + down * at, start[0] + across * end, start[1] + down * end),
            fill=colour,
            width=2,
        )


def _middle(labels: NDArray[np.generic], axis: int) -> int:
    """The slice across `axis` at the middle of the labelled voxels."""
    counts = np.count_nonzero(labels, axis=_others(axis))
    if not counts.any():
        return labels.shape[axis] // 2
    return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))


def _draw_chart(
    page: Picture.Image,
    draw: ImageDraw.ImageDraw,
    objects: Sequence[_Object],
    painted: Sequence[int],
    first: int,
    last: int,
    top: int,
) -> None:
    """Confidence of every object along the slices."""
    left, right, bottom = _MARGIN + 52, _WIDTH - _MARGIN - 8, top + _CHART - 30
    _text(draw, (left, top - 4), "confidence along the slices", _QUIET, _SMALL_SIZE, "lm")
    top += 20

    def x(index: float) -> float:
        return left + (index - first) / (last - first) * (right - left)

    def y(value: float) -> float:
        return bottom - value * (bottom - top)

    for value in (0.0, 0.5, 1.0):
        draw.line((left, y(value), right, y(value)), fill=_RULE, width=1)
        _text(draw, (left - 12, y(value)), {0.0: "0", 0.5: ".5", 1.0: "1"}[value], _QUIET, _SMALL_SIZE, "rm")
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**6) if (last - first) / step <= 24)
    for index in range(ceil(first / step) * step, last + 1, step):
        draw.line((x(index), bottom, x(index), bottom + 6), fill=_RULE, width=1)
        _text(draw, (x(index), bottom + 10), str(index), _QUIET, _SMALL_SIZE, "mt")
    for item in objects:
        if item.suggested is not None:
            _dash(draw, (x(item.suggested), top), (x(item.suggested), bottom), item.colour)
    for index in painted:
        draw.line((x(index), top - 4, x(index), bottom), fill=PAINTED, width=3)
    # OpenCV draws the curves: Pillow's lines have no smooth edges.
    canvas = np.array(page)
    for item in objects:
        curve: list[tuple[int, int]] = []
        for index in range(first, last + 2):
            sure = 1.0 if index in item.painted else item.confidence.get(index)
            if sure is not None and index <= last:
                curve.append((round(16 * x(index)), round(16 * y(min(max(sure, 0.0), 1.0)))))
            elif curve:
                points = np.array(curve, np.int32)
                cv2.polylines(canvas, [points], False, item.colour, 3, cv2.LINE_AA, shift=4)
                curve = []
    page.paste(Picture.fromarray(canvas))
