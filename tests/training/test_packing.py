"""A pack gives the same stacks as the collection it was made of."""

from dataclasses import replace

import numpy as np
import pytest

from imos.cli import main
from imos.errors import UserError
from imos.training.packing import Source, other_volumes, read_pack, training_stacks, write_pack
from imos.training.volumes import labelled_stacks, volumes_of


def test_a_pack_holds_the_stacks_of_the_collection(collection, tmp_path):
    stacks = labelled_stacks(collection)
    size = write_pack(stacks, tmp_path / "pack.npz")
    again = read_pack(tmp_path / "pack.npz")
    assert size == (tmp_path / "pack.npz").stat().st_size
    assert [stack.is_video for stack in again] == [stack.is_video for stack in stacks]
    for one, other in zip(again, stacks, strict=True):
        np.testing.assert_array_equal(one.slices, other.slices)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_stacks_of_one_volume_stay_stacks_of_one_volume(collection, tmp_path):
    first, second, third = labelled_stacks(collection)[:3]
    write_pack([replace(first, volume=0), replace(second, volume=0), third], tmp_path / "pack.npz", quickly=True)
    again = read_pack(tmp_path / "pack.npz")
    assert [stack.volume for stack in again] == [0, 0, None]
    assert volumes_of(again) == 2


def test_training_cuts_from_a_pack_as_from_the_collection(collection, tmp_path):
    write_pack(labelled_stacks(collection), tmp_path / "pack.npz")
    direct, packed = training_stacks(Source(collection)), training_stacks(Source(tmp_path / "pack.npz"))
    shapes = [[[view.slices.shape for view in views] for views in source] for source in (packed, direct)]
    assert shapes[0] == shapes[1]
    assert sum(len(views) for views in direct) > len(direct)  # other planes


def test_volumes_without_labels_travel_too(partly_labelled, tmp_path):
    path = tmp_path / "pack.npz"
    assert main(["pack", str(partly_labelled), str(path)]) == 0
    for source in (Source(partly_labelled), Source(path)):
        (volume,) = other_volumes(source)
        assert volume.slices.shape == (24, 40, 40)
        assert len(training_stacks(source)) == 6, "five volumes and a still"


def test_another_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "pack.npz").write_text("no pack")
    with pytest.raises(UserError, match="is not a pack"):
        read_pack(tmp_path / "pack.npz")
