"""The pictures of docs/slicer.md; `IMOS_PICTURES=docs/images pytest tests/viewer/test_slicer_pictures.py` makes them.

3D Slicer itself is not run: its module's requests are replayed, and the segment that comes back is drawn on the CT.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imos.metrics import dice
from tests.server.slicer import Slicer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.xdist_group("viewer"),
    # The module's client class leaves the files that it uploads open.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif("IMOS_PICTURES" not in os.environ, reason="Only where IMOS_PICTURES names a folder"),
]

LIVER, SPLEEN, PAINTED = 4, 1, 88
COLOURS = {"liver": (221, 130, 101), "spleen": (157, 108, 162)}
BRUSHED = (255, 209, 102)
SCALE, GAP, CAPTION = 2, 6, 22
LARGEST = 150_000


def test_every_step_has_its_picture(folder: Any, ct: Any, samples: Path, tmp_path: Path) -> None:
    place = Path(os.environ["IMOS_PICTURES"])
    slicer = Slicer.open(folder.url, "sample_ct", samples / "ct" / "image.nii.gz", tmp_path, "pictures")
    assert slicer.affine == pytest.approx(ct.affine), "the file's axes run to the right, to the front and up"
    brushed = {"liver": [PAINTED], "spleen": [PAINTED]}
    for name, value in (("liver", LIVER), ("spleen", SPLEEN)):
        slicer.paint(name, PAINTED, ct.labels[:, :, PAINTED] == value)
    steps = {"painted": {name: slicer.segments[name].copy() for name in COLOURS}}
    for name in COLOURS:
        slicer.scribbles(name)
    steps["updated"] = {name: slicer.segments[name].copy() for name in COLOURS}

    truth = ct.labels == LIVER
    scores = {
        k: dice(slicer.segments["liver"][:, :, k], truth[:, :, k]) for k in np.flatnonzero(truth.sum((0, 1)) > 300)
    }
    worst = int(min(scores, key=scores.__getitem__))
    slicer.paint("liver", worst, truth[:, :, worst])
    slicer.scribbles("liver")
    steps["corrected"] = {name: slicer.segments[name].copy() for name in COLOURS}
    assert dice(steps["corrected"]["liver"], truth) > dice(steps["updated"]["liver"], truth)
    assert (steps["corrected"]["spleen"] == steps["updated"]["spleen"]).all()

    shown = sorted({worst, PAINTED, *np.linspace(min(scores), max(scores), 5).round().astype(int).tolist()[1:-1]})
    for step, segments in steps.items():
        painted = brushed if step != "corrected" else {**brushed, "liver": [PAINTED, worst]}
        tiles = [tile(ct.image[:, :, k], {n: one[:, :, k] for n, one in segments.items()}) for k in shown]
        by_hand = [any(k in slices for slices in painted.values()) for k in shown]
        file = place / f"slicer_{step}.png"
        row(
            tiles, [f"slice {k}{', painted' if hand else ''}" for k, hand in zip(shown, by_hand, strict=True)], by_hand
        ).save(file, optimize=True)
        assert file.stat().st_size < LARGEST


def tile(slice_: NDArray[np.int16], masks: dict[str, NDArray[np.bool_]]) -> Image.Image:
    """One axial slice as radiologists hang it, the segments on it half transparent with an outline."""
    gray = ((slice_.astype(float) + 150) / 400).clip(0, 1) * 255
    picture = np.repeat(gray[..., None], 3, axis=2)
    size = (slice_.shape[0] * SCALE, slice_.shape[1] * SCALE)
    drawn = np.asarray(upright(picture.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)).astype(float)
    for name, mask in masks.items():
        large = np.asarray(upright((mask * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)) > 127
        inner = large.copy()
        inner[1:-1, 1:-1] &= large[:-2, 1:-1] & large[2:, 1:-1] & large[1:-1, :-2] & large[1:-1, 2:]
        drawn[large] = 0.55 * drawn[large] + 0.45 * np.array(COLOURS[name])
        drawn[large & ~inner] = COLOURS[name]
    return Image.fromarray(drawn.round().astype(np.uint8))


def upright(array: NDArray[np.uint8]) -> Image.Image:
    """The patient's right at the left, the front on top."""
    return Image.fromarray(np.ascontiguousarray(array[::-1, ::-1].swapaxes(0, 1)))


def row(tiles: list[Image.Image], captions: list[str], framed: list[bool]) -> Image.Image:
    """Slices side by side; those that were painted have a frame."""
    width, height = tiles[0].size
    picture = Image.new("RGB", (len(tiles) * (width + GAP) + GAP, height + CAPTION + 2 * GAP), (16, 20, 30))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for number, (one, words, has_frame) in enumerate(zip(tiles, captions, framed, strict=True)):
        left = GAP + number * (width + GAP)
        picture.paste(one, (left, GAP))
        if has_frame:
            pen.rectangle((left - 2, GAP - 2, left + width + 1, GAP + height + 1), outline=BRUSHED, width=2)
        pen.text((left + 4, GAP + height + 4), words, fill=BRUSHED if has_frame else (200, 205, 215), font=font)
    return picture.quantize(256, dither=Image.Dither.NONE)
