"""The `xmem` network equals the reference on every stored array.

Tolerances are those within which the reference equals itself on other machines, and far below what any wrong variant
of the method does. `pytest tests/network/test_parity.py` ends with the largest difference per array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.network.aggregate import aggregate
from imos.network.inference import InferenceCore, InferenceSettings
from imos.network.memory import MemorySettings
from imos.network.similarity import affinity, readout, similarity, usage
from imos.network.xmem import EncodedSlice, XMem
from imos.training.losses import bootstrapped_cross_entropy, dice_loss

Golden = dict[str, NDArray[np.generic]]
Compare = Callable[[str, Tensor], None]
Uniform = Callable[[str, int], NDArray[np.float64]]

PROBABILITY, STATE, VALUE, SIMILARITY, LOSS = 1e-4, 2e-4, 5e-4, 1e-3, 1e-5
TOLERANCES = {
    "prob": PROBABILITY,
    "affinity": PROBABILITY,
    "usage": PROBABILITY,
    "agg_logits": PROBABILITY,
    "hidden": STATE,
    "key": STATE,
    "selection": STATE,
    "shrinkage": STATE,
    "value": VALUE,
    "f16": VALUE,
    "readout": VALUE,
    "decoder": VALUE,
    "similarity": SIMILARITY,
    "noselection": SIMILARITY,
    "loss": LOSS,
    "size": 0,
}
SETTINGS = MemorySettings(top_k=12, max_slices=5, min_slices=3, prototypes=12, max_long_term=30)


@pytest.fixture
def compare(golden: Golden, record_property: Callable[[str, object], None]) -> Compare:
    """Asserts that an array is the reference's within its tolerance, and records the largest difference."""

    def check(name: str, ours: Tensor) -> None:
        theirs = golden[name]
        assert tuple(ours.shape) == theirs.shape, name
        # Some names hold two of the words; the last one says what the array is
        tolerance = TOLERANCES[
            max(
                (word for word in TOLERANCES if word in name),
                key=lambda word: (name.rfind(word) + len(word), len(word)),
            )
        ]
        difference = float(np.abs(ours.double().numpy() - theirs.astype(np.float64)).max())
        record_property("parity", (name, difference, tolerance, float(np.abs(theirs).max())))
        assert difference <= tolerance, f"{name} differs by {difference:.2e}"

    return check


def network_input(image: NDArray[np.generic]) -> Tensor:
    """`(3, H, W)` uint8 → normalised float32, with ImageNet's statistics."""
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (torch.from_numpy(image).float() / 255 - mean) / std


def one_hot(labels: NDArray[np.generic], *wanted: int) -> Tensor:
    """`(H, W)` labels → `(K, H, W)` float32."""
    return torch.stack([torch.from_numpy(labels == label) for label in wanted]).float()


def test_rule_makes_the_weights_of_the_reference(golden: Golden, imos_weights: dict[str, Tensor]) -> None:
    for name, theirs in zip(golden["rule_probe_names"], golden["rule_probe_first4"], strict=True):
        ours = imos_weights[str(name)].flatten()[:4].numpy()
        np.testing.assert_allclose(ours, theirs[~np.isnan(theirs)], rtol=1e-6)


class Unit(NamedTuple):
    """Everything that the unit arrays are made from, computed once per network."""

    prefix: str
    network: XMem
    first: EncodedSlice
    second: EncodedSlice
    value: Tensor
    hidden: Tensor


@pytest.fixture(scope="module", params=["", "imos_"], ids=["xmem", "imos"])
def unit(request: pytest.FixtureRequest, golden: Golden) -> Iterator[Unit]:
    network: XMem = request.getfixturevalue("imos" if request.param else "xmem")
    images = [network_input(golden[name])[None] for name in ("unit_img0", "unit_img1")]
    with torch.inference_mode():
        first, second = (network.encode_key(image) for image in images)
        masks = one_hot(golden["unit_lab0"], 1, 2)[None]
        given = torch.from_numpy(golden["unit_hidden_in"])
        value, hidden = network.encode_value(images[0], first.features.f16, given, masks, deep=True)
        assert hidden is not None
        yield Unit(request.param, network, first, second, value, hidden)


def test_key_encoder(unit: Unit, compare: Compare) -> None:
    for index, encoded in enumerate((unit.first, unit.second)):
        if unit.prefix and index == 1:
            continue  # not stored
        compare(f"{unit.prefix}unit_key{index}", encoded.key)
        compare(f"{unit.prefix}unit_shrinkage{index}", encoded.shrinkage)
        compare(f"{unit.prefix}unit_selection{index}", encoded.selection)
    compare(f"{unit.prefix}unit_f16_first64", unit.first.features.f16[:, :64])


def test_hidden_state_given_follows_the_rule(golden: Golden, uniform: Uniform, compare: Compare) -> None:
    shape = golden["unit_hidden_in"].shape
    hidden = 0.2 * uniform("unit_hidden", int(np.prod(shape)))
    compare("unit_hidden_in", torch.from_numpy(hidden).float().reshape(shape))


def test_value_encoder(unit: Unit, compare: Compare) -> None:
    compare(f"{unit.prefix}unit_value0", unit.value)
    compare(f"{unit.prefix}unit_hidden_deep", unit.hidden)


def test_similarity_and_affinity(xmem: XMem, golden: Golden, compare: Compare) -> None:
    key, shrinkage, query, selection = (
        torch.from_numpy(golden[name]).flatten(2)
        for name in ("unit_key0", "unit_shrinkage0", "unit_key1", "unit_selection1")
    )
    two_keys = torch.cat([key, query], dim=2)
    two_shrinkages = torch.cat([shrinkage, torch.from_numpy(golden["unit_shrinkage1"]).flatten(2)], dim=2)
    alike = similarity(two_keys, two_shrinkages, query, selection)
    compare("unit_similarity", alike)
    compare("unit_similarity_noselection", similarity(two_keys, two_shrinkages, query, None))
    best = affinity(alike, top_k=30)
    compare("unit_affinity_top30", best)
    compare("unit_usage_top30", usage(best))
    first = similarity(key, shrinkage, query, selection)
    compare("unit_affinity_full", affinity(first))
    compare("unit_affinity_top30_frame0", affinity(first, top_k=30))


def test_readout_and_decoder(unit: Unit, compare: Compare) -> None:
    first, second = unit.first, unit.second
    with torch.inference_mode():
        alike = similarity(
            first.key.flatten(2), first.shrinkage.flatten(2), second.key.flatten(2), second.selection.flatten(2)
        )
        read = readout(unit.value.flatten(3), affinity(alike, top_k=30)).unflatten(3, second.key.shape[2:])
        logits, _ = unit.network.decode(second.features, unit.hidden, read, update_hidden=False)
        result = unit.network.segment(second.features, unit.hidden, read)
    assert result.hidden is not None
    compare(f"{unit.prefix}unit_readout", read)
    compare(f"{unit.prefix}unit_decoder_logits", logits)
    compare(f"{unit.prefix}unit_seg_prob", result.probabilities)
    compare(f"{unit.prefix}unit_seg_hidden", result.hidden)


def test_soft_aggregation(golden: Golden, compare: Compare) -> None:
    logits, probabilities = aggregate(torch.from_numpy(golden["agg_in"]), dim=0)
    compare("agg_logits", logits)
    compare("agg_prob", probabilities)


def test_losses(golden: Golden, compare: Compare) -> None:
    logits, target = torch.from_numpy(golden["loss_logits"]), torch.from_numpy(golden["loss_gt"]).long()
    rows = []
    for iteration in golden["loss_its"].tolist():
        loss, fraction = bootstrapped_cross_entropy(logits, target, iteration)
        rows.append([loss.item(), fraction])
    compare("loss_bce", torch.tensor(rows, dtype=torch.float64))
    masks = torch.stack([(target == label).float() for label in (1, 2)], dim=1)
    compare("loss_dice", dice_loss(logits.softmax(dim=1)[:, 1:], masks))


class Run(NamedTuple):
    """One sequence: what came out, and how full the memory was after each step."""

    probabilities: Tensor
    working: Tensor
    long_term: Tensor
    core: InferenceCore


def run(network: XMem, frames: NDArray[np.generic], masks: dict[int, Tensor], settings: InferenceSettings) -> Run:
    """Walks through all frames; a later mask speaks for its last object only."""
    core = InferenceCore(network, settings)
    objects = max(mask.shape[0] for mask in masks.values())
    out = torch.zeros(len(frames), objects, *frames.shape[2:])
    sizes: list[tuple[int, int]] = []
    for index, frame in enumerate(frames):
        mask = masks.get(index)
        valid = None if mask is None else range(1, mask.shape[0] + 1) if index == 0 else [mask.shape[0]]
        probabilities = core.step(network_input(frame), mask, valid, end=index == len(frames) - 1)
        out[index, : probabilities.shape[0] - 1] = probabilities[1:]
        assert torch.allclose(probabilities.sum(dim=0), torch.ones(()), atol=1e-5)
        memory = core.memory
        assert memory.working is not None
        sizes.append((len(memory.working), 0 if memory.long_term is None else len(memory.long_term)))
    working, long_term = torch.tensor(sizes).unbind(dim=1)
    return Run(out, working, long_term, core)


def test_two_objects_through_consolidation_and_eviction(xmem: XMem, golden: Golden, compare: Compare) -> None:
    frames, labels = golden["seq_frames"], golden["seq_labels"]
    result = run(xmem, frames, {0: one_hot(labels[0], 1, 2)}, InferenceSettings(SETTINGS, memory_every=3))
    compare("seq2_work_size", result.working)
    compare("seq2_long_size", result.long_term)
    compare("seq2_prob", result.probabilities)
    long_term, hidden = result.core.memory.long_term, result.core.hidden
    assert long_term is not None
    assert hidden is not None
    compare("seq2_long_key_end", long_term.key[None])
    compare("seq2_long_usage_end", long_term.normalised_usage[None, None])
    compare("seq2_hidden_end", hidden)


def test_single_object_network(single: XMem, golden: Golden, compare: Compare) -> None:
    frames, labels = golden["seq_frames"], golden["seq_labels"]
    result = run(single, frames, {0: one_hot(labels[0], 1)}, InferenceSettings(SETTINGS, memory_every=3))
    compare("seq1_work_size", result.working)
    compare("seq1_long_size", result.long_term)
    compare("seq1_prob", result.probabilities)


def test_deep_updates_out_of_step_with_memory(xmem: XMem, golden: Golden, compare: Compare) -> None:
    frames, labels = golden["seq_frames"][:16], golden["seq_labels"]
    settings = InferenceSettings(MemorySettings(top_k=20, long_term=False), memory_every=3, deep_update_every=5)
    compare("seqd_prob", run(xmem, frames, {0: one_hot(labels[0], 1, 2)}, settings).probabilities)


def test_object_that_enters_later(xmem: XMem, golden: Golden, compare: Compare) -> None:
    frames, labels = golden["new_frames"], golden["new_labels"]
    entering = one_hot(labels[5], 1, 2)
    entering[0] = 0  # object 1 is not given again
    memory = MemorySettings(top_k=20, max_slices=10, min_slices=3, prototypes=12, max_long_term=30)
    masks = {0: one_hot(labels[0], 1), 5: entering}
    compare("new_prob", run(xmem, frames, masks, InferenceSettings(memory, memory_every=3)).probabilities)
