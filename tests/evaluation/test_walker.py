"""Random walks: where the image shows the object one painted slice is enough; elsewhere its shape goes on."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from imos.errors import UserError
from imos.evaluation import walker
from imos.evaluation.baselines import carry_all
from imos.evaluation.sequences import Sequence
from imos.metrics import dice


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    pytest.importorskip("skimage", reason="scikit-image is optional: pip install scikit-image")


def tube(moved: int = 1, depth: int = 8, size: int = 64, radius: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Slices and labels of a bright disk that moves so many pixels a slice."""
    y, x = np.mgrid[:size, :size]
    labels = np.stack(
        [((y - size // 2) ** 2 + (x - size // 3 - moved * k) ** 2 < radius**2).astype(np.uint8) for k in range(depth)]
    )
    noise = np.random.default_rng(0).normal(0, 4, labels.shape)
    return (60 + 120 * labels + noise).astype(np.uint8), labels


def test_follows_what_the_image_shows_to_both_ends() -> None:
    slices, labels = tube()
    made = carry_all(walker.WALKER, slices, labels, [Sequence(1, 0, 7, painted=4)])
    assert dice(made == 1, labels == 1) > 0.95
    np.testing.assert_array_equal(made[4], labels[4])


def test_image_says_more_than_the_shape() -> None:
    slices, labels = tube(moved=2)
    seen = carry_all(walker.WALKER, slices, labels, [Sequence(1, 0, 7, painted=4)])
    blind = carry_all(walker.WALKER, np.full_like(slices, 90), labels, [Sequence(1, 0, 7, painted=4)])
    assert dice(seen == 1, labels == 1) > dice(blind == 1, labels == 1) + 0.1


def test_flat_image_repeats_the_shape_nearby() -> None:
    slices, labels = tube(moved=0)
    made = walker.between(np.full_like(slices[:3], 90), labels[0] > 0, labels[0] > 0)
    assert made.shape == (1, 64, 64)
    assert dice(made[0] > 0.5, labels[0] > 0) > 0.9


def test_gap_between_two_slices_uses_both() -> None:
    slices, labels = tube(moved=2)
    one = walker.between(np.full_like(slices[:-1], 90), labels[0] > 0, None)
    both = walker.between(np.full_like(slices, 90), labels[0] > 0, labels[-1] > 0)
    near_end = labels[6] > 0
    assert dice(both[-1] > 0.5, near_end) > dice(one[-1] > 0.5, near_end)


def test_large_objects_are_walked_on_a_coarser_grid_but_come_back_in_full() -> None:
    slices, labels = tube(moved=1, depth=4, size=300, radius=70)
    made = walker.between(slices[:-1], labels[0] > 0, None)
    assert made.shape == (2, 300, 300)
    assert dice(made > 0.5, labels[1:3] > 0) > 0.95


def test_object_on_the_whole_slice() -> None:
    whole = np.ones((20, 20), bool)
    assert (walker.between(np.full((3, 20, 20), 90, np.uint8), whole, None) == 1).all()


def test_nothing_painted_gives_nothing() -> None:
    nothing = np.zeros((20, 20), bool)
    assert not walker.between(np.full((3, 20, 20), 90, np.uint8), nothing, None).any()


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(UserError, match="pip install scikit-image"):
        walker.check_installed()
