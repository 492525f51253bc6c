"""Update Model in the panel: begun, watched and stopped from OHIF."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from imos.server.dicomweb import synthesis

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

KIDNEY = 2
CAPTION = "[data-imos=training-text]"
TRAIN = "[data-imos=train]"


def wait_for(ohif: Any, words: str, seconds: float) -> None:
    ohif.page.wait_for_function(
        f"words => document.querySelector('{CAPTION}').textContent.includes(words)", arg=words, timeout=seconds * 1000
    )


def test_the_model_is_updated_from_the_panel_and_can_be_stopped(
    tmp_path: Path, samples: Path, ct: Any, new_series: Callable[..., Any], serve: Callable[..., str], anywhere: Any
) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    shutil.copyfile(samples / "ct" / "image.nii.gz", studies / "one.nii.gz")
    uids = (synthesis.uid(kind, "one") for kind in ("study", "series"))
    url = serve(str(studies))
    ohif = anywhere(url, new_series(*uids, np.ascontiguousarray(ct.labels[::-1, ::-1])))
    wait_for(ohif, "Model as shipped; 0 of 5 newly accepted", 20)

    first = int((ohif.series.labels == KIDNEY).sum(axis=(0, 1)).argmax())
    ohif.show(first)
    ohif.choose(KIDNEY)
    ohif.paint(ohif.series.labels[:, :, first] == KIDNEY, 2, first)
    ohif.press("propagate")  # from one slice alone there is no way to walk
    ohif.wait_for_run()
    ohif.press("accept")
    ohif.wait_for_run()
    wait_for(ohif, "1 of 5 newly accepted", 20)

    ohif.page.click(TRAIN)
    wait_for(ohif, "Learning: step ", 240)
    assert ohif.page.is_visible("[data-imos=training-progress]")
    assert "of 240" in ohif.page.inner_text(CAPTION)
    assert httpx.get(f"{url}/imos/v1/training").json()["running"]
    assert ohif.page.inner_text(TRAIN) == "Stop"

    ohif.page.click(TRAIN)
    wait_for(ohif, "Model as shipped", 60)
    assert ohif.page.inner_text(TRAIN) == "Update model"
    assert not httpx.get(f"{url}/imos/v1/training").json()["running"]
    assert not ohif.errors
