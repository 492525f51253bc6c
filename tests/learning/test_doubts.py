"""A label that its image does not bear out is named, and a right one is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imos.learning.doubts import FEWEST, SHARE, doubtful, warning_of
from imos.learning.finetuning import Recipe
from imos.learning.rounds import Lessons, Round
from imos.learning.volumes import LabelledVolume, VolumeRef
from imos.propagation.model import BUNDLED
from imos.registry.records import LabelRef
from imos.registry.store import Registry


def scores(*values: float) -> dict[LabelRef, float]:
    return {LabelRef(f"volume{number}", "digest"): value for number, value in enumerate(values)}


def test_the_one_that_is_lost_is_named() -> None:
    assert warning_of(scores(0.8, 0.7, 0.21, 0.72, 0.75)) == (
        "Look at the label of volume2 (0.21), which the image hardly bears out:"
        " from one slice half of all come back with a J&F of 0.72 or more."
    )


def test_the_worst_come_first_and_the_others_are_counted() -> None:
    said = warning_of(scores(0.8, 0.3, 0.8, 0.2, 0.8, 0.1, 0.8, 0.0, 0.8))
    assert "labels of volume7 (0.00), volume5 (0.10), volume3 (0.20) and 1 more," in said


def test_of_few_labels_nobody_knows_what_is_usual() -> None:
    assert warning_of(scores(0.9, 0.9, 0.0)) == ""


@given(st.lists(st.floats(0, 1), min_size=FEWEST, max_size=30))
def test_fewer_than_half_are_doubtful_and_none_that_is_usual(values: list[float]) -> None:
    found = scores(*values)
    doubts = doubtful(found)
    assert len(doubts) <= len(values) / 2
    rest = [found[label] for label in found if label not in doubts]
    assert all(found[label] <= min(rest) for label in doubts)
    if min(values) >= SHARE * max(values):
        assert not doubts


@pytest.mark.slow
def test_a_round_names_the_label_that_lies_elsewhere(volume: Callable[..., LabelledVolume], tmp_path: Path) -> None:
    held_out = [VolumeRef.of(volume(number), f"digest{number}") for number in range(10, 13)]
    new = [VolumeRef.of(volume(number, is_wrong=number == 1), f"digest{number}") for number in range(3)]
    record = Round(Registry(tmp_path), Recipe(BUNDLED, steps=2, batch=4, device="cpu")).run(Lessons(new, (), held_out))
    assert record.reason.startswith(
        "Not promoted: 3 volumes are held out, 5 are the least. Look at the label of body1 ("
    )
    assert "body0" not in record.reason
    assert {label.image for label in record.new} == {"body0", "body1", "body2"}, "it is a hint, and nothing is left out"
