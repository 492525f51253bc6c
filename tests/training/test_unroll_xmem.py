"""The training forward of `xmem` does what inference does, and its loss is the reference's."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from imos.network.config import NetworkConfig
from imos.network.inference import InferenceCore, InferenceSettings
from imos.network.memory import MemorySettings
from imos.network.xmem import Segmentation, XMem
from imos.propagation.track_xmem import _network_input
from imos.training.clips import Clip
from imos.training.unroll_xmem import ClipBatch, clip_loss, draw_references, unroll_clips

CPU = torch.device("cpu")
WARM_UP = (20_000, 70_000)


def clip(number: int, objects: int, frames: int = 4) -> Clip:
    random = np.random.default_rng(number)
    labels = np.zeros((frames, 64, 64), np.uint8)
    for t in range(frames):
        for value in range(1, objects + 1):
            labels[t, 4 + 4 * t : 24 + 4 * t, 20 * value - 18 : 20 * value - 2] = value
    pictures = (60 * labels[..., None] + random.integers(0, 60, (frames, 64, 64, 3))).astype(np.uint8)
    return Clip(number, pictures, labels, objects)


@pytest.fixture(scope="module")
def network() -> XMem:
    torch.manual_seed(0)
    return XMem(NetworkConfig(key_dim=8, value_dim=16, hidden_dim=4)).train()


@pytest.fixture(scope="module")
def batch() -> ClipBatch:
    return ClipBatch.of([clip(0, 2), clip(1, 1)], CPU)


def all_before(batch: ClipBatch) -> list[list[list[int]]]:
    return draw_references(batch.numbers, batch.frames, references=batch.frames, seed=0)


@pytest.mark.parametrize("number", [0, 1])
def test_equals_inference_that_remembers_every_slice(network: XMem, batch: ClipBatch, number: int) -> None:
    with torch.no_grad():
        steps = unroll_clips(network, batch, all_before(batch), [False] * 3)
    settings = InferenceSettings(MemorySettings(top_k=1000, long_term=False), memory_every=1, deep_update_every=99)
    core = InferenceCore(network, settings)
    objects = batch.objects[number]
    core.step(batch.pictures[number, 0], batch.masks(0)[number, :objects])
    for t, step in enumerate(steps, 1):
        expected = core.step(batch.pictures[number, t], end=t == 3)
        torch.testing.assert_close(step.probabilities[number, : objects + 1], expected, atol=1e-4, rtol=0)


def test_deep_updates_change_what_follows(network: XMem, batch: ClipBatch) -> None:
    with torch.no_grad():
        plain = unroll_clips(network, batch, all_before(batch), [False, False, False])
        deep = unroll_clips(network, batch, all_before(batch), [True, False, False])
    assert torch.equal(plain[0].logits, deep[0].logits)
    assert not torch.equal(plain[1].logits, deep[1].logits)


def test_an_empty_slot_stays_empty_and_changes_nothing(network: XMem, batch: ClipBatch) -> None:
    alone = next(batch.parts(2))
    (single,) = (part for part in batch.parts(1) if part.objects == (1,))
    with torch.no_grad():
        together = unroll_clips(network, alone, all_before(alone), [True] * 3)
        by_itself = unroll_clips(network, single, all_before(single), [True] * 3)
    for ours, expected in zip(together, by_itself, strict=True):
        assert (ours.probabilities[1, 2] < 1e-6).all()
        torch.testing.assert_close(ours.probabilities[1:, :2], expected.probabilities, atol=1e-4, rtol=0)


def test_pictures_are_normalised_as_in_propagation() -> None:
    made = clip(0, 1)
    ours = ClipBatch.of([made], CPU).pictures[0, 0]
    torch.testing.assert_close(ours, _network_input(made.pictures[0], (64, 64)))


class TestReferences:
    def test_are_all_earlier_slices_while_there_are_few(self) -> None:
        ((one, two, three, *_),) = draw_references([7], 8, 3, seed=1)
        assert (one, two, three) == ([0], [0, 1], [0, 1, 2])

    def test_then_the_first_and_random_others(self) -> None:
        drawn = [of_clip[6] for of_clip in draw_references(range(60), 8, 3, seed=1)]
        assert all(len(set(read)) == 3 and read[0] == 0 for read in drawn)
        assert {index for read in drawn for index in read} == set(range(7))

    def test_depend_on_the_clip_alone(self) -> None:
        assert draw_references([3, 4], 8, 3, 1)[1] == draw_references([4], 8, 3, 1)[0]
        assert draw_references([4], 8, 3, 1) != draw_references([4], 8, 3, 2)


class TestLoss:
    @pytest.fixture
    def golden(self, root: Path) -> dict[str, Tensor]:
        with np.load(root / "tests/network/fixtures/golden_xmem.npz") as arrays:
            names = ("loss_logits", "loss_gt", "loss_its", "loss_bce", "loss_dice")
            return {name: torch.from_numpy(arrays[name]) for name in names}

    def test_is_the_references(self, golden: dict[str, Tensor]) -> None:
        logits, labels = golden["loss_logits"], golden["loss_gt"].long()
        batch = ClipBatch((0,), torch.zeros(1, 2, 3, 12, 14), torch.stack([labels, labels], 1), (2,))
        step = Segmentation(logits, logits.softmax(1), None)
        for iteration, (entropy, _) in zip(golden["loss_its"].tolist(), golden["loss_bce"].tolist(), strict=True):
            total, parts = clip_loss([step], batch, 2, iteration, WARM_UP)
            assert float(total) == pytest.approx(entropy + float(golden["loss_dice"]), abs=1e-5)
            assert parts == pytest.approx({"cross entropy": entropy, "dice": float(golden["loss_dice"])}, abs=1e-5)
            twice, _ = clip_loss([step, step], replace_frames(batch), 2, iteration, WARM_UP)
            assert float(twice) == pytest.approx(2 * float(total), abs=1e-5)  # a sum over slices

    def test_of_a_batch_is_the_mean_of_its_clips(self, network: XMem, batch: ClipBatch) -> None:
        losses = []
        with torch.no_grad():
            for part in (batch, *batch.parts(1)):
                steps = unroll_clips(network, part, all_before(part), [False] * 3)
                losses.append(float(clip_loss(steps, part, 3, 40_000, WARM_UP)[0]))
        assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, abs=1e-4)


def replace_frames(batch: ClipBatch) -> ClipBatch:
    """One more slice with the same labels."""
    return replace(batch, labels=torch.cat([batch.labels, batch.labels[:, :1]], 1))


def test_every_part_learns(batch: ClipBatch) -> None:
    torch.manual_seed(1)
    network = XMem(NetworkConfig(key_dim=8, value_dim=16, hidden_dim=4, adapters=True)).train()
    steps = unroll_clips(network, batch, all_before(batch), [True] * 3)
    clip_loss(steps, batch, 3, 0, WARM_UP)[0].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def _bfloat16_and_float32(network: XMem) -> list[Tensor]:
    batch = ClipBatch.of([clip(0, 2), clip(1, 1)], CPU)
    with torch.no_grad():
        both = [unroll_clips(network, batch, all_before(batch), [False] * 3, bfloat16=low) for low in (True, False)]
    return [steps[0].probabilities for steps in both]


def test_bfloat16_is_near_float32(network: XMem, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process of its own: some virtual CPUs report instructions for bfloat16 that they cannot do
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        rough, exact = process.submit(_bfloat16_and_float32, network).result()
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)
