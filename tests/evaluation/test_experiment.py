"""What an experiment makes of a case: the label map of the public session, and which weights a method takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import imos
from imos.datasets.collection import Case, Modality
from imos.errors import UserError
from imos.evaluation.experiment import WeightsChoice, floor_of, has_only_floor, propagate
from imos.propagation.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return WeightsChoice(device="cpu").load()


@pytest.mark.parametrize("is_video", [False, True], ids=["volume", "video"])
def test_painted_slices_come_back_and_the_rest_is_filled(model: Model, is_video: bool) -> None:
    # three sizes that differ: an axis taken for another one would not fit
    labels = np.zeros((5, 40, 56), np.uint8)
    labels[:, 12:24, 30:44] = 3
    slices = (60 + 40 * labels).astype(np.uint8)
    if is_video:
        slices = np.repeat(slices[..., None], 3, axis=3)
    painted = np.zeros_like(labels)
    painted[2] = labels[2]
    case = Case("set", "case", Modality.MRI, Path("case.nii.gz"), 0, is_video, Path("case.seg.nii.gz"))
    volume = propagate(case, slices, painted, model)
    made = volume.labels
    assert made.shape == labels.shape
    np.testing.assert_array_equal(made[2], labels[2])
    assert np.count_nonzero((made == 3) & (labels == 3)) > 0.8 * np.count_nonzero(labels)
    assert volume.confidence[3][2] == 1
    assert 0 < volume.confidence[3][3] < 1


def test_floor_of_the_floor_is_itself(model: Model) -> None:
    floor = floor_of(model)
    assert has_only_floor(floor)
    assert floor_of(floor) is floor


def test_weights_without_floor() -> None:
    paper = SimpleNamespace(encoder=None, network=None, info=SimpleNamespace(configuration="xmem"))
    assert not has_only_floor(paper)
    with pytest.raises(UserError, match="weights of 'xmem' have no floor"):
        floor_of(paper)


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(imos.UserError, match="no weights file"):
        WeightsChoice(str(tmp_path / "nowhere.safetensors")).load()
