"""Study after study: accept, *Next study*, until none is left; on an archive and on a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

KIDNEY = 2
PART = np.s_[:, :, 80:104]
NAMES = ("queue-1", "queue-2")


@pytest.fixture(params=["archive", "folder"])
def queue(
    request: pytest.FixtureRequest,
    ct: Any,
    serve: Callable[..., str],
    new_series: Callable[..., Any],
    tmp_path: Path,
) -> tuple[str, dict[str, Any]]:
    """A server with two studies that wait; its address and the series by StudyInstanceUID."""
    if request.param == "archive":
        archive = request.getfixturevalue("archive")
        how = {"description": "waits"}
        found = [archive.add(ct.image[PART], ct.labels[PART], ct.affine, name=name, **how) for name in NAMES]
        only = json.dumps({"Modality": "CT", "SeriesDescription": "waits"})
        service = serve(f"{archive.url}/dicom-web", MONAI_LABEL_DICOMWEB_SEARCH_FILTER=only)
        return service, {one.study: one for one in found}
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in NAMES:
        nibabel.save(nibabel.Nifti1Image(ct.image[PART], ct.affine), folder / f"{name}.nii.gz")
    service = serve(str(folder))
    # The server makes axial slices of a file: columns to the left, rows to the back, slices to the head.
    labels = ct.labels[PART][::-1, ::-1]
    series = []
    for study in httpx.get(f"{service}/proxy/dicom/qido/studies", timeout=60).json():
        uid = study["0020000D"]["Value"][0]
        (one,) = httpx.get(f"{service}/proxy/dicom/qido/studies/{uid}/series", timeout=60).json()
        series.append(new_series(uid, one["0020000E"]["Value"][0], labels))
    return service, {one.study: one for one in series}


def accept_something(ohif: Any) -> None:
    index = int((ohif.series.labels == KIDNEY).sum(axis=(0, 1)).argmax())
    i, j = np.argwhere(ohif.series.labels[:, :, index] == KIDNEY).mean(axis=0).round().astype(int).tolist()
    ohif.show(index)
    ohif.choose(KIDNEY)
    ohif.press("brush")
    ohif.stroke([(i - 4, j, index), (i + 4, j, index)])
    ohif.drawn()
    ohif.press("accept")
    ohif.page.wait_for_timeout(300)
    ohif.wait_for_run()
    assert ohif.message.startswith("Accepted and stored"), ohif.message


def test_next_study_opens_what_waits_and_says_when_all_is_done(
    queue: tuple[str, dict[str, Any]], anywhere: Callable[..., Any]
) -> None:
    service, waiting = queue
    ohif = anywhere(service, waiting[min(waiting)])
    accept_something(ohif)

    with ohif.page.expect_navigation(url="**/ohif/segmentation?**", timeout=60_000):
        ohif.press("next")
    ohif.wait_until_ready()
    opened = ohif.ask("w => [w.displaySet.StudyInstanceUID, w.image]")
    other = waiting[max(waiting)]
    assert opened == [other.study, other.uid]
    assert not ohif.labels().any()

    # Only this one is left, and it is not done yet: there is no other one to go to.
    ohif.press("next")
    ohif.wait_for_run()
    assert ohif.message.startswith("All done: every other study has accepted segments")
    ohif.series = other
    accept_something(ohif)
    ohif.press("next")
    ohif.wait_for_run()
    assert ohif.message.startswith("All done: every other study has accepted segments")
    assert ohif.ask("w => w.displaySet.StudyInstanceUID") == other.study
    assert ohif.errors == []
    ohif.page.close()
