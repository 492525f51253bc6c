"""Without an archive: files of a folder, painted, propagated and accepted in OHIF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from imos.imaging import read_label_map

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

KIDNEY = 2


@pytest.fixture(scope="module")
def ohif(folder: Any, anywhere: Callable[..., Any]) -> Any:
    """OHIF on the folder, for all tests of this file."""
    return anywhere(folder.url, folder.series["sample_ct"])


@pytest.mark.parametrize("kind", ["NIfTI", "NRRD", "DICOM"])
def test_a_file_of_a_folder_goes_through_the_loop(ohif: Any, folder: Any, kind: str, tmp_path: Path) -> None:
    names = {"NIfTI": "sample_ct", "NRRD": "part"}
    name = names.get(kind) or next(iter(set(folder.series) - set(names.values())))
    opened = folder.series[name]
    labels = opened.labels
    if ohif.series is not opened:
        ohif.open(opened)
    size = ohif.ask("w => w.labelmap.grid.size")
    assert tuple(size) == labels.shape
    k = int((labels == KIDNEY).sum(axis=(0, 1)).argmax())
    ohif.show(k)
    ohif.choose(KIDNEY)
    ohif.paint(labels[:, :, k] == KIDNEY, 2, k)
    ohif.propagate()
    found, wanted = ohif.labels() == KIDNEY, labels == KIDNEY
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.75
    ohif.press("accept")
    ohif.page.wait_for_timeout(300)
    ohif.wait_for_run()
    assert ohif.message.startswith("Accepted and stored")
    stored = httpx.get(f"{folder.url}/datastore/label", params={"label": name, "tag": "final"}, timeout=60)
    file = tmp_path / "label.nii.gz"
    file.write_bytes(stored.content)
    # Read where it lies in the patient, on the voxels that the viewer shows.
    assert ((read_label_map(file, opened.image) == KIDNEY) == found).all()
    assert ohif.errors == []


def test_the_list_of_studies_shows_every_file_and_asks_no_other_server(ohif: Any, folder: Any) -> None:
    ohif.page.goto(f"{folder.url}/ohif/")
    ohif.page.get_by_text("files", exact=True).first.wait_for(timeout=30_000)
    listed = ohif.page.inner_text("body")
    for words in ("sample_ct", "part", "CT abdomen and pelvis"):
        assert words in listed
    assert ohif.asked == {folder.url}
