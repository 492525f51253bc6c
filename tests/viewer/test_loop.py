"""Paint, propagate, correct, cancel, undo, accept, reload: in OHIF, with the mouse, on an archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.filebase import DicomBytesIO
from scipy import ndimage

from imos.imaging import read_label_map

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

KIDNEY, LIVER = 2, 4
Labels = NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass
class Loop:
    """What was on the screen after each step.

    Attributes:
        series: What was worked on.
        first: The slice painted first; `second`: the one corrected.
        steps: The label map after each step, by the step's name.
        said: What the panel said then.
        progress: What the progress bar showed during the first run: slices done, slices in all, seconds.
        outward: The slices in the order in which they appeared.
        stored: The DICOM SEG files in the archive in the end.
        errors: What the page's scripts threw.
        slices: What the strip shows of the kidney in the end: slices by how they are known.
        newcomers: The same for somebody who opens the study for the first time.
        known: The same after the correction.
        bars: The colours of the strip by slice: `corrected` and its bars' `tops`, `accepted` and its bars' `notches`.
        sure: The colour that stands for the confidence of each slice after the correction.
        limited: The slices of the kidney after runs with both limits, in OHIF's own numbers and as the distance from
            the painted one: first and last, by the direction that was chosen.
        across: The kidney on the sagittal series, painted and then propagated in the axial view of an MPR.
        asked: Servers that the page asked for anything.
    """

    series: Any
    first: int
    second: int
    steps: dict[str, Labels] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    progress: list[tuple[int, int, float]] = field(default_factory=list)
    outward: list[int] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    slices: dict[str, list[int]] = field(default_factory=dict)
    newcomers: dict[str, list[int]] = field(default_factory=dict)
    known: dict[str, list[int]] = field(default_factory=dict)
    bars: dict[str, dict[int, Colour]] = field(default_factory=dict)
    sure: dict[int, Colour] = field(default_factory=dict)
    limited: dict[str, list[int]] = field(default_factory=dict)
    across: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    asked: set[str] = field(default_factory=set)


STRIP = """w => {
  const said = w.slicesOf(2);
  const kinds = ['painted', 'propagated', 'accepted', 'absent'];
  return Object.fromEntries(kinds.map(kind => [kind, [...said[kind]].sort((a, b) => a - b)]));
}"""
SURE = """async w => {
  const {confidenceColour} = await import('/imos/viewer/strip.js');
  const colours = Object.entries(w.slicesOf(2).confidence).map(([index, one]) => [index, confidenceColour(one)]);
  return Object.fromEntries(colours.map(([index, one]) => [index, one.match(/\\d+/g).map(Number)]));
}"""
WATCH = """w => {
  window.seen = {progress: [], outward: []};
  w.addEventListener('change', () => {
    if (w.run?.total) window.seen.progress.push([w.run.done, w.run.total, w.run.seconds]);
    for (const k of w.run ? w.state.slices[2]?.propagated ?? [] : []) {
      if (!window.seen.outward.includes(k)) window.seen.outward.push(k);
    }
  });
}"""


@pytest.fixture(scope="module", params=["axial feet first", "axial head first", "sagittal"])
def loop(request: pytest.FixtureRequest, archive: Any, series: dict[str, Any], viewer: Callable[..., Any]) -> Loop:
    """The whole loop once, on a series of one orientation."""
    opened = series[request.param]
    areas = (opened.labels == KIDNEY).sum(axis=(0, 1))
    first = int(areas.argmax())
    second = first + 3
    made = Loop(opened, first, second)
    ohif = viewer(opened)

    def note(step: str) -> None:
        made.steps[step], made.said[step] = ohif.drawn(), ohif.message

    ohif.show(first)
    ohif.choose(KIDNEY)
    ohif.paint(opened.labels[:, :, first] == KIDNEY, 2, first)
    note("painted")
    ohif.ask(WATCH)
    ohif.propagate()
    note("propagated")
    seen = ohif.page.evaluate("window.seen")
    made.progress = [(done, total, seconds) for done, total, seconds in seen["progress"]]
    made.outward = seen["outward"]

    ohif.show(second)
    ohif.press("eraser")
    ohif.radius(5)
    edge = np.argwhere(made.steps["propagated"][:, :, second] == KIDNEY)
    at = edge[edge[:, 0].argmax()]
    ohif.stroke([(int(at[0]), int(at[1]), second), (int(at[0]) - 1, int(at[1]), second)])
    note("erased")
    ohif.propagate()
    note("corrected")
    ohif.history("undo")
    ohif.history("undo")
    note("undone")
    ohif.history("redo")
    ohif.history("redo")
    note("redone")
    made.known = ohif.ask(STRIP)
    made.bars["corrected"], made.bars["tops"] = ohif.bars(KIDNEY), ohif.bars(KIDNEY, row=12)
    made.sure = {int(index): tuple(colour) for index, colour in ohif.ask(SURE).items()}

    liver = int((opened.labels == LIVER).sum(axis=(0, 1)).argmax())
    ohif.show(liver)
    ohif.choose(LIVER)
    ohif.paint(opened.labels[:, :, liver] == LIVER, 2, liver, radius=15)
    note("second object painted")
    ohif.press("propagate")
    ohif.page.wait_for_function("window.imos.workspace.run?.done > 0", timeout=60_000)
    ohif.press("cancel")
    ohif.wait_for_run()
    note("cancelled")

    ohif.press("accept")
    ohif.page.wait_for_timeout(300)
    ohif.wait_for_run()
    note("accepted")
    made.bars["accepted"], made.bars["notches"] = ohif.bars(KIDNEY), ohif.bars(KIDNEY, row=37)
    made.stored = archive.segmentations(opened)
    ohif.reload()
    note("reloaded")
    made.slices = ohif.ask(STRIP)
    made.errors, made.asked = ohif.errors, ohif.asked
    ohif.page.close()
    ohif = viewer(opened)
    note("opened by somebody else")
    made.newcomers = ohif.ask(STRIP)
    made.limited["up"] = run_between_limits(ohif, first, "up")
    made.limited["down"] = run_between_limits(ohif, first + 1, "down")
    if request.param == "sagittal":
        made.across = run_in_the_axial_view(ohif)
    made.errors += ohif.errors
    made.asked |= ohif.asked
    ohif.page.close()
    return made


def run_between_limits(ohif: Any, painted: int, direction: str) -> list[int]:
    """Begin anew and propagate in one direction, at most two slices down and three up in OHIF's numbers."""
    ohif.ask("w => w.reset()")
    ohif.wait_for_run()
    ohif.show(painted)
    ohif.choose(KIDNEY)
    ohif.press("brush")
    ohif.radius(9)
    inside = ndimage.distance_transform_edt(ohif.series.labels[:, :, painted] == KIDNEY)
    i, j = (int(at) for at in np.unravel_index(inside.argmax(), inside.shape))
    ohif.stroke([(i - 1, j, painted), (i + 1, j, painted)])
    ohif.drawn()
    number = ohif.number
    ohif.page.select_option("[data-imos=direction]", direction)
    ohif.page.fill("[data-imos=first]", str(number - 2))
    ohif.page.fill("[data-imos=last]", str(number + 3))
    ohif.propagate()
    ends = slices_of(ohif.labels(), KIDNEY)
    distances = []
    for index in (ends[0], ends[-1]):
        ohif.show(index)
        distances.append(ohif.number - number)
    return sorted(distances)


def run_in_the_axial_view(ohif: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Begin anew in the layout MPR, where the series' own plane is another one; what was painted, and what came."""
    ohif.ask("w => w.reset()")
    ohif.wait_for_run()
    for name in ("first", "last"):
        ohif.page.fill(f"[data-imos={name}]", "")
    ohif.page.select_option("[data-imos=direction]", "both")
    ohif.set_mpr(on=True)
    painted = ohif.paint_across(KIDNEY, axis=1) == KIDNEY
    ohif.propagate()
    return painted, ohif.labels() == KIDNEY


def dice(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    return float(2 * (found & wanted).sum() / (found.sum() + wanted.sum()))


def slices_of(labels: Labels, value: int) -> list[int]:
    return np.flatnonzero((labels == value).any(axis=(0, 1))).tolist()


def changed(before: Labels, after: Labels) -> list[int]:
    return np.flatnonzero((before != after).any(axis=(0, 1))).tolist()


def test_the_brush_paints_one_slice_where_the_mouse_is(loop: Loop) -> None:
    painted = loop.steps["painted"]
    assert slices_of(painted, KIDNEY) == [loop.first]
    assert dice(painted[:, :, loop.first] == KIDNEY, loop.series.labels[:, :, loop.first] == KIDNEY) > 0.8


def test_propagating_fills_the_volume(loop: Loop) -> None:
    assert dice(loop.steps["propagated"] == KIDNEY, loop.series.labels == KIDNEY) > 0.7
    assert loop.said["propagated"].startswith("Done in ")


def test_the_painted_slice_comes_back_voxel_for_voxel(loop: Loop) -> None:
    painted, propagated = loop.steps["painted"], loop.steps["propagated"]
    assert (painted[:, :, loop.first] == propagated[:, :, loop.first]).all()


def test_progress_rises_and_says_seconds(loop: Loop) -> None:
    done = [one[0] for one in loop.progress]
    assert len(set(done)) >= 3
    assert done == sorted(done)
    assert all(total >= one for one, total, _ in loop.progress)
    assert loop.progress[-1][2] > 0


def test_slices_appear_outward_from_the_painted_one(loop: Loop) -> None:
    for side in (-1, 1):
        distances = [side * (index - loop.first) for index in loop.outward if side * (index - loop.first) > 0]
        assert distances == sorted(distances)
    assert min(abs(index - loop.first) for index in loop.outward) == 1


def test_a_correction_changes_nothing_beyond_the_neighbouring_prompts(loop: Loop) -> None:
    assert changed(loop.steps["propagated"], loop.steps["erased"]) == [loop.second]
    where = changed(loop.steps["propagated"], loop.steps["corrected"])
    assert loop.second in where
    assert min(where) > loop.first
    assert (loop.steps["corrected"][:, :, loop.second] == loop.steps["erased"][:, :, loop.second]).all()


def test_undo_takes_back_the_run_and_the_stroke_and_redo_does_them_again(loop: Loop) -> None:
    assert changed(loop.steps["undone"], loop.steps["propagated"]) == []
    assert changed(loop.steps["redone"], loop.steps["corrected"]) == []


def test_cancelling_leaves_everything_as_before_the_run(loop: Loop) -> None:
    assert changed(loop.steps["cancelled"], loop.steps["second object painted"]) == []
    assert loop.said["cancelled"].startswith("Cancelled.")


def test_what_was_accepted_is_a_segmentation_in_the_archive_in_the_right_place(loop: Loop, tmp_path: Path) -> None:
    assert loop.said["accepted"].startswith("Accepted and stored")
    assert len(loop.stored) == 1
    names = [str(one.SegmentLabel) for one in pydicom.dcmread(DicomBytesIO(loop.stored[0])).SegmentSequence]
    assert names == ["right kidney", "liver"]
    file = tmp_path / "stored.dcm"
    file.write_bytes(loop.stored[0])
    stored = read_label_map(file, loop.series.image)
    assert ((stored > 0) == (loop.steps["accepted"] > 0)).all()


def test_accepting_changes_nothing_on_the_screen(loop: Loop) -> None:
    assert changed(loop.steps["cancelled"], loop.steps["accepted"]) == []


def test_a_reload_shows_the_work_again(loop: Loop) -> None:
    assert changed(loop.steps["accepted"], loop.steps["reloaded"]) == []
    assert set(slices_of(loop.steps["corrected"], KIDNEY)) <= set(loop.slices["accepted"])


def test_only_slices_that_show_the_object_are_called_accepted(loop: Loop) -> None:
    shown = slices_of(loop.steps["reloaded"], KIDNEY)
    assert loop.slices["accepted"] == shown
    assert 0 < len(shown) < loop.series.labels.shape[2]
    assert not set(loop.slices["absent"]) & set(shown)


def test_a_browser_that_was_never_here_shows_what_was_accepted(loop: Loop) -> None:
    assert changed(loop.steps["accepted"], loop.steps["opened by somebody else"]) == []
    assert loop.newcomers == loop.slices
    assert loop.said["opened by somebody else"] == "These segments were stored with the study before."


def far(one: Colour, other: Colour) -> bool:
    """Whether nobody takes two colours for one another."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 80


def test_painted_propagated_and_accepted_slices_look_different(loop: Loop) -> None:
    before, after = loop.bars["corrected"], loop.bars["accepted"]
    # The slices beside a painted one are overlapped by it, and those on view have the cursor on them.
    on_view = loop.second, int((loop.series.labels == LIVER).sum(axis=(0, 1)).argmax())
    covered = {index + step for index in (*loop.known["painted"], *on_view) for step in (-1, 0, 1)}
    propagated = [index for index in loop.known["propagated"] if index not in covered]
    accepted = [index for index in loop.slices["accepted"] if index not in covered]
    white = (255, 255, 255)
    assert loop.known["painted"] == [loop.first, loop.second]
    assert [loop.bars["tops"][index] for index in loop.known["painted"]] == [white, white]
    assert len(propagated) > 5
    for index in propagated:
        assert max(abs(a - b) for a, b in zip(before[index], loop.sure[index], strict=True)) <= 2
        assert far(loop.bars["tops"][index], white)
        assert far(before[index], before[loop.first])
    assert len({before[index] for index in propagated}) > 3, "a slice that is less sure has another colour"
    (green,) = {after[index] for index in accepted}
    (notch,) = {loop.bars["notches"][index] for index in accepted}
    assert far(notch, green)
    assert far(green, before[loop.first])
    assert all(far(green, before[index]) for index in propagated)
    for index in set(loop.known["absent"]) - covered:
        assert far(before[index], before[loop.first])
        assert far(before[index], green)


@pytest.mark.parametrize(("direction", "ends"), [("up", [0, 3]), ("down", [-2, 0])])
def test_limits_and_direction_are_those_of_ohifs_numbers(loop: Loop, direction: str, ends: list[int]) -> None:
    assert loop.limited[direction] == ends


def test_a_sagittal_series_can_be_painted_in_its_axial_view(loop: Loop) -> None:
    if loop.across is None:
        assert loop.series.affine[2, 2] > 0, "of axial series test_panel.py paints the other planes"
        return
    painted, found = loop.across
    (index,) = np.flatnonzero(painted.any(axis=(0, 2)))
    assert (found[:, index] == painted[:, index]).all()
    assert dice(found, loop.series.labels == KIDNEY) > 0.6


def test_the_page_asks_no_other_server(loop: Loop, service: str) -> None:
    assert loop.asked == {service}


def test_no_script_of_the_page_failed(loop: Loop) -> None:
    assert loop.errors == []
