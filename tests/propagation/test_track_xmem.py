"""A pass of `xmem` keeps the trackers' contract: sizes, order, the object's end. The network itself: tests/network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import imos
from imos.imaging import Image, ImageKind
from imos.network.inference import InferenceCore
from imos.network.weights import WeightsInfo
from imos.network.xmem import XMem
from imos.propagation import track_xmem as module
from imos.propagation.model import Model
from imos.propagation.track import track
from imos.propagation.track_xmem import XMEM, network_size, track_xmem
from imos.propagation.trackers import tracker_for

SHAPE = (24, 32)
SMALL = replace(XMEM, shorter_side=48)


class Pictures:
    """Slices of noise, each another."""

    shape = SHAPE
    count = 12

    def __init__(self, *, colour: bool = False) -> None:
        size = (self.count, *SHAPE, 3) if colour else (self.count, *SHAPE)
        self.pictures = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        self.asked.append(index)
        return self.pictures[index]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model("made up", "", torch.device("cpu"), WeightsInfo("xmem"), xmem=XMem().eval())


@pytest.fixture
def mask() -> np.ndarray[Any, Any]:
    painted = np.zeros(SHAPE, bool)
    painted[8:16, 10:22] = True
    return painted


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch, model: Model) -> Any:
    """A pass whose network finds the object on some of slices 1, 2, … only."""

    def run(seen: Sequence[bool], patience: int | None = 3) -> list[Any]:
        class Core:
            def __init__(self, *_: object) -> None:
                self.answers = iter([True, *seen])

            def step(self, image: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
                found = torch.zeros(image.shape[1:])
                found[10:30, 10:30] = 0.9 if next(self.answers) else 0.2
                return torch.stack([1 - found, found])

        monkeypatch.setattr(module, "InferenceCore", Core)
        settings = replace(SMALL, patience=patience)
        return list(track_xmem(model, Pictures(), np.ones(SHAPE, bool), 0, len(seen), settings))

    return run


@pytest.mark.parametrize(("start", "stop", "indices"), [(3, 6, [4, 5, 6]), (3, 0, [2, 1, 0])], ids=["up", "down"])
def test_it_walks_outward_from_the_painted_slice(
    model: Model, mask: np.ndarray[Any, Any], start: int, stop: int, indices: list[int]
) -> None:
    slices = Pictures()
    found = list(track_xmem(model, slices, mask, start, stop, replace(SMALL, patience=None)))
    assert [estimate.index for estimate in found] == indices
    assert slices.asked == [start, *indices]
    for estimate in found:
        assert (estimate.top, estimate.left, estimate.probability.shape) == (0, 0, SHAPE)
        assert estimate.probability.dtype == np.float32
        assert 0 <= estimate.probability.min() <= estimate.probability.max() <= 1
        assert 0 <= estimate.confidence <= 1
        assert estimate.existence == estimate.probability.max()


def test_it_is_what_the_inference_core_says_of_the_normalised_slices(model: Model, mask: np.ndarray[Any, Any]) -> None:
    slices = Pictures(colour=True)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    settings = replace(SMALL, shorter_side=24, patience=None)  # the slices' own size: nothing is resized
    found = list(track_xmem(model, slices, mask, 0, 3, settings))
    core = InferenceCore(model.xmem)
    for index in range(4):
        normal = ((slices.pictures[index] / 255 - mean) / deviation).transpose(2, 0, 1)
        painted = torch.from_numpy(mask)[None].float() if index == 0 else None
        expected = core.step(torch.from_numpy(normal).float(), painted)
        if index:
            np.testing.assert_allclose(found[index - 1].probability, expected[1].numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((512, 512), (480, 480)), ((256, 256), (480, 480)), ((1080, 1920), (480, 853)), ((40, 48), (160, 192))],
)
def test_the_shorter_side_is_480_pixels_unless_the_slice_is_tiny(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert network_size(shape) == size


def test_it_ends_where_the_object_has_been_gone_for_three_slices(sees: Any) -> None:
    assert [estimate.index for estimate in sees([True, True, False, False, False, True])] == [1, 2]


def test_a_short_gap_does_not_end_it(sees: Any) -> None:
    assert [estimate.index for estimate in sees([True, False, False, True, False])] == [1, 2, 3, 4]


def test_in_a_video_the_object_may_come_back_any_time(sees: Any) -> None:
    found = sees([False] * 5 + [True, False], patience=None)
    assert [estimate.index for estimate in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [estimate.existence > 0.5 for estimate in found] == [False] * 5 + [True, False]


def test_confidence_is_the_margin_inside(sees: Any) -> None:
    (found,) = sees([True])
    assert found.confidence == pytest.approx(0.8, abs=0.1)


def test_weights_choose_the_tracker(model: Model) -> None:
    assert tracker_for(model) is track_xmem
    assert tracker_for(model, ImageKind.VIDEO).keywords["settings"].patience is None
    assert tracker_for(imos.load()) is track


def test_a_session_asks_for_the_tracker_of_its_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "track_xmem", lambda *words: called.append(words[3:]) or iter(()))
    image = Image(Pictures().pictures.transpose(1, 2, 0), np.eye(4), ImageKind.VOLUME, "noise")
    session = imos.Session(model, image)
    session.paint(plane="axial", index=5, labels=np.eye(*SHAPE, dtype=np.uint8))
    session.propagate()
    assert sorted(called) == [(5, 0), (5, 11)]
