"""The panel: what a stroke does and must not do, in every view; keys, limits, messages, drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.filebase import DicomBytesIO
from scipy import ndimage

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

SPLEEN, KIDNEY, LIVER, AORTA = 1, 2, 4, 6


@pytest.fixture(scope="module")
def opened(series: dict[str, Any], viewer: Callable[..., Any]) -> Any:
    """OHIF on the axial series, opened by somebody new; for all tests of this file."""
    return viewer(series["axial feet first"])


@pytest.fixture
def ohif(opened: Any) -> Iterator[Any]:
    """The same, empty, with the kidney selected and shown."""
    opened.ask("async w => { await w.reset(); w.segments.list.forEach(s => w.segments.lock(s.value, false)) }")
    opened.wait_for_run()
    opened.show(middle(opened, KIDNEY))
    opened.choose(KIDNEY)
    return opened


def middle(ohif: Any, value: int, axis: int = 2) -> int:
    """The slice that shows most of an object."""
    other = tuple(a for a in range(3) if a != axis)
    return int((ohif.series.labels == value).sum(axis=other).argmax())


def dab(ohif: Any, *, radius: int = 6) -> tuple[int, int, int]:
    """One short stroke in the middle of the kidney; where it is thickest."""
    k = middle(ohif, KIDNEY)
    i, j = np.argwhere(ohif.series.labels[:, :, k] == KIDNEY).mean(axis=0).round().astype(int).tolist()
    ohif.radius(radius)
    # Not a mere click: OHIF's brush ignores one on the spot where it was used last.
    ohif.stroke([(i - 4, j, k), (i + 4, j, k)])
    return i, j, k


def values(labels: NDArray[np.uint8]) -> set[int]:
    return set(np.unique(labels).tolist()) - {0}


def test_the_keys_choose_brush_and_eraser_and_undo_a_stroke(ohif: Any) -> None:
    ohif.page.mouse.move(600, 400)
    ohif.page.keyboard.press("b")
    assert ohif.is_pressed("brush")
    i, j, k = dab(ohif)
    assert ohif.labels()[i, j, k] == KIDNEY
    ohif.page.keyboard.press("Control+z")
    ohif.page.wait_for_timeout(200)
    assert values(ohif.labels()) == set()
    ohif.page.keyboard.press("Control+y")
    ohif.page.wait_for_timeout(200)
    assert ohif.labels()[i, j, k] == KIDNEY
    ohif.page.keyboard.press("e")
    assert ohif.is_pressed("eraser")
    dab(ohif, radius=15)
    assert values(ohif.labels()) == set()


def test_a_locked_segment_is_not_painted_over(ohif: Any) -> None:
    ohif.press("brush")
    dab(ohif)
    before = ohif.labels()
    ohif.lock(KIDNEY)
    ohif.choose(SPLEEN)
    dab(ohif, radius=12)
    after = ohif.labels()
    assert SPLEEN in values(after)
    assert ((before == KIDNEY) <= (after == KIDNEY)).all()
    ohif.press("eraser")
    dab(ohif, radius=15)
    assert ((before == KIDNEY) <= (ohif.labels() == KIDNEY)).all()


def test_propagating_with_nothing_painted_says_what_to_do(ohif: Any) -> None:
    ohif.press("propagate")
    ohif.page.wait_for_timeout(300)
    assert ohif.message == "Paint a segment on one slice first, then press Propagate."


def test_what_the_server_refuses_is_shown_in_its_words(ohif: Any) -> None:
    ohif.press("brush")
    dab(ohif)
    k = middle(ohif, KIDNEY)
    ohif.page.fill("[data-imos=first]", str(k + 5))
    ohif.propagate()
    said = ohif.message
    ohif.page.fill("[data-imos=first]", "")
    assert "right kidney" in said
    assert f"slice {k + 1}," in said


def test_a_click_on_the_strip_goes_to_the_slice(ohif: Any) -> None:
    box = ohif.page.locator("[data-imos=strip]").bounding_box()
    ohif.page.mouse.click(box["x"] + box["width"] * 20.5 / ohif.series.labels.shape[2], box["y"] + 30)
    ohif.page.wait_for_timeout(500)
    assert ohif.ask("w => w.shown(2)") == 20


def test_a_segment_can_be_added_and_renamed_and_survives_a_reload(ohif: Any) -> None:
    ohif.press("add")
    ohif.page.keyboard.type("adrenal")
    ohif.page.keyboard.press("Enter")
    ohif.press("brush")
    i, j, k = dab(ohif)
    added = int(ohif.labels()[i, j, k])
    ohif.page.wait_for_timeout(300)
    ohif.reload()
    assert ohif.labels()[i, j, k] == added
    assert "adrenal" in ohif.page.inner_text("[data-imos=segments]")
    assert ohif.message == "Your unsent strokes were brought back."


def test_painting_in_the_other_views_of_an_mpr_is_a_prompt_of_their_plane(ohif: Any) -> None:
    ohif.set_mpr(on=True)
    painted, found = {}, {}
    for axis in (0, 1):
        ohif.ask("w => w.reset()")
        ohif.wait_for_run()
        painted[axis] = ohif.paint_across(KIDNEY, axis) == KIDNEY
        ohif.propagate()
        found[axis] = ohif.labels() == KIDNEY
    ohif.set_mpr(on=False)
    wanted = ohif.series.labels == KIDNEY
    for axis in (0, 1):
        slices, others = middle(ohif, KIDNEY, axis), tuple(other for other in range(3) if other != axis)
        assert np.flatnonzero(painted[axis].any(axis=others)).tolist() == [slices]
        assert (found[axis].take(slices, axis) == painted[axis].take(slices, axis)).all()
        assert 2 * (found[axis] & wanted).sum() / (found[axis].sum() + wanted.sum()) > 0.6


def test_the_basic_viewer_has_the_panel_and_the_brush_too(series: dict[str, Any], viewer: Callable[..., Any]) -> None:
    ohif = viewer(series["axial feet first"], "viewer", has_panel=False)
    ohif.page.click("[data-cy=imos-btn]")
    ohif.page.wait_for_selector("[data-imos=propagate]")
    ohif.show(middle(ohif, KIDNEY))
    ohif.choose(KIDNEY)
    ohif.press("brush")
    i, j, k = dab(ohif)
    assert ohif.labels()[i, j, k] == KIDNEY
    ohif.page.close()


def test_a_stroke_in_a_tilted_view_is_taken_back_and_the_views_can_be_aligned(
    series: dict[str, Any], viewer: Callable[..., Any]
) -> None:
    ohif = viewer(series["sagittal turned"])
    ohif.set_mpr(on=True)
    views = ohif.ask("w => w.viewportIds.map(id => [id, w.views.looksAlong(id, w.labelmap.grid)])")
    view = next(view for view, looks in views if looks["degrees"] > 5 and looks["axis"] == 2)
    middle_voxel = [n // 2 for n in ohif.series.labels.shape]
    ohif.press("brush")
    ohif.radius(20)
    ohif.stroke([tuple(middle_voxel), (middle_voxel[0] + 8, middle_voxel[1], middle_voxel[2])], view)
    assert "tilted by 10°" in ohif.message
    assert values(ohif.labels()) == set()
    ohif.page.click("[data-imos=message] button")
    ohif.page.wait_for_timeout(500)
    assert ohif.ask("(w, id) => w.views.looksAlong(id, w.labelmap.grid).degrees", view) < 0.1
    ohif.stroke([tuple(middle_voxel), (middle_voxel[0] + 8, middle_voxel[1], middle_voxel[2])], view)
    assert len(np.flatnonzero(ohif.labels().any(axis=(0, 1)))) == 1
    ohif.page.close()


@pytest.fixture(scope="module")
def late(archive: Any, ct: Any, viewer: Callable[..., Any]) -> Any:
    """OHIF on a short study that came after the start of the server; for all tests below."""
    part = np.s_[:, :, 70:94]
    return viewer(archive.add(ct.image[part], ct.labels[part], ct.affine, name="late"))


@pytest.fixture
def short(late: Any) -> Any:
    """The same, empty, with the kidney selected and shown."""
    late.ask("w => w.reset()")
    late.wait_for_run()
    late.show(middle(late, KIDNEY))
    late.choose(KIDNEY)
    return late


def dab_on(ohif: Any, value: int, index: int | None = None) -> tuple[int, int, int]:
    """One short stroke in the middle of an object, on the slice that shows most of it if no other is named."""
    k = middle(ohif, value) if index is None else index
    ohif.show(k)
    ohif.choose(value)
    ohif.press("brush")
    ohif.radius(6)
    inside = ndimage.distance_transform_edt(ohif.series.labels[:, :, k] == value)
    i, j = (int(at) for at in np.unravel_index(inside.argmax(), inside.shape))
    ohif.stroke([(i - 1, j, k), (i + 1, j, k)])
    return i, j, k


def slices_of(ohif: Any, value: int) -> list[int]:
    found: list[int] = np.flatnonzero((ohif.labels() == value).any(axis=(0, 1))).tolist()
    return found


def tooltip(ohif: Any, name: str) -> str:
    return str(ohif.page.get_attribute(f"[data-imos={name}]", "title"))


def test_a_study_that_came_after_the_start_of_the_server_can_be_opened(late: Any) -> None:
    assert late.ask("w => w.ready")


SHORTCUTS = """async () => {
  const {shortcuts} = await import('/imos/viewer/shortcuts.js');
  return shortcuts.map(({keys, does, act}) => [keys, does, act]);
}"""
KEYS = {"Esc": "Escape", "Ctrl+Z": "Control+z", "Ctrl+Y": "Control+y", "Ctrl+Shift+Z": "Control+Shift+Z"}


def test_every_shortcut_does_what_is_written_and_is_in_both_lists(short: Any, root: Path) -> None:
    listed = short.ask(SHORTCUTS)
    left = {(act, key) for keys, _, act in listed for key in keys.split(", ")}
    assert len(left) == 16

    def press(act: str, key: str) -> None:
        left.remove((act, key))
        short.page.keyboard.press(KEYS.get(key, key.lower().replace("ctrl", "Control").replace("enter", "Enter")))
        short.look()

    def selected() -> tuple[int, bool]:
        value, locked = short.ask("w => [w.segments.selected, w.segments.locked.has(w.segments.selected)]")
        return int(value), bool(locked)

    for act, key in (("brush", "B"), ("eraser", "E"), ("noTool", "X")):
        assert not short.is_pressed(act)
        press(act, key)
        assert short.is_pressed(act)
    radius = float(short.page.input_value("[data-imos=radius]"))
    press("larger", "]")
    assert float(short.page.input_value("[data-imos=radius]")) == radius + 1
    press("smaller", "[")
    assert float(short.page.input_value("[data-imos=radius]")) == radius
    press("nextSegment", "W")
    assert selected() == (KIDNEY + 1, False)
    press("previousSegment", "Q")
    assert selected() == (KIDNEY, False)
    press("lock", "K")
    assert selected() == (KIDNEY, True)
    short.lock(KIDNEY)

    dab_on(short, KIDNEY)
    assert values(short.drawn()) == {KIDNEY}
    for key in ("Ctrl+Y", "Ctrl+Shift+Z"):
        left.add(("undo", "Ctrl+Z"))
        press("undo", "Ctrl+Z")
        assert values(short.labels()) == set()
        press("redo", key)
        assert values(short.labels()) == {KIDNEY}
    press("propagate", "P")
    short.wait_for_run()
    assert len(slices_of(short, KIDNEY)) > 1
    press("suggested", "N")
    assert short.ask("w => w.shown(2)") == short.ask(f"w => w.state.suggested[{KIDNEY}]")
    for value in (SPLEEN, LIVER, AORTA):
        dab_on(short, value)
    before = short.drawn()
    short.page.keyboard.press("p")
    short.page.wait_for_function("window.imos.workspace.run")
    press("cancel", "Esc")
    short.wait_for_run()
    assert short.message.startswith("Cancelled.")
    assert (short.labels() == before).all()
    press("accept", "Ctrl+Enter")
    short.wait_for_run()
    assert short.message.startswith("Accepted and stored")

    assert not short.page.is_visible("[data-imos=help-list]")
    press("help", "?")
    rows = [row.split("\t") for row in short.page.inner_text("[data-imos=help-list] table").split("\n")]
    assert [[keys.split(), does] for keys, does in rows] == [[keys.split(", "), does] for keys, does, _ in listed]
    short.page.keyboard.press("?")
    assert not short.page.is_visible("[data-imos=help-list]")
    assert not left, "keys that nobody tried"
    table = (root / "docs" / "ohif.md").read_text().split("\n## Keyboard\n")[1].split("\n## ")[0]
    written = {key for row in table.splitlines() if row.startswith("| `") for key in row.split("|")[1].split("`")[1::2]}
    assert written == {key for keys, _, _ in listed for key in keys.split(", ")}


def test_the_next_slice_to_paint_is_the_one_that_the_server_suggests(short: Any) -> None:
    first = dab_on(short, KIDNEY)[2]
    short.propagate()
    client = short.ask("w => w.api.client")
    path = f"{short.service}/imos/v1/images/{short.series.uid}/state"
    suggested = httpx.get(path, params={"client": client}, timeout=60).json()["suggested"][str(KIDNEY)]
    assert suggested != first
    short.show(first)
    short.press("suggested")
    short.page.wait_for_function("index => window.imos.workspace.shown(2) === index", arg=suggested, timeout=20_000)
    short.look()
    assert short.page.inner_text("[data-imos=suggested]") == f"Next to paint: {short.number}"
    assert short.page.inner_text("[data-imos=caption]").endswith(", best to paint next")

    painted = short.drawn()
    i, j, _ = dab_on(short, KIDNEY, suggested)
    assert short.page.inner_text("[data-imos=suggested]") == "Next to paint", "only the next run can tell"
    short.propagate()
    assert short.message.startswith("Done in ")
    said = httpx.get(path, params={"client": client}, timeout=60).json()
    assert said["slices"][str(KIDNEY)]["painted"] == sorted([first, suggested])
    assert said["suggested"].get(str(KIDNEY)) not in (first, suggested)
    found = short.labels()
    assert found[i, j, suggested] == KIDNEY
    assert (found[:, :, first] == painted[:, :, first]).all()


def test_the_selected_segment_alone_is_propagated(short: Any) -> None:
    spleen = dab_on(short, SPLEEN)[2]
    dab_on(short, KIDNEY)
    short.page.select_option("[data-imos=scope]", "selected")
    short.propagate()
    assert len(slices_of(short, KIDNEY)) > 1
    assert slices_of(short, SPLEEN) == [spleen]
    short.choose(SPLEEN)
    short.propagate()
    short.page.select_option("[data-imos=scope]", "all")
    assert len(slices_of(short, SPLEEN)) > 1


def test_here_takes_the_number_of_the_slice_on_view(short: Any) -> None:
    for name, place, index in (("first", 0, 3), ("last", 1, 20)):
        short.show(index)
        short.page.click(f".imos-limits button >> nth={place}")
        assert short.page.input_value(f"[data-imos={name}]") == str(short.number)
        short.page.fill(f"[data-imos={name}]", "")


def test_reset_asks_first_and_every_step_back_is_named(short: Any) -> None:
    k = dab_on(short, KIDNEY)[2]
    assert tooltip(short, "undo") == f"Undo: painting on axial slice {k + 1} (Ctrl+Z)"
    short.propagate()
    assert tooltip(short, "undo") == "Undo: Propagate right kidney (Ctrl+Z)"
    before = short.labels()
    asked: list[str] = []
    for answer in ("dismiss", "accept"):
        assert (short.labels() == before).all()

        def tell(dialog: Any, answer: str = answer) -> None:
            asked.append(dialog.message)
            getattr(dialog, answer)()

        short.page.once("dialog", tell)
        short.history("reset")
    assert asked == ["Empty all segments of this series? Undo brings them back."] * 2
    assert values(short.labels()) == set()
    assert short.message == "All segments of this series are empty again. Undo brings them back."
    for step in ("Reset", "Propagate right kidney", f"Paint right kidney on slice {k + 1}"):
        assert tooltip(short, "undo") == f"Undo: {step} (Ctrl+Z)"
        short.history("undo")
        assert short.message == f"Undone: {step}."
        assert tooltip(short, "redo") == f"Redo: {step} (Ctrl+Y)"
    assert values(short.labels()) == set()
    short.history("redo")
    assert short.message == f"Done again: Paint right kidney on slice {k + 1}."
    short.history("redo")
    assert (short.labels() == before).all()


def test_a_segment_is_renamed_and_coloured_and_stored_so(short: Any, archive: Any) -> None:
    row = f"[data-imos=segments] li[data-value='{KIDNEY}']"
    i, j, k = dab_on(short, KIDNEY)
    short.press("noTool")
    short.page.dblclick(f"{row} .imos-name")
    short.page.keyboard.type("kidney of the liver side")
    short.page.keyboard.press("Enter")
    short.page.click(f"[data-imos=segments] li[data-value='{LIVER}'] [data-imos=rename]")
    short.page.keyboard.type("never")
    short.page.keyboard.press("Escape")
    short.page.click(f"[data-imos=segments] li[data-value='{SPLEEN}'] [data-imos=rename]")
    short.page.keyboard.type("liver")
    short.page.keyboard.press("Enter")
    assert short.message == "Another segment has this name already."

    for colour, strongest in (("#00ff00", 1), ("#ff0000", 0)):
        short.page.fill(f"{row} input[type=color]", colour)
        short.look()
        pixel = short.pixel((i, j, k))
        assert pixel[strongest] > 40 + max(pixel[:strongest] + pixel[strongest + 1 :])
    short.press("accept")
    short.page.wait_for_timeout(300)
    short.wait_for_run()
    assert short.message.startswith("Accepted and stored")
    stored = pydicom.dcmread(DicomBytesIO(archive.segmentations(short.series)[-1]))
    assert [str(one.SegmentLabel) for one in stored.SegmentSequence] == ["kidney of the liver side"]
    short.reload()
    names = ["spleen", "kidney of the liver side", "left kidney", "liver", "stomach", "aorta"]
    assert short.page.inner_text("[data-imos=segments]").split("\n") == names
    assert short.page.input_value(f"{row} input[type=color]") == "#ff0000"
    assert short.errors == []
