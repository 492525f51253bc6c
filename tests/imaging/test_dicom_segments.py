"""Segments of DICOM SEG one by one: overlapping ones, empty ones, their names and colours; read again by dcmqi."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging import Image, read_image, read_label_map
from imos.imaging.dicom_segments import Segment, read_flattened, read_segments, write_segments
from tests.imaging.test_dicom_seg_series import KINDS, NAMED, by_dcmqi, named_for_dcmqi, tool, turned, write_series

COLORS = [(221, 130, 101), (0, 0, 0), (255, 255, 255), (1, 200, 30), None]


def some_segments(shape: tuple[int, int, int], kinds: list[str], seed: int) -> list[Segment]:
    """Segments of the kinds `sparse`, `all`, `empty` and `same` (as the one before); all but the empty ones overlap."""
    random = np.random.default_rng(seed)
    values = random.choice(np.arange(1, 65536), len(kinds), replace=False).tolist()
    segments: list[Segment] = []
    for number, kind in enumerate(kinds):
        mask: NDArray[np.bool_] = random.random(shape) < 0.3
        mask[:, :, random.random(shape[2]) < 0.4] = False
        if kind == "all":
            mask = np.ones(shape, bool)
        elif kind == "same" and segments:
            mask = segments[-1].mask.copy()
        elif kind == "empty":
            mask = np.zeros(shape, bool)
        segments.append(Segment(values[number], f"Segment Ⅳ {kind} {number}", mask, COLORS[number % len(COLORS)]))
    return segments


def check_same(found: list[Segment], written: list[Segment]) -> None:
    assert [(one.value, one.name) for one in found] == [(one.value, one.name) for one in written]
    for one, other in zip(found, written, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        if other.color is None:
            assert one.color is None
        else:
            assert one.color is not None
            assert np.abs(np.subtract(one.color, other.color)).max() <= 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(KINDS)),
    direction=st.sampled_from([*NAMED, "oblique"]),
    step=st.sampled_from([2.5, -2.5]),
    kinds=st.lists(st.sampled_from(["sparse", "all", "empty", "same"]), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
)
def test_segments_come_back_voxel_for_voxel_whatever_they_share(
    tmp_path_factory: pytest.TempPathFactory,
    make_series: Any,
    kind: str,
    direction: str,
    step: float,
    kinds: list[str],
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("segments")
    along, down = turned(np.random.default_rng(seed)) if direction == "oblique" else NAMED[direction]
    image = write_series(folder / "series", make_series, kind, along, down, step, seed)
    written = some_segments(image.shape, kinds, seed)
    write_segments(folder / "seg.dcm", written, image)

    check_same(read_segments(folder / "seg.dcm", image), written)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(["sparse", "all", "empty"]), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_frames_in_any_order_are_no_matter(multi_frame: Path, tmp_path: Path, kinds: list[str], seed: int) -> None:
    image = read_image(multi_frame)
    written = some_segments(image.shape, kinds, seed)
    write_segments(tmp_path / "seg.dcm", written, image)

    check_same(read_segments(tmp_path / "seg.dcm", image), written)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(max_size=70), min_size=1, max_size=4))
def test_names_of_full_and_empty_segments_come_back(multi_frame: Path, tmp_path: Path, names: list[str]) -> None:
    image = read_image(multi_frame)
    masks = [np.full(image.shape, number % 2 == 0) for number in range(len(names))]
    write_segments(tmp_path / "seg.dcm", [Segment(n + 3, name, masks[n]) for n, name in enumerate(names)], image)

    found = [one.name for one in read_segments(tmp_path / "seg.dcm", image)]
    plain = ["".join(c if c.isprintable() and c != "\\" else " " for c in name) for name in names]
    assert found == [" ".join(one.split())[:64].strip() or f"Label {n + 3}" for n, one in enumerate(plain)]


@pytest.mark.parametrize("direction", ["axial", "sagittal", "oblique"])
def test_dcmqi_reads_overlapping_segments_as_they_were_written(
    tmp_path: Path, make_series: Any, direction: str
) -> None:
    along, down = turned(np.random.default_rng(3)) if direction == "oblique" else NAMED[direction]
    image = write_series(tmp_path / "series", make_series, "CT", along, down, 2.0, 1)
    written = some_segments(image.shape, ["sparse", "all", "empty", "sparse"], 5)
    write_segments(tmp_path / "seg.dcm", written, image)
    assert str(pydicom.dcmread(tmp_path / "seg.dcm").SegmentsOverlap) == "YES"

    folder = tmp_path / "dcmqi"
    folder.mkdir()
    command = [tool("segimage2itkimage"), "--inputDICOM", str(tmp_path / "seg.dcm")]
    command += ["--outputDirectory", str(folder), "-t", "nii"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    found = {one["SegmentLabel"]: one for group in said["segmentAttributes"] for one in group}
    assert set(found) >= {one.name for one in written if one.mask.any()}
    for one in written:
        if one.mask.any():
            mask = read_label_map(folder / f"{found[one.name]['labelID']}.nii.gz", image) > 0
            np.testing.assert_array_equal(mask, one.mask)


def test_overlapping_segments_of_dcmqi_are_read_whole(tmp_path: Path, make_series: Any) -> None:
    image = patient(tmp_path, make_series)
    large, small = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    large[1:8, 1:8, 1:4], small[3:5, 3:5, 2] = True, True
    file = by_dcmqi(tmp_path, image, {1: large, 2: small})

    found = read_segments(file, image)
    assert [(one.value, one.name) for one in found] == [(1, "part 1"), (2, "part 2")]
    np.testing.assert_array_equal(found[0].mask, large)
    np.testing.assert_array_equal(found[1].mask, small)
    flat = read_flattened(file, image)
    np.testing.assert_array_equal(flat.labels, np.where(small, 2, large))
    assert flat.hidden == {(1, 2): 4}
    assert [one.name for one in flat.described] == ["part 1", "part 2"]


def test_segments_that_share_nothing_hide_nothing(tmp_path: Path, make_series: Any) -> None:
    image = write_series(tmp_path / "series", make_series, "MR", *NAMED["coronal"], 2.0, 4)
    left, right = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    left[:5], right[5:] = True, True
    empty = np.zeros(image.shape, bool)
    write_segments(tmp_path / "seg.dcm", [Segment(7, "a", left), Segment(2, "b", right), Segment(9, "c", empty)], image)

    flat = read_flattened(tmp_path / "seg.dcm", image)
    assert str(pydicom.dcmread(tmp_path / "seg.dcm").SegmentsOverlap) == "NO"
    assert not flat.hidden
    assert [(one.value, one.name) for one in flat.described] == [(7, "a"), (2, "b"), (9, "c")]
    np.testing.assert_array_equal(flat.labels, np.where(left, 7, 2))


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, make_series: Any, make_image: Any) -> None:
    image = write_series(tmp_path / "series", make_series, "CT", *NAMED["axial"], 2.0, 4)
    mask = np.ones(image.shape, bool)
    with pytest.raises(UserError, match="needs a segment"):
        write_segments(tmp_path / "seg.dcm", [], image)
    with pytest.raises(ValueError, match="must be different"):
        write_segments(tmp_path / "seg.dcm", [Segment(1, "a", mask), Segment(1, "b", mask)], image)
    with pytest.raises(ValueError, match="image's shape"):
        write_segments(tmp_path / "seg.dcm", [Segment(1, "a", mask[:-1])], image)
    with pytest.raises(UserError, match="refers to DICOM images"):
        write_segments(tmp_path / "seg.dcm", [Segment(1, "a", np.ones((8, 9, 10), bool))], make_image())
    assert [file.name for file in tmp_path.iterdir()] == ["series"]


def patient(tmp_path: Path, make_series: Any) -> Image:
    """A series with what dcmqi wants to know about the patient."""
    write_series(tmp_path / "series", make_series, "CT", *NAMED["axial"], 2.0, 4)
    return named_for_dcmqi(tmp_path / "series")
