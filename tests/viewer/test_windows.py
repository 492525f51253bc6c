"""Several windows at once: of two browsers on one study and on two, and of one browser on the same study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.xdist_group("viewer")]

KIDNEY, LIVER = 2, 4


@pytest.fixture(scope="module")
def studies(archive: Any, ct: Any) -> list[Any]:
    """Two short studies of their own, which came after the server's start."""
    part = np.s_[:, :, 80:104]
    return [archive.add(ct.image[part], ct.labels[part], ct.affine, name=name) for name in ("shared", "other")]


def paint(ohif: Any, value: int, radius: int = 6) -> NDArray[np.uint8]:
    """Paint an object on the slice that shows most of it; the label map then."""
    index = int((ohif.series.labels == value).sum(axis=(0, 1)).argmax())
    ohif.page.bring_to_front()
    ohif.show(index)
    ohif.choose(value)
    ohif.paint(ohif.series.labels[:, :, index] == value, 2, index, radius=radius)
    return ohif.drawn()


def slices_of(labels: NDArray[np.uint8], value: int) -> int:
    return int((labels == value).any(axis=(0, 1)).sum())


def run_together(*people: Any) -> None:
    """All press Propagate before any run has ended."""
    for ohif in people:
        ohif.press("propagate")
    for ohif in people:
        ohif.page.wait_for_timeout(200)
        ohif.wait_for_run()


def accept(ohif: Any) -> None:
    ohif.page.bring_to_front()
    ohif.press("accept")
    ohif.page.wait_for_timeout(300)
    ohif.wait_for_run()
    assert ohif.message.startswith("Accepted and stored"), ohif.message


def test_two_people_on_one_study_keep_their_masks_apart_until_one_accepts(
    archive: Any, studies: list[Any], viewer: Callable[..., Any]
) -> None:
    shared = studies[0]
    one, other = viewer(shared), viewer(shared)
    paint(one, KIDNEY)
    paint(other, LIVER, radius=12)
    run_together(one, other)
    mine, theirs = one.drawn(), other.drawn()
    assert set(np.unique(mine)) == {0, KIDNEY}
    assert set(np.unique(theirs)) == {0, LIVER}
    assert slices_of(mine, KIDNEY) > 1
    assert slices_of(theirs, LIVER) > 1

    late = viewer(shared)
    index = int((shared.labels == LIVER).sum(axis=(0, 1)).argmax())
    i, j = np.argwhere(shared.labels[:, :, index] == LIVER).mean(axis=0).round().astype(int).tolist()
    late.show(index)
    late.choose(LIVER)
    late.press("brush")
    late.stroke([(i - 6, j, index), (i + 6, j, index)])
    late.drawn()
    accept(one)
    late.page.bring_to_front()
    late.propagate()
    assert set(np.unique(late.drawn())) == {0, LIVER}, "who began with nothing goes on so"
    late.page.close()
    assert (other.labels() == theirs).all()
    other.reload()
    assert (other.drawn() == theirs).all(), "own work comes before what others accepted"

    third = viewer(shared)
    assert (third.drawn() == mine).all()
    assert third.message == "These segments were stored with the study before."
    assert third.page.inner_text("[data-imos=saved]") == "accepted"
    for kind in ("painted", "propagated", "accepted", "absent"):
        said = [sorted(who.ask(f"w => [...w.slicesOf({KIDNEY}).{kind}]")) for who in (one, third)]
        assert said[0] == said[1], kind
    names = third.page.inner_text("[data-imos=segments]").split()
    assert names == one.page.inner_text("[data-imos=segments]").split()

    accept(other)
    assert len(archive.segmentations(shared)) == 2, "nobody's label is lost"
    third.reload()
    assert (third.drawn() == theirs).all(), "who only looked sees the newest"
    for ohif in (one, other, third):
        assert ohif.errors == []
        ohif.page.close()


def test_two_people_on_two_studies_do_not_meet(studies: list[Any], viewer: Callable[..., Any]) -> None:
    people = [viewer(studies[1]), viewer(studies[0])]
    # Somebody has accepted the second one before; start with nothing.
    people[1].ask("w => w.reset()")
    people[1].wait_for_run()
    for ohif in people:
        paint(ohif, KIDNEY)
    run_together(*people)
    for ohif in people:
        found = ohif.drawn()
        assert set(np.unique(found)) == {0, KIDNEY}
        wanted = ohif.series.labels == KIDNEY
        assert 2 * ((found == KIDNEY) & wanted).sum() / ((found == KIDNEY).sum() + wanted.sum()) > 0.7
        ohif.reload()
        assert (ohif.drawn() == found).all()
        ohif.page.close()


def test_a_second_window_of_one_browser_takes_the_work_over(studies: list[Any], viewer: Callable[..., Any]) -> None:
    first = viewer(studies[1])
    painted = paint(first, KIDNEY)
    second = first.another_window()
    assert (second.drawn() == painted).all()
    first.page.bring_to_front()
    first.page.wait_for_function("() => !window.imos.workspace.ready", timeout=10_000)
    assert first.message.startswith("This series was opened in another window of this browser; your work is there.")
    assert not first.is_enabled("propagate")
    assert first.page.evaluate("window.imos.workspace.services.segmentationService.getSegmentations().length") == 0

    second.page.bring_to_front()
    second.propagate()
    found = second.drawn()
    assert slices_of(found, KIDNEY) > 1
    first.page.bring_to_front()
    first.page.click("[data-imos=message] button")
    first.wait_until_ready()
    assert (first.drawn() == found).all()
    second.page.wait_for_function("() => !window.imos.workspace.ready", timeout=10_000)
    assert first.errors == second.errors == []
    second.page.close()
    first.page.close()
