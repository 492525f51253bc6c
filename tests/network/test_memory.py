"""The memory: sizes, consolidation, forgetting, and objects that enter on any slice.

Keys, values and readouts are compared with a memory that is as plain as can be: lists of single elements, one list per
object, float64, nothing shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from imos.errors import UserError
from imos.network.memory import Memory, MemorySettings

SIZE = (2, 3)
KEY_DIM, VALUE_DIM = 8, 5
SMALL = MemorySettings(top_k=6, max_slices=5, min_slices=3, prototypes=5, max_long_term=12)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """What the network would say of one slice."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    value: Tensor

    @classmethod
    def at(cls, time: int, objects: int, seed: int = 0) -> Slice:
        """Depends on time and object only, so that each object's values can be known without the memory."""

        def random(channels: int, *which: int) -> Tensor:
            numbers = np.random.default_rng([seed, time, *which]).normal(size=(channels, *SIZE))
            return torch.from_numpy(numbers).float()

        value = torch.stack([random(VALUE_DIM, 4, number) for number in range(objects)])
        return cls(random(KEY_DIM, 1), random(1, 2).square() + 1, random(KEY_DIM, 3).sigmoid(), value)

    def remember(self, memory: Memory, time: int) -> None:
        memory.add(self.key, self.shrinkage, self.selection, self.value, time)


@dataclass
class PlainMemory:
    """One object's own memory: a list of elements and nothing else.

    Which elements are consolidated and forgotten is shared by all objects and taken over from the memory under test, by
    their keys; what the elements hold is computed here, from this object's elements alone.
    """

    settings: MemorySettings
    key: list[Array] = field(default_factory=list)
    shrinkage: list[float] = field(default_factory=list)
    value: list[Array] = field(default_factory=list)

    def add(self, slice_: Slice, number: int) -> None:
        self.key += list(slice_.key.flatten(1).T.double().numpy())
        self.shrinkage += slice_.shrinkage.flatten().tolist()
        self.value += list(slice_.value[number].flatten(1).T.double().numpy())

    def find(self, key: Tensor) -> int | None:
        (found,) = np.nonzero([np.array_equal(own, key.double().numpy()) for own in self.key])
        assert len(found) <= 1
        return int(found[0]) if len(found) else None

    def consolidate(self, candidates: list[Tensor], prototypes: list[tuple[Tensor, Tensor, float]]) -> None:
        """Prototypes: key, selection, and the shrinkage that all objects share."""
        rows = [row for row in map(self.find, candidates) if row is not None]
        new = []
        for key, selection, shrinkage in prototypes:
            if self.find(key) is None:
                continue  # from before this object
            weights = self.softmax(rows, key.double().numpy(), selection.double().numpy())
            new.append((key.double().numpy(), shrinkage, sum(w * self.value[r] for w, r in weights)))
        self.drop(rows)
        for key_, shrinkage, value in new:
            self.key.append(key_)
            self.shrinkage.append(shrinkage)
            self.value.append(np.asarray(value))

    def drop(self, rows: list[int]) -> None:
        for entries in (self.key, self.shrinkage, self.value):
            entries[:] = [entry for row, entry in enumerate(entries) if row not in rows]  # type: ignore[index]

    def softmax(self, rows: list[int], query: Array, selection: Array) -> list[tuple[float, int]]:
        alike = [
            -self.shrinkage[row] * float((selection * (self.key[row] - query) ** 2).sum()) / math.sqrt(KEY_DIM)
            for row in rows
        ]
        top = max(alike)
        total = sum(math.exp(score - top) for score in alike)
        return [(math.exp(score - top) / total, row) for score, row in zip(alike, rows, strict=True)]

    def read(self, slice_: Slice) -> Array:
        columns = []
        queries = slice_.key.flatten(1).T.double().numpy()
        for query, selection in zip(queries, slice_.selection.flatten(1).T.double().numpy(), strict=True):
            every = self.softmax(list(range(len(self.key))), query, selection)
            best = sorted(every, reverse=True)[: self.settings.top_k]
            total = sum(weight for weight, _ in best)
            columns.append(sum(weight / total * self.value[row] for weight, row in best))
        return np.stack(columns, axis=1).reshape(VALUE_DIM, *SIZE)


def columns(tensor: Tensor) -> list[Tensor]:
    return list(tensor.unbind(dim=1))


def sizes(memory: Memory) -> tuple[int, int]:
    assert memory.working is not None
    return len(memory.working), 0 if memory.long_term is None else len(memory.long_term)


def as_numbers(key: Tensor) -> tuple[float, ...]:
    """A key as something that can be looked up; no two elements share one."""
    return tuple(key.tolist())


def selections_by_key(key: Tensor, selection: Tensor) -> dict[tuple[float, ...], Tensor]:
    return {as_numbers(k): s for k, s in zip(columns(key), columns(selection), strict=True)}


def walk(entries: list[int], steps: int, chosen: MemorySettings, seed: int = 0) -> list[int]:
    """Runs memory and plain memories side by side; object k enters at `entries[k]`. Returns the long-term sizes."""
    memory = Memory(chosen)
    plain: list[PlainMemory] = []
    history = []
    for time in range(steps):
        objects = sum(entry <= time for entry in entries)
        slice_ = Slice.at(time, objects, seed)
        if time > 0:
            read = memory.read(slice_.key, slice_.selection)
            expected = np.stack([own.read(slice_) for own in plain])
            np.testing.assert_allclose(read.numpy(), expected, atol=2e-4, err_msg=f"step {time}")

        plain += [PlainMemory(chosen) for _ in range(objects - len(plain))]
        for number, own in enumerate(plain):
            own.add(slice_, number)
        detailed = selections_by_key(slice_.key.flatten(1), slice_.selection.flatten(1))
        if memory.working is not None:
            assert memory.working.selection is not None
            detailed |= selections_by_key(memory.working.key, memory.working.selection)
        before = [] if memory.long_term is None else columns(memory.long_term.key)
        slice_.remember(memory, time)

        assert memory.working is not None
        left = {as_numbers(key) for key in columns(memory.working.key)}
        candidates = [torch.tensor(key) for key in detailed if key not in left]
        if candidates:
            assert memory.long_term is not None
            after = {as_numbers(key): i for i, key in enumerate(columns(memory.long_term.key))}
            prototypes = [
                (torch.tensor(key), detailed[key], float(memory.long_term.shrinkage[0, i]))
                for key, i in after.items()
                if key in detailed
            ]
            assert len(prototypes) == min(chosen.prototypes, len(candidates)) > 0
            forgotten = [key for key in before if as_numbers(key) not in after]
            for own in plain:
                own.drop([row for row in map(own.find, forgotten) if row is not None])
                own.consolidate(candidates, prototypes)
        history.append(sizes(memory)[1])
    return history


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([0], id="one object"),
        pytest.param([0, 0], id="two together"),
        pytest.param([0, 1], id="before consolidation"),
        pytest.param([0, 4], id="on the slice that consolidates"),
        pytest.param([0, 7], id="after long-term memory is engaged"),
        pytest.param([0, 9, 10], id="with exactly T_min + 1 slices at a consolidation"),
        pytest.param([0, 14, 15, 22], id="during forgetting"),
    ],
)
def test_every_object_reads_what_its_own_memory_would_say(entries: list[int]) -> None:
    history = walk(entries, steps=26, chosen=SMALL)
    assert history.count(max(history)) < len(history) > history.count(0)
    assert max(history) == SMALL.max_long_term


@settings(deadline=None, max_examples=8)
@given(
    st.lists(st.integers(0, 17), max_size=3),
    st.integers(2, 4),
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(0, 9),
)
def test_every_object_reads_its_own_memory_whatever_the_sizes(
    entries: list[int], least: int, room: int, prototypes: int, seed: int
) -> None:
    chosen = MemorySettings(
        top_k=4, max_slices=least + room, min_slices=least, prototypes=prototypes, max_long_term=prototypes + 7
    )
    walk(sorted([0, *entries]), steps=19, chosen=chosen, seed=seed)


def test_late_object_reads_as_if_the_sequence_had_begun_with_it() -> None:
    late, alone = (Memory(MemorySettings(top_k=6, long_term=False)) for _ in range(2))
    for time in range(12):
        slice_ = Slice.at(time, 1 if time < 5 else 2)
        if time > 5:
            both, single = (memory.read(slice_.key, slice_.selection) for memory in (late, alone))
            torch.testing.assert_close(both[1:], single)
        slice_.remember(late, time)
        if time >= 5:
            alone.add(slice_.key, slice_.shrinkage, slice_.selection, slice_.value[1:], time)


def test_late_object_leaves_the_earlier_one_alone() -> None:
    """Whatever the late object holds, the first object reads the same, bit for bit, through forgetting."""
    calm, wild = Memory(SMALL), Memory(SMALL)
    for time in range(30):
        slice_ = Slice.at(time, 1 if time < 9 else 2)
        if time > 0:
            assert torch.equal(*(memory.read(slice_.key, slice_.selection)[0] for memory in (calm, wild)))
        slice_.remember(calm, time)
        value = slice_.value.clone()
        value[1:] = 1e6
        wild.add(slice_.key, slice_.shrinkage, slice_.selection, value, time)


def test_working_memory_pairs_every_value_with_its_own_key() -> None:
    memory = Memory(SMALL)
    entries = [0, 6, 13]
    for time in range(30):
        Slice.at(time, sum(entry <= time for entry in entries)).remember(memory, time)
        assert memory.working is not None
        for start in range(0, len(memory.working), 6):
            part = memory.working.pick(torch.arange(start, start + 6))
            origin = int(part.time[0])
            expected = Slice.at(origin, sum(entry <= origin for entry in entries))
            assert torch.equal(part.key, expected.key.flatten(1))
            assert torch.equal(part.value[: len(expected.value)], expected.value.flatten(2))
            assert not part.value[len(expected.value) :].any()


def test_slice_on_which_an_object_enters_is_never_consolidated() -> None:
    memory = Memory(SMALL)
    for time in range(40):
        Slice.at(time, 1 if time < 8 else 2).remember(memory, time)
    assert memory.working is not None
    assert {0, 8} <= set(memory.working.time.tolist())


def test_nothing_is_valid_from_before_an_object() -> None:
    memory = Memory(SMALL)
    for time in range(30):
        Slice.at(time, 1 if time < 17 else 2).remember(memory, time)
    assert memory.long_term is not None
    valid = memory.valid(memory.long_term.time)
    assert valid[0].all()
    assert not memory.long_term.value[1, :, ~valid[1]].any()


def test_memory_stays_bounded_over_a_thousand_slices() -> None:
    memory = Memory(SMALL)
    slices = [Slice.at(time, 1) for time in range(11)]
    area = SIZE[0] * SIZE[1]
    for time in range(1000):
        slice_ = slices[time % 11]
        if time > 0:
            memory.read(slice_.key, slice_.selection)
        slice_.remember(memory, time)
        working, long_term = sizes(memory)
        assert working < SMALL.max_slices * area
        assert long_term <= SMALL.max_long_term


def test_without_long_term_memory_everything_stays() -> None:
    memory = Memory(MemorySettings(long_term=False))
    for time in range(30):
        Slice.at(time, 1).remember(memory, time)
    assert sizes(memory) == (30 * 6, 0)


def test_elements_that_nobody_read_are_forgotten_together() -> None:
    memory = Memory(SMALL)
    for time in range(40):  # no reads: all usages are 0
        Slice.at(time, 1).remember(memory, time)
        assert sizes(memory)[1] <= SMALL.max_long_term


def test_long_term_memory_exactly_at_its_limit_forgets_nothing() -> None:
    memory = Memory(MemorySettings(top_k=6, max_slices=5, min_slices=3, prototypes=5, max_long_term=10))
    grown = []
    for time in range(11):
        slice_ = Slice.at(time, 1)
        if time > 0:
            memory.read(slice_.key, slice_.selection)
        slice_.remember(memory, time)
        grown.append(sizes(memory)[1])
    assert grown == [0, 0, 0, 0, 5, 5, 10, 10, 10, 10, 10]


def test_more_prototypes_than_candidates_takes_all_candidates() -> None:
    memory = Memory(MemorySettings(max_slices=5, min_slices=3, prototypes=128))
    for time in range(5):
        Slice.at(time, 1).remember(memory, time)
    assert sizes(memory) == (3 * 6, 2 * 6)


def test_consolidation_leaves_the_first_and_the_newest_slices() -> None:
    memory = Memory()
    for time in range(10):
        Slice.at(time, 1).remember(memory, time)
    assert memory.working is not None
    assert memory.working.time[::6].tolist() == [0, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": 0},
        {"min_slices": 1},
        {"min_slices": 10},
        {"prototypes": 0},
        {"prototypes": 11, "max_long_term": 10},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError):
        MemorySettings(**wrong)
