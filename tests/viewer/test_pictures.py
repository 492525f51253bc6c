"""The pictures of docs/ohif.md: `IMOS_PICTURES=docs/images pytest tests/viewer/test_pictures.py` takes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.xdist_group("viewer"),
    pytest.mark.skipif("IMOS_PICTURES" not in os.environ, reason="Only where IMOS_PICTURES names a folder"),
]

SPLEEN, KIDNEY, LEFT_KIDNEY, LIVER = 1, 2, 3, 4
LARGEST = 300_000

VIEW = (286, 50, 1400, 856)
"""Of a screenshot: the view and the panel."""
LOOP = {
    "painted": "1  paint one slice",
    "propagated": "2  propagate, look where it is unsure",
    "corrected": "3  correct one slice, propagate again",
    "accepted": "4  accept",
}


def loop_of(shots: dict[str, Image.Image]) -> Image.Image:
    """Four pictures with their captions, two by two."""
    width, height, line = 560, 405, 24
    sheet = Image.new("RGB", (2 * width + 8, 2 * (height + line) + 8), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for number, (caption, shot) in enumerate(shots.items()):
        left, top = (number % 2) * (width + 8), (number // 2) * (height + line + 8)
        draw.text((left + 4, top + 2), caption, fill="black", font=font)
        sheet.paste(shot.crop(VIEW).resize((width, height), Image.Resampling.LANCZOS), (left, top + line))
    return sheet.quantize(192, dither=Image.Dither.NONE)


def test_every_step_has_its_picture(series: dict[str, Any], viewer: Callable[..., Any]) -> None:
    folder = Path(os.environ["IMOS_PICTURES"])
    opened = series["axial feet first"]
    ohif = viewer(opened)

    def take(name: str, wait: int = 700, of: Any = ohif) -> None:
        of.page.wait_for_timeout(wait)
        file = folder / f"ohif_{name}.png"
        of.page.screenshot(path=file)
        with Image.open(file) as shot:
            shot.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
        assert file.stat().st_size < LARGEST
        shots[name] = shot.convert("RGB")

    shots: dict[str, Image.Image] = {}
    k = 88
    ohif.show(k)
    take("opened")
    for value in (LIVER, KIDNEY, LEFT_KIDNEY, SPLEEN):
        ohif.choose(value)
        ohif.paint(opened.labels[:, :, k] == value, 2, k, radius=5)
    take("painted")
    ohif.press("propagate")
    ohif.page.wait_for_function("window.imos.workspace.run?.done > 60", timeout=60_000)
    take("running", 200)
    ohif.wait_for_run()
    ohif.choose(LIVER)
    ohif.show(k + 6)
    take("propagated")
    ohif.press("suggested")
    ohif.page.wait_for_timeout(1000)
    at = ohif.ask("w => w.shown(2)")
    ohif.paint(opened.labels[:, :, at] == LIVER, 2, at, radius=12)
    take("corrected")
    ohif.propagate()
    ohif.press("accept")
    ohif.page.wait_for_timeout(300)
    ohif.wait_for_run()
    take("accepted")
    newcomer = viewer(opened)
    newcomer.choose(LIVER)
    newcomer.show(k + 6)
    take("stored", of=newcomer)
    newcomer.page.close()
    loop_of({LOOP[name]: shots[name] for name in LOOP}).save(folder / "loop.png", optimize=True)
    assert (folder / "loop.png").stat().st_size < LARGEST
    ohif.press("help")
    take("shortcuts")
    ohif.press("help")
    # Last: Chromium without a graphics card is slow after it.
    ohif.page.evaluate("() => window.commandsManager.runCommand('toggleHangingProtocol', {protocolId: 'mpr'})")
    ohif.page.wait_for_function("window.imos.workspace.viewportIds.length === 3", timeout=30_000)
    ohif.page.wait_for_timeout(2500)
    middle = np.argwhere(opened.labels == LIVER).mean(axis=0).round().astype(int).tolist()
    for axis in range(3):
        ohif.show(middle[axis], axis)
    take("mpr")
