"""The pictures of docs/ohif.md: `IMOS_PICTURES=docs/images pytest tests/viewer/test_pictures.py` takes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.xdist_group("viewer"),
    pytest.mark.skipif("IMOS_PICTURES" not in os.environ, reason="Only where IMOS_PICTURES names a folder"),
]

SPLEEN, KIDNEY, LEFT_KIDNEY, LIVER = 1, 2, 3, 4
LARGEST = 300_000


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
