"""The division by patient: 3:1:1, and the same whatever else there is."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from imos.datasets.splits import SEED, SHARES, Split, split_of

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=20)


@given(st.sets(NAMES, min_size=1, max_size=40), st.integers(), st.randoms())
def test_no_patient_is_in_two_splits_in_whatever_order_they_come(patients: set[str], seed: int, random: Random) -> None:
    there = sorted(patients)
    first = {patient: split_of(patient, seed) for patient in there}
    random.shuffle(there)
    assert {patient: split_of(patient, seed) for patient in there} == first
    assert {patient: split_of(patient, seed) for patient in there[: len(there) // 2]}.items() <= first.items()


@given(st.integers(), st.sampled_from(["patient{:04}", "amos_{:04}", "{}"]))
def test_shares_of_many_patients_are_near_three_to_one_to_one(seed: int, names: str) -> None:
    count = 2000
    shares = Counter(split_of(names.format(number), seed) for number in range(count))
    for split, share in SHARES.items():
        assert abs(shares[split] / count - share / 5) < 0.06


def test_another_seed_gives_another_division() -> None:
    patients = [f"patient{number:04}" for number in range(50)]
    assert [split_of(patient, 1) for patient in patients] != [split_of(patient, 2) for patient in patients]


def test_the_published_videos_of_cholecseg8k_are_divided_as_well_as_seventeen_can_be() -> None:
    numbers = (1, 9, 12, 17, 18, 20, 24, 25, 26, 27, 28, 35, 37, 43, 48, 52, 55)
    shares = Counter(split_of(f"video{number:02}", SEED) for number in numbers)
    assert shares == {Split.TRAIN: 10, Split.VAL: 4, Split.TEST: 3}
