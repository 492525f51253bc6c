from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from imos.errors import UserError
from imos.imaging import Image, ImageKind, read_image, read_label_map, write_label_map

RANDOM = np.random.default_rng(0)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twelve gray frames of 8 rows and 10 columns whose names sort naturally, not alphabetically."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(12):
        frame = RANDOM.integers(0, 255, (8, 10)).astype(np.uint8)
        frame[0, 0] = number
        Pillow.fromarray(frame).save(folder / f"frame{number}.png")
    return folder


def test_frames_are_in_natural_order(clip: Path) -> None:
    image = read_image(clip)
    assert (image.kind, image.shape, image.name) == (ImageKind.VIDEO, (8, 10, 12), "clip")
    assert image.voxels[0, 0].tolist() == list(range(12))
    assert image.frame_names[:3] == ("frame0", "frame1", "frame2")
    np.testing.assert_array_equal(image.affine, np.eye(4))


def test_colour_is_kept_and_gray_saved_as_colour_is_gray(tmp_path: Path) -> None:
    for name, gray in (("colour", False), ("gray", True)):
        (tmp_path / name).mkdir()
        for number in range(3):
            frame = RANDOM.integers(0, 255, (8, 10, 3)).astype(np.uint8)
            if gray:
                frame[:] = frame[..., :1]
            Pillow.fromarray(frame).save(tmp_path / name / f"{number}.png")
    assert read_image(tmp_path / "colour").voxels.shape == (8, 10, 3, 3)
    assert read_image(tmp_path / "gray").voxels.shape == (8, 10, 3)


def test_one_colour_frame_makes_the_video_colour(clip: Path) -> None:
    Pillow.fromarray(RANDOM.integers(0, 255, (8, 10, 3)).astype(np.uint8)).save(clip / "frame5.png")
    assert read_image(clip).is_rgb


def test_sixteen_bits_and_jpg_are_read(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    (tmp_path / "jpg").mkdir()
    for number in range(3):
        wide = RANDOM.integers(0, 60000, (8, 10)).astype(np.uint16)
        Pillow.fromarray(wide).save(tmp_path / "wide" / f"{number}.png")
        Pillow.fromarray((wide >> 8).astype(np.uint8)).save(tmp_path / "jpg" / f"{number}.JPG")
    assert read_image(tmp_path / "wide").voxels.dtype == np.uint16
    assert read_image(tmp_path / "wide").voxels.max() > 255
    assert read_image(tmp_path / "jpg").shape == (8, 10, 3)


@pytest.mark.parametrize("kind", ["palette", "8 bit", "16 bit"])
def test_painted_frames_are_read_onto_their_frames(clip: Path, tmp_path: Path, kind: str) -> None:
    value = 300 if kind == "16 bit" else 7
    painted = np.zeros((8, 10), np.uint16 if kind == "16 bit" else np.uint8)
    painted[2:4, 3:6] = value
    picture = Pillow.fromarray(painted)
    if kind == "palette":
        picture.putpalette(RANDOM.integers(0, 255, 768).astype(np.uint8).tolist())
    (tmp_path / "prompt").mkdir()
    picture.save(tmp_path / "prompt" / "frame10.png")
    image = read_image(clip)
    for path in (tmp_path / "prompt", tmp_path / "prompt" / "frame10.png"):
        labels = read_label_map(path, image)
        assert np.flatnonzero(labels.any(axis=(0, 1))).tolist() == [10]
        np.testing.assert_array_equal(labels[:, :, 10], painted)


@pytest.mark.parametrize("value", [255, 300])
@pytest.mark.parametrize("suffix", ["", ".nii.gz", ".nrrd", ".mha"])
def test_label_map_of_frames_is_read_back(clip: Path, tmp_path: Path, suffix: str, value: int) -> None:
    image = read_image(clip)
    labels = np.zeros(image.shape, np.uint16)
    labels[1:4, 2:9, 3:8] = value
    labels[6, 6, 11] = 2
    out = tmp_path / f"labels{suffix}"
    write_label_map(out, labels, image)
    np.testing.assert_array_equal(read_label_map(out, image), labels)
    if not suffix:
        assert sorted(file.name for file in out.iterdir()) == sorted(f"{name}.png" for name in image.frame_names)


def test_written_label_maps_show_colours(clip: Path, tmp_path: Path) -> None:
    image = read_image(clip)
    labels = np.ones(image.shape, np.uint8)
    write_label_map(tmp_path / "labels", labels, image)
    picture = Pillow.open(tmp_path / "labels" / "frame0.png")
    assert picture.mode == "P"
    assert picture.convert("RGB").getpixel((0, 0)) == (128, 0, 0)


def test_other_files_in_an_existing_output_folder_stay(clip: Path, tmp_path: Path) -> None:
    image = read_image(clip)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "notes.txt").write_text("mine")
    (tmp_path / "labels" / "frame0.png").write_text("of an earlier run")
    write_label_map(tmp_path / "labels", np.ones(image.shape, np.uint8), image)
    assert (tmp_path / "labels" / "notes.txt").read_text() == "mine"
    np.testing.assert_array_equal(read_label_map(tmp_path / "labels", image), 1)


def test_prompts_that_belong_to_no_frame_are_refused(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt").mkdir()
    Pillow.fromarray(np.ones((8, 10), np.uint8)).save(tmp_path / "prompt" / "frame99.png")
    with pytest.raises(UserError, match=r"frame99.png is named like no frame of clip \(frame0 … frame11\)"):
        read_label_map(tmp_path / "prompt", read_image(clip))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 4), np.uint8), "4×4 pixels but the frames are 10×8"),
        (np.ones((8, 10, 3), np.uint8), "colour image"),
        (np.zeros((8, 10), np.uint8), "no painted voxel"),
    ],
)
def test_prompts_that_are_no_label_maps_are_refused(
    clip: Path, tmp_path: Path, array: np.ndarray, message: str
) -> None:
    Pillow.fromarray(array).save(tmp_path / "frame1.png")
    with pytest.raises(UserError, match=message):
        read_label_map(tmp_path / "frame1.png", read_image(clip))


def test_png_prompt_for_a_volume_is_refused(clip: Path, make_image: type[Image]) -> None:
    with pytest.raises(UserError, match="no folder of frames"):
        read_label_map(clip, make_image())


def test_label_map_of_another_video_is_refused(clip: Path, tmp_path: Path) -> None:
    image = read_image(clip)
    longer = Image(np.zeros((8, 10, 13), np.uint8), np.eye(4), ImageKind.VIDEO, "longer")
    write_label_map(tmp_path / "labels.nii.gz", np.ones(longer.shape, np.uint8), longer)
    with pytest.raises(UserError, match="13 frames but clip has 12"):
        read_label_map(tmp_path / "labels.nii.gz", image)


def test_frames_of_different_sizes_are_refused(clip: Path) -> None:
    Pillow.fromarray(np.ones((9, 10), np.uint8)).save(clip / "frame12.png")
    with pytest.raises(UserError, match=r"frame12.png is 10×9 pixels and frame0.png is 10×8"):
        read_image(clip)


def test_two_files_of_one_frame_are_refused(clip: Path) -> None:
    Pillow.fromarray(np.ones((8, 10), np.uint8)).save(clip / "frame3.jpg")
    with pytest.raises(UserError, match=r"frame3.jpg and frame3.png"):
        read_image(clip)


def test_truncated_frame_is_named(clip: Path) -> None:
    data = (clip / "frame4.png").read_bytes()
    (clip / "frame4.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"frame4.png cannot be read"):
        read_image(clip)


def test_single_frame_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Pillow.fromarray(RANDOM.integers(0, 255, (8, 10)).astype(np.uint8)).save(tmp_path / "one" / "a.png")
    with pytest.raises(UserError, match="only one frame"):
        read_image(tmp_path / "one")
