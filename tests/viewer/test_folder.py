"""Without an archive: a NIfTI file of a folder, painted, propagated and accepted in OHIF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

KIDNEY = 2


def test_a_file_of_a_folder_goes_through_the_loop(
    folder_service: str, anywhere: Callable[..., Any], ct: Any, new_series: Callable[..., Any], tmp_path: Path
) -> None:
    following = httpx.get(f"{folder_service}/imos/v1/next", params={"client": "somebody"}, timeout=60).json()
    # The server makes axial slices of it: columns to the left, rows to the back, slices to the head.
    labels = ct.labels[::-1, ::-1]
    ohif = anywhere(folder_service, new_series(following["study"], following["series"], labels))
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
    stored = httpx.get(
        f"{folder_service}/datastore/label", params={"label": following["image"], "tag": "final"}, timeout=60
    )
    file = tmp_path / "label.nii.gz"
    file.write_bytes(stored.content)
    voxels = np.asarray(nibabel.as_closest_canonical(nibabel.load(file)).dataobj)
    assert ((voxels[::-1, ::-1] == KIDNEY) == found).all()
