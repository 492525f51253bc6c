from __future__ import annotations

import numpy as np
import pytest

from imos.errors import UserError
from imos.imaging import Image, ImageKind, Window, apply_window, choose_window, is_hounsfield
from imos.imaging.windowing import BONE, BRAIN, LUNG, SOFT_TISSUE, VESSEL

RANDOM = np.random.default_rng(0)


def image(voxels: np.ndarray, modality: str = "") -> Image:
    return Image(voxels, np.eye(4), ImageKind.VOLUME, "scan", modality=modality)


def ct(modality: str = "CT") -> Image:
    voxels = np.full((20, 20, 20), -1000, np.int16)
    voxels[4:16, 4:16] = RANDOM.integers(-100, 150, (12, 12, 20))
    voxels[6:8, 6:8] = 900
    return image(voxels, modality)


@pytest.mark.parametrize(
    ("low", "high", "window"),
    [
        (-950, -700, LUNG),
        (-90, 160, SOFT_TISSUE),
        (5, 60, BRAIN),
        (160, 380, VESSEL),
        (150, 1200, BONE),
    ],
)
def test_ct_window_follows_the_tissue(low: int, high: int, window: Window) -> None:
    assert choose_window(ct(), RANDOM.integers(low, high, 500)) == window


def test_heart_between_the_lungs_keeps_the_soft_tissue_window() -> None:
    near = np.concatenate([RANDOM.integers(-20, 140, 700), RANDOM.integers(-900, -700, 300)])
    assert choose_window(ct(), near) == SOFT_TISSUE


def test_ct_without_a_prompt_gets_the_soft_tissue_window() -> None:
    assert choose_window(ct()) == SOFT_TISSUE


def test_ct_is_recognised_without_dicom() -> None:
    assert is_hounsfield(ct(modality=""))


@pytest.mark.parametrize(
    "other",
    [
        image(RANDOM.integers(0, 900, (9, 9, 9)).astype(np.int16)),
        image(RANDOM.normal(0, 1, (9, 9, 9)).astype(np.float32)),
        image(RANDOM.integers(0, 255, (9, 9, 9)).astype(np.uint8)),
        image(RANDOM.integers(-1000, 1000, (9, 9, 9)).astype(np.int16), "MR"),
        image(RANDOM.integers(0, 4000, (9, 9, 9)).astype(np.uint16)),
    ],
    ids=["mr", "normalised", "bytes", "dicom mr", "unsigned"],
)
def test_other_images_are_not_taken_for_ct(other: Image) -> None:
    assert not is_hounsfield(other)


def test_bytes_are_kept() -> None:
    voxels = RANDOM.integers(0, 256, (8, 8, 8)).astype(np.uint8)
    window = choose_window(image(voxels))
    assert window == Window(0, 255)
    assert apply_window(voxels, window) is voxels


def test_few_bright_voxels_and_the_background_do_not_set_the_window() -> None:
    voxels = np.zeros((40, 40, 40), np.float32)
    voxels[10:30, 10:30, 10:30] = RANDOM.uniform(100, 200, (20, 20, 20))
    voxels[15, 15, 15:20] = 100_000
    window = choose_window(image(voxels))
    assert 100 <= window.low < 102
    assert 198 < window.high <= 200


def test_bright_painted_object_widens_the_window() -> None:
    voxels = RANDOM.uniform(100, 200, (60, 60, 60)).astype(np.float32)
    voxels[30, 30, 30:34] = 500
    assert choose_window(image(voxels), near=voxels[29:32, 29:32, 30:34]).high == 500


def test_binary_image_gets_a_window() -> None:
    voxels = np.zeros((6, 6, 6), np.int16)
    voxels[3, 3, 3] = 1
    assert choose_window(image(voxels)) == Window(0, 1)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.float64])
def test_small_differences_of_large_numbers_are_seen(dtype: type) -> None:
    """Where 32 bits of a floating point number would be too few."""
    voxels = (RANDOM.integers(1, 100, (8, 8, 8)) + 10**9).astype(dtype)
    window = choose_window(image(voxels), near=voxels[2:4])
    seen = apply_window(voxels, window).astype(float)
    wanted = apply_window((voxels - 10**9).astype(np.float32), Window(window.low - 1e9, window.high - 1e9))
    assert len(np.unique(seen)) > 90
    assert np.array_equal(seen, wanted)


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_image_that_shows_nothing_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="shows nothing"):
        choose_window(image(np.full((4, 4, 4), value, np.float32)))


def test_window_maps_low_to_black_and_high_to_white_and_clips() -> None:
    values = np.array([-500, -160, 40, 240, 3000], np.int16)
    assert apply_window(values, SOFT_TISSUE).tolist() == [0, 0, 128, 255, 255]
    assert values.tolist() == [-500, -160, 40, 240, 3000]
