"""What a person waits for in the viewer: a CT of 100 slices of 256² that is open, everything on this machine.

.venv/bin/python -m pytest tests/viewer/latency.py -s
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from imos.benchmark.cases import make_case

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

SIDE, SLICES, LABEL = 256, 100, 1
STARTS = (50, 40, 60)

WATCH = """w => {
  const seen = window.seen = {};
  const when = (name, button) => document.querySelector(`[data-imos=${button}]`)
    .addEventListener('click', () => { seen[name] = performance.now() }, {capture: true, once: true});
  when('clicked', 'propagate');
  when('cancelled', 'cancel');
  w.addEventListener('change', () => {
    if (seen.clicked && !seen.first && w.state.slices[1]?.propagated?.length) {
      seen.first = -1;  // on the screen with the frame after the next
      requestAnimationFrame(() => requestAnimationFrame(() => { seen.first = performance.now() }));
    }
    if (seen.clicked && w.run) seen.began = true;
    if (seen.began && !w.run && !w.busy) seen.over ??= performance.now();
  });
}"""


def test_latency(archive: Any, serve: Callable[..., str], anywhere: Callable[..., Any]) -> None:
    case = make_case(SIDE, SLICES, 1)
    image, labels = (np.moveaxis(stack, 0, 2).astype(np.int16) for stack in (case.voxels, case.labels))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    opened = archive.add(image, labels.astype(np.uint8), affine, name="latency")
    url = serve(f"{archive.url}/dicom-web")
    ohif = anywhere(url, opened)
    ohif.page.on("dialog", lambda dialog: dialog.accept())

    def begin(start: int) -> None:
        ohif.show(start)
        ohif.choose(LABEL)
        ohif.paint(opened.labels[:, :, start] == LABEL, 2, start, radius=30)
        ohif.ask(WATCH)
        ohif.press("propagate")

    def again() -> dict[str, float]:
        ohif.page.wait_for_function("() => window.seen.over")
        seen: dict[str, float] = ohif.page.evaluate("window.seen")
        ohif.press("reset")
        ohif.page.wait_for_timeout(300)
        ohif.wait_for_run()
        return seen

    first, whole = [], []
    for start in STARTS:
        begin(start)
        seen = again()
        first.append(seen["first"] - seen["clicked"])
        whole.append(seen["over"] - seen["clicked"])
    cancels = []
    for start in STARTS:
        begin(start - 1)
        ohif.page.wait_for_function("window.imos.workspace.run?.done > 10", timeout=60_000)
        ohif.press("cancel")
        seen = again()
        cancels.append(seen["over"] - seen["cancelled"])
    waits: list[float] = []
    begin(48)
    ohif.page.wait_for_function("window.imos.workspace.run", timeout=20_000)
    with httpx.Client() as client:
        while len(waits) < 20 and ohif.ask("w => Boolean(w.run)"):
            started = time.perf_counter()
            client.get(f"{url}/info/").raise_for_status()
            waits.append(1000 * (time.perf_counter() - started))
    again()
    print()
    for what, found in (
        ("first propagated slice on the screen", first),
        ("the whole volume", whole),
        ("cancelled", cancels),
        ("GET /info/ during a run", waits),
    ):
        print(f"{what:36}  median {statistics.median(found):5.0f} ms of {len(found)}, most {max(found):5.0f} ms")
