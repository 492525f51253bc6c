"""Categories: names of labels, and which of them training can have seen."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from imos.datasets.categories import category_of, kind_of, read_categories


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("liver", "liver"),
        ("kidney left", "left kidney"),
        ("left kidney", "left kidney"),
        ("left ventricle cavity", "left ventricle cavity"),
        ("neuron 12", "neuron"),
        ("mandible half B", "mandible half B"),
        ("soft-tissue sarcoma (GTV)", "soft-tissue sarcoma"),
        ("cells present in the first frame and in >=80% of the frames", "cells"),
    ],
)
def test_name_in_the_table(name: str, category: str) -> None:
    assert category_of(name) == category


@pytest.mark.parametrize(
    ("one", "other"), [("lung left", "right lung"), ("brain stem", "brainstem"), ("Neuron 1", "neuron 7")]
)
def test_same_kind(one: str, other: str) -> None:
    assert kind_of(one) == kind_of(other)


def test_other_kinds() -> None:
    assert kind_of("lateral ventricles") != kind_of("ventricles")
    assert kind_of("spinal cord") != kind_of("spinal cord grey matter")


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    volumes = [
        ("split", "set", "case", "labels"),
        ("train", "a", "one", '{"1": "right lung", "2": "spleen"}'),
        ("val", "b", "two", '{"1": "lung left", "2": "liver", "3": " "}'),
        ("val", "b", "broken", '{"1": '),
    ]
    frames = [
        ("split", "set", "sequence", "labels"),
        ("train/stills", "c", "-", "1=lesion"),
        ("val", "d", "clip", "1=lesion;2=tool (all together);5..7=cells present in frame 0; and a note"),
    ]
    for name, lines in (("volumes.tsv", volumes), ("frames.tsv", frames)):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows(lines)
    return tmp_path


def test_star_on_what_the_split_train_does_not_name(tables: Path) -> None:
    categories = read_categories(tables, "val")
    assert categories.name("b", "two", 1) == "left lung"
    assert categories.name("b", "two", 2) == "liver*"
    assert categories.name("d", "clip", 1) == "lesion"
    assert categories.name("d", "clip", 2) == "tool*"
    assert categories.name("d", "clip", 6) == "cells*"
    assert categories.is_seen("b", "two", 1) is True
    assert categories.is_seen("b", "two", 2) is False


def test_label_without_name_has_no_star(tables: Path) -> None:
    categories = read_categories(tables, "val")
    for case, label in (("two", 3), ("two", 9), ("broken", 1)):
        assert categories.name("b", case, label) == f"label {label}"
        assert categories.is_seen("b", case, label) is None


def test_tables_without_names(collection: Path) -> None:
    assert not read_categories(collection, "val")
