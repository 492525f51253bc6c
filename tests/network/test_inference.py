"""The inference core: what it refuses, and objects that enter when the reference raises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imos.errors import UserError
from imos.network.aggregate import aggregate
from imos.network.config import NetworkConfig
from imos.network.inference import InferenceCore, InferenceSettings
from imos.network.memory import MemorySettings
from imos.network.xmem import XMem

HEIGHT, WIDTH = 30, 40  # padded to 32 × 48: six elements a slice
FORGETFUL = InferenceSettings(
    MemorySettings(top_k=6, max_slices=4, min_slices=2, prototypes=4, max_long_term=8), memory_every=1
)


def image(time: int) -> Tensor:
    return torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(time))


def boxes(*rows: int) -> Tensor:
    """One channel per object: a box from this row on; an empty channel for a negative row."""
    masks = torch.zeros(len(rows), HEIGHT, WIDTH)
    for mask, row in zip(masks, rows, strict=True):
        if row >= 0:
            mask[row : row + 8, 10:22] = 1
    return masks


@pytest.fixture
def core(xmem: XMem) -> InferenceCore:
    return InferenceCore(xmem, FORGETFUL)


def assert_distribution(probabilities: Tensor, objects: int) -> None:
    assert probabilities.shape == (objects + 1, HEIGHT, WIDTH)
    assert probabilities.isfinite().all()
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(HEIGHT, WIDTH))


@pytest.mark.parametrize("entry", [1, 2, 4, 7, 10])
def test_object_enters_on_any_slice(core: InferenceCore, xmem: XMem, entry: int) -> None:
    """Before, on and after consolidations (the first at 3) and forgetting (from 7 on)."""
    alone = InferenceCore(xmem, FORGETFUL)
    core.step(image(0), boxes(2))
    alone.step(image(0), boxes(2))
    for time in range(1, entry):
        assert torch.equal(core.step(image(time)), alone.step(image(time)))
    both = core.step(image(entry), boxes(-1, 18), [2])
    assert_distribution(both, 2)
    # Paint beats prediction; elsewhere the first object is what it would have been, aggregated once more
    unpainted = boxes(18)[0] == 0
    expected = aggregate(alone.step(image(entry))[1:], dim=0)[1]
    torch.testing.assert_close(both[1][unpainted], expected[1][unpainted], atol=1e-5, rtol=0)
    assert (both[2][~unpainted] > 0.999).all()
    for time in range(entry + 1, 13):
        assert_distribution(core.step(image(time)), 2)
    assert core.memory.entered == [0, entry]
    assert core.memory.long_term is not None
    assert len(core.memory.long_term) <= 8


def test_many_objects_enter_one_after_another(core: InferenceCore) -> None:
    core.step(image(0), boxes(0))
    for time in range(1, 5):
        mask = boxes(*[-1] * time, 4 * time)
        assert_distribution(core.step(image(time), mask, [time + 1]), time + 1)
    for time in range(5, 9):
        assert_distribution(core.step(image(time)), 5)
    assert core.memory.entered == [0, 1, 2, 3, 4]


def test_painted_slice_comes_back_as_painted(core: InferenceCore) -> None:
    mask = boxes(2, 18)
    torch.testing.assert_close(core.step(image(0), mask)[1:], mask, atol=1e-5, rtol=0)
    core.step(image(1))
    again = boxes(12, 21)
    torch.testing.assert_close(core.step(image(2), again, [1, 2])[1:], again, atol=1e-5, rtol=0)


def test_correction_of_one_object_predicts_the_other_around_it(core: InferenceCore) -> None:
    core.step(image(0), boxes(2, 18))
    core.step(image(1))
    fix = boxes(12, -1)
    probabilities = core.step(image(2), fix, [1])
    assert (probabilities[1][fix[0] > 0] > 0.999).all()
    assert (probabilities[2][fix[0] > 0] < 1e-4).all()
    assert (probabilities[2][fix[0] == 0] > 1e-4).any()


def test_last_slice_is_not_remembered(core: InferenceCore) -> None:
    core.step(image(0), boxes(2))
    core.step(image(1))
    hidden = core.hidden
    core.step(image(2), end=True)
    assert core.memory.working is not None
    assert len(core.memory.working) == 2 * 6
    assert core.hidden is hidden


def test_network_without_sensory_memory_runs() -> None:
    torch.manual_seed(0)
    core = InferenceCore(XMem(NetworkConfig(value_dim=64, hidden_dim=0)), FORGETFUL)
    core.step(image(0), boxes(2))
    assert_distribution(core.step(image(1), boxes(-1, 18), [2]), 2)
    assert_distribution(core.step(image(2)), 2)
    assert core.hidden is None


def test_memory_slices_are_those_that_are_due(xmem: XMem) -> None:
    core = InferenceCore(xmem, InferenceSettings(MemorySettings(long_term=False), memory_every=3))
    core.step(image(0), boxes(2))
    for time in range(1, 5):
        core.step(image(time))
    core.step(image(5), boxes(4))
    for time in range(6, 9):
        core.step(image(time))
    assert core.memory.working is not None
    assert core.memory.working.time[::6].tolist() == [0, 3, 5, 8]


def test_first_slice_without_mask_is_refused(core: InferenceCore) -> None:
    with pytest.raises(UserError, match="no mask"):
        core.step(image(0))


def test_slice_of_another_size_is_refused(core: InferenceCore) -> None:
    core.step(image(0), boxes(2))
    with pytest.raises(UserError, match="30×39 follows slices of 30×40"):
        core.step(image(1)[:, :, :-1])


def test_mask_of_another_size_is_refused(core: InferenceCore) -> None:
    with pytest.raises(UserError, match="30×39"):
        core.step(image(0), boxes(2)[:, :, :-1])


def test_mask_that_leaves_out_a_known_object_is_refused(core: InferenceCore) -> None:
    core.step(image(0), boxes(2, 18))
    with pytest.raises(UserError, match="2 objects are known"):
        core.step(image(1), boxes(2))


def test_mask_cannot_speak_for_an_object_without_a_channel(core: InferenceCore) -> None:
    with pytest.raises(UserError, match="object 3"):
        core.step(image(0), boxes(2, 18), [1, 3])


def test_refused_slice_leaves_the_sequence_as_it_was(core: InferenceCore, xmem: XMem) -> None:
    other = InferenceCore(xmem, FORGETFUL)
    for either in (core, other):
        either.step(image(0), boxes(2))
    with pytest.raises(UserError):
        core.step(image(1)[:, :, :-1])
    assert torch.equal(core.step(image(1)), other.step(image(1)))


@pytest.mark.parametrize("wrong", [{"memory_every": 0}, {"deep_update_every": 0}])
def test_impossible_intervals_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError):
        InferenceSettings(**wrong)  # type: ignore[arg-type]
