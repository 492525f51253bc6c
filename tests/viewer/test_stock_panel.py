"""OHIF's own MONAI Label panel in a real browser: what it shows lies where the organ is.

The panel iMOS is there as well: it makes no label map of its own before somebody paints with it.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import httpx
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

KIDNEY, LIVER = 2, 4
NAMES = {"right kidney": KIDNEY, "liver": LIVER}
RUN_SECONDS = 120_000

_SEEN = """() => {
  const volume = window.services.segmentationService.getLabelmapVolume('1');
  const voxels = volume.voxelManager.getCompleteScalarDataArray();
  const places = [], values = [];
  voxels.forEach((value, place) => { if (value) { places.push(place); values.push(value); } });
  const segments = window.services.segmentationService.getSegmentation('1').segments;
  const names = Object.fromEntries(Object.entries(segments).map(([value, one]) => [one.label, Number(value)]));
  return {size: [...volume.dimensions], origin: [...volume.origin], spacing: [...volume.spacing],
          directions: [...volume.direction], places, values, names};
}"""
_CLICK = """([name, world]) => {
  const row = [...document.querySelectorAll('.monaiLabelPanel .clickable-row')].find(
    (one) => one.innerText.trim() === name);
  row.click();
  const viewport = window.cornerstone.getRenderingEngines()[0].getViewports()[0];
  window.cornerstoneTools.annotation.state.addAnnotation({
    annotationUID: 'click', highlighted: false, invalidated: true, isLocked: false, isVisible: true,
    metadata: {toolName: 'ProbeMONAILabel', FrameOfReferenceUID: viewport.getFrameOfReferenceUID()},
    data: {label: '', handles: {points: [world]}, cachedStats: {}},
  }, viewport.element);
}"""


class Panel:
    """The panel with one study open."""

    def __init__(self, page: Page, service: str, study: str) -> None:
        self.page, self.service = page, service
        page.goto(f"{service}/ohif/monai-label?StudyInstanceUIDs={study}")
        page.wait_for_selector("#monailabelServerURL", timeout=RUN_SECONDS)
        page.wait_for_function(
            "() => { const engine = window.cornerstone?.getRenderingEngines()?.[0];"
            " return engine?.getViewports().length >= 3 && engine.getViewports().every(v => v.getImageData()) }",
            timeout=RUN_SECONDS,
        )

    def connect(self) -> None:
        """Name the server, as one has to whenever the panel is opened."""
        page = self.page
        page.fill("#monailabelServerURL", f"{self.service}/")
        page.click(".settingsTable .actionButton")
        page.wait_for_selector("button[title='Run Segmentation']", state="attached", timeout=30_000)
        page.wait_for_function("() => window.services.segmentationService.getLabelmapVolume('1')", timeout=30_000)

    def run(self, title: str) -> None:
        """Press one of the buttons "Run" and wait for the answer."""
        with self.page.expect_response(lambda answer: "/infer/" in answer.url, timeout=RUN_SECONDS) as asked:
            self.page.eval_on_selector(f"button[title='{title}']", "button => button.click()")
        assert asked.value.status == 200, asked.value.text()
        self.page.wait_for_timeout(1500)

    def click(self, labels: NDArray[np.uint8], affine: NDArray[np.float64], value: int) -> tuple[int, int, int]:
        """Choose an organ and click where it is thickest, on the slice that shows most of it; that voxel."""
        index = int((labels == value).sum(axis=(0, 1)).argmax())
        depth = ndimage.distance_transform_edt(labels[:, :, index] == value)
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        world = (np.diag([-1.0, -1, 1, 1]) @ affine @ [row, column, index, 1])[:3]
        name = next(name for name, one in NAMES.items() if one == value)
        self.page.evaluate(_CLICK, [name, world.tolist()])
        return int(row), int(column), index

    def seen(self) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.float64]]:
        """Each segment as the panel shows it, and the affine of the viewer's volume (mm in RAS+)."""
        said = self.page.evaluate(_SEEN)
        voxels = np.zeros(int(np.prod(said["size"])), np.uint8)
        voxels[said["places"]] = said["values"]
        voxels = voxels.reshape(said["size"], order="F")
        affine = np.eye(4)
        affine[:3, :3] = np.array(said["directions"]).reshape(3, 3).T * said["spacing"]
        affine[:3, 3] = said["origin"]
        return {name: voxels == value for name, value in said["names"].items()}, np.diag([-1.0, -1, 1, 1]) @ affine


@pytest.fixture(params=["folder", "sagittal turned"])
def opened(request: pytest.FixtureRequest, browser: Browser, ct: Any) -> Any:
    """The panel on the sample; its labels, their affine, where to store one, and the image's id."""
    if request.param == "folder":
        folder = request.getfixturevalue("folder")
        service, image, study = folder.url, "sample_ct", folder.series["sample_ct"].study
        labels, affine = ct.labels, ct.affine
    else:
        service = request.getfixturevalue("service")
        series = request.getfixturevalue("series")[request.param]
        image, study, labels, affine = series.uid, series.study, series.labels, series.affine
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield Panel(context.new_page(), service, study), labels, affine, service, image
    context.close()


def use_imos(page: Page) -> None:
    """Open the panel iMOS and press its brush."""
    page.click("[data-cy=imos-btn]")
    page.click("[data-imos=brush]", timeout=60_000)
    page.wait_for_function("window.imos.workspace.ready", timeout=60_000)


def on_grid(labels: NDArray[np.uint8], affine: NDArray[np.float64], size: Any, seen: NDArray[np.float64]) -> Any:
    """A label map on the viewer's voxels."""
    there = np.linalg.inv(affine) @ seen
    places = np.stack([*np.indices(size), np.ones(size)])
    i, j, k = np.rint(np.einsum("ab,b...->a...", there, places))[:3].astype(int)
    return labels[i, j, k]


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice."""
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def test_what_the_panel_shows_lies_on_the_organs(opened: Any) -> None:
    panel, labels, affine, service, image = opened
    panel.connect()
    index = int((labels == KIDNEY).sum(axis=(0, 1)).argmax())
    painted = np.zeros_like(labels)
    painted[:, :, index] = np.where(np.isin(labels[:, :, index], [KIDNEY, LIVER]), labels[:, :, index], 0)
    content = gzip.compress(nibabel.Nifti1Image(painted, affine).to_bytes())
    saved = httpx.put(
        f"{service}/datastore/label",
        params={"image": image, "tag": "original"},
        files={"label": ("label.nii.gz", content)},
        timeout=60,
    )
    assert saved.status_code == 200
    panel.run("Run Segmentation")
    found, seen = panel.seen()
    truth = on_grid(labels, affine, found["liver"].shape, seen)
    for name, value in NAMES.items():
        assert dice(found[name], truth == value) > 0.7, name

    row, column, index = panel.click(labels, affine, KIDNEY)
    panel.run("Run PointPrompts")
    found, seen = panel.seen()
    assert not panel.page.evaluate("window.imos.workspace.ready"), "nobody has touched the panel iMOS"
    at = np.rint(np.linalg.inv(seen) @ affine @ [row, column, index, 1])[:3].astype(int)
    assert found["right kidney"][tuple(at)]
    assert dice(found["right kidney"], truth == KIDNEY) > 0.5


@pytest.mark.parametrize("opened", ["folder"], indirect=True)
def test_both_panels_work_in_one_study(opened: Any) -> None:
    panel, labels, affine, _service, _image = opened
    # In this order the label map of iMOS is the first: the stock panel reads the names of the first one.
    use_imos(panel.page)
    painted = """() => { const w = window.imos.workspace, [i, j, k] = w.labelmap.grid.size.map(n => n >> 1);
      for (let n = 0; n < 9; n++) w.labelmap.slice(k)[j * w.labelmap.grid.size[0] + i + n] = 2;
      w.labelmap.show(); }"""
    panel.page.evaluate(painted)
    panel.page.wait_for_function("window.imos.workspace.strokes.length === 1", timeout=10_000)
    own = "() => [...window.imos.workspace.labelmap.read()].flatMap((value, at) => value ? [at] : [])"
    before = panel.page.evaluate(own)
    panel.page.click("[data-cy=monailabel-btn]")
    panel.connect()
    panel.click(labels, affine, KIDNEY)
    panel.run("Run PointPrompts")
    found, _seen = panel.seen()
    assert found["right kidney"].any()
    assert panel.page.evaluate(own) == before
    assert len(before) >= 9
