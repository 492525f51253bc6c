"""The frozen split: nobody changes sides, and both sides have somebody soon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imos.errors import UserError
from imos.registry.split import FrozenSplit, Side, fewest_judges, patient_key, side_of


@given(st.lists(st.text(min_size=1), min_size=1, max_size=60, unique=True))
def test_there_are_always_enough_judges_and_never_too_many(patients: list[str]) -> None:
    judges = 0
    for number, patient in enumerate(patients):
        judges += side_of(patient_key(patient), number, judges) is Side.VALIDATION
        assert fewest_judges(number + 1) <= judges <= fewest_judges(number + 1) + 1
        assert judges <= number  # somebody teaches from the first one on


def test_ten_patients_are_enough_for_the_gate() -> None:
    from imos.learning.gate import FEWEST_VOLUMES

    assert fewest_judges(10) >= FEWEST_VOLUMES


def test_a_judge_stays_a_judge(tmp_path: Path) -> None:
    split = FrozenSplit(tmp_path)
    first = {f"patient{number}": split.decide(f"patient{number}") for number in range(12)}
    assert set(first.values()) == set(Side)
    again = FrozenSplit(tmp_path)
    assert {name: again.decide(name) for name in reversed(first)} == first
    for number in range(12, 30):
        again.decide(f"patient{number}")
    assert {name: again.decide(name) for name in first} == first


def test_the_file_names_no_patient(tmp_path: Path) -> None:
    FrozenSplit(tmp_path).decide("Doe^Jane")
    assert "Doe" not in (tmp_path / "split.json").read_text()


def test_damaged_split_is_not_made_anew(tmp_path: Path) -> None:
    split = FrozenSplit(tmp_path)
    split.decide("a")
    content = (tmp_path / "split.json").read_text()
    (tmp_path / "split.json").write_text(content[:-4])
    with pytest.raises(UserError, match="nobody knows any more which volumes judge"):
        split.decide("b")
    (tmp_path / "split.json").write_text(content)
    assert len(json.loads(content)) == 1
    assert split.decide("a") is Side.TRAINING
