"""The memory of one sequence: working memory in full detail, long-term memory in prototypes.

Working memory holds whole memory slices. When it is full, all but the permanent and the newest slices are consolidated:
their most used elements become prototypes, whose values and shrinkages are read out of all candidates
(potentiation), and long-term memory takes the prototypes. Long-term memory is bounded by forgetting what is used least.

Objects may enter on any slice. Every element therefore knows the slice that it comes from, and every object the slice
on which it entered: an element is valid for an object if it does not come from before the object. Keys and values
are cut, picked and forgotten together and never re-aligned by position, which is where the reference goes wrong as
soon as objects enter late. The slice on which an object enters is permanent, because a user painted it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imos.errors import UserError
from imos.network.similarity import affinity, memory_side, query_side, readout, similarity, similarity_of_sides, usage

NEWBORN = 1e-7  # life of an element that no slice has asked yet: its usage is 0, not 0/0


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How much is remembered, and in what detail.

    Attributes:
        top_k: Memory elements that one query element reads.
        long_term: Whether old slices are consolidated; without it the working memory grows for ever.
        max_slices: Working memory size, in slices, at which it is consolidated, T_max. Slices that are permanent
            because an object entered there, except the first, come on top.
        min_slices: Slices that consolidation leaves, T_min: the first and the newest T_min − 1.
        prototypes: Elements that one consolidation adds to long-term memory, P.
        max_long_term: Most elements of long-term memory, L_max.

    Raises:
        UserError: The settings contradict each other.
    """

    top_k: int = 30
    long_term: bool = True
    max_slices: int = 10
    min_slices: int = 5
    prototypes: int = 128
    max_long_term: int = 10_000

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}; it must be at least 1.")
        if not 2 <= self.min_slices < self.max_slices:
            raise UserError(
                f"Working memory of {self.min_slices} to {self.max_slices} slices is impossible;"
                " min_slices must be at least 2 and less than max_slices."
            )
        if not 1 <= self.prototypes <= self.max_long_term:
            raise UserError(
                f"{self.prototypes} prototypes do not fit a long-term memory of {self.max_long_term} elements;"
                " prototypes must be at least 1 and at most max_long_term."
            )


@dataclass(frozen=True, slots=True)
class Elements:
    """N memory elements. All tensors share the last axis and are only ever cut along it together.

    Attributes:
        key: `(C^k, N)`.
        shrinkage: `(1, N)`, at least 1.
        side: `(2 C^k + 1, N)`; what every slice that asks wants of key and shrinkage, see `memory_side`.
        selection: `(C^k, N)`; only candidates for consolidation need it, so prototypes have none.
        value: `(K, C^v, N)`; zero where the element is not valid for the object.
        time: `(N,)` int64; the slice that the element comes from, counted in steps.
        use: `(N,)`; how much the element was read, summed over all slices that asked.
        life: `(N,)`; how many slices asked.
    """

    key: Tensor
    shrinkage: Tensor
    side: Tensor
    selection: Tensor | None
    value: Tensor
    time: Tensor
    use: Tensor
    life: Tensor

    @classmethod
    def new(cls, key: Tensor, shrinkage: Tensor, selection: Tensor | None, value: Tensor, time: Tensor) -> Elements:
        """Elements that nobody has read yet."""
        use = torch.zeros(key.shape[1], device=key.device)
        side = memory_side(key[None], shrinkage[None])[0]
        return cls(key, shrinkage, side, selection, value, time, use, torch.full_like(use, NEWBORN))

    def __len__(self) -> int:
        return self.key.shape[1]

    @property
    def normalised_usage(self) -> Tensor:
        """`(N,)`; mean use per slice that asked."""
        return self.use / self.life

    def count(self, used: Tensor) -> None:
        """One slice has read: `used`, `(N,)`, is how much of each element."""
        self.use.add_(used)
        self.life.add_(1)

    def pick(self, which: Tensor) -> Elements:
        """The elements of a mask `(N,)` bool or of indices in their order."""
        return Elements(
            self.key[:, which],
            self.shrinkage[:, which],
            self.side[:, which],
            None if self.selection is None else self.selection[:, which],
            self.value[:, :, which],
            self.time[which],
            self.use[which],
            self.life[which],
        )

    def followed_by(self, later: Elements) -> Elements:
        """These elements, then the later ones."""
        selections = (
            None
            if self.selection is None or later.selection is None
            else torch.cat([self.selection, later.selection], dim=1)
        )
        return Elements(
            torch.cat([self.key, later.key], dim=1),
            torch.cat([self.shrinkage, later.shrinkage], dim=1),
            torch.cat([self.side, later.side], dim=1),
            selections,
            torch.cat([self.value, later.value], dim=2),
            torch.cat([self.time, later.time]),
            torch.cat([self.use, later.use]),
            torch.cat([self.life, later.life]),
        )

    def with_objects(self, objects: int) -> Elements:
        """The same elements with room for objects that enter only now and have no value here."""
        missing = objects - self.value.shape[0]
        if missing == 0:
            return self
        return replace(self, value=torch.cat([self.value, self.value.new_zeros(missing, *self.value.shape[1:])]))


class Memory:
    """Working and long-term memory of one sequence and all its objects.

    Attributes:
        settings: Sizes.
        working: Elements of whole slices, the oldest slice first; None before the first slice.
        long_term: Prototypes, in the order of their consolidation; None before the first.
        entered: For each object the step at which it entered, never decreasing.
    """

    def __init__(self, settings: MemorySettings | None = None) -> None:
        self.settings = settings or MemorySettings()
        self.working: Elements | None = None
        self.long_term: Elements | None = None
        self.entered: list[int] = []

    @property
    def objects(self) -> int:
        """Number of objects that are remembered."""
        return len(self.entered)

    @property
    def stores(self) -> list[Elements]:
        """Long-term memory, then working memory; what does not exist yet is left out."""
        return [store for store in (self.long_term, self.working) if store is not None]

    def valid(self, time: Tensor) -> Tensor:
        """Which elements each object may read: `(N,)` steps → `(K, N)` bool."""
        entered = torch.tensor(self.entered, device=time.device)
        return time >= entered[:, None]

    def add(self, key: Tensor, shrinkage: Tensor, selection: Tensor, value: Tensor, time: int) -> None:
        """Remembers a slice and, if the working memory is then full, consolidates it.

        Args:
            key: `(C^k, h, w)`.
            shrinkage: `(1, h, w)`.
            selection: `(C^k, h, w)`.
            value: `(K, C^v, h, w)`. Objects beyond those known enter here.
            time: The step; larger than that of any slice before.
        """
        objects = value.shape[0]
        self.entered += [time] * (objects - self.objects)
        times = torch.full((key[0].numel(),), time, device=key.device)
        slice_ = Elements.new(key.flatten(1), shrinkage.flatten(1), selection.flatten(1), value.flatten(2), times)
        if self.long_term is not None:
            self.long_term = self.long_term.with_objects(objects)
        self.working = slice_ if self.working is None else self.working.with_objects(objects).followed_by(slice_)
        if self.settings.long_term:
            self._consolidate_if_full()

    def read(self, query: Tensor, selection: Tensor) -> Tensor:
        """Reads the memory for a slice and counts what was read.

        Args:
            query: `(C^k, h, w)`, the slice's key.
            selection: `(C^k, h, w)`.

        Returns:
            `(K, C^v, h, w)`.
        """
        stores = self.stores
        asking = query_side(query.flatten(1)[None], selection.flatten(1)[None])
        alike = torch.cat([similarity_of_sides(store.side[None], asking) for store in stores], dim=1)
        sizes = [len(store) for store in stores]
        read = []
        time = torch.cat([store.time for store in stores])
        for objects, affinities in self._affinities(alike, time, self.settings.top_k):
            # Read store by store: joining the values would copy the whole memory for every slice
            parts = torch.split(affinities, sizes, dim=1)
            read.append(sum_of([readout(s.value[None, objects], a) for s, a in zip(stores, parts, strict=True)]))
            if objects.start == 0:  # the first objects may read everything: their affinity counts as use
                for store, part in zip(stores, parts, strict=True):
                    store.count(usage(part)[0])
        return torch.cat(read, dim=1)[0].reshape(self.objects, -1, *query.shape[1:])

    def _affinities(self, alike: Tensor, time: Tensor, top_k: int | None) -> Iterator[tuple[slice, Tensor]]:
        """Objects that entered together, and their affinity `(1, N, M)` over the elements valid for them."""
        for objects in self._groups():
            # Nothing is older than the first objects
            valid = None if objects.start == 0 else time >= self.entered[objects.start]
            yield objects, affinity(alike, top_k, valid)

    def _groups(self) -> Iterator[slice]:
        """Runs of objects that entered on the same slice."""
        start = 0
        for stop in range(1, self.objects + 1):
            if stop == self.objects or self.entered[stop] != self.entered[start]:
                yield slice(start, stop)
                start = stop

    def _consolidate_if_full(self) -> None:
        assert self.working is not None
        settings, time = self.settings, self.working.time
        passing = ~torch.isin(time, torch.tensor(sorted(set(self.entered)), device=time.device))
        slices = torch.unique_consecutive(time[passing])
        if len(slices) < settings.max_slices - 1:  # one of T_max is the permanent first
            return
        self._forget_least_used()
        newest_kept = slices[-(settings.min_slices - 1)]
        candidate = passing & (time < newest_kept)
        prototypes = self._prototypes(self.working.pick(candidate))
        self.working = self.working.pick(~candidate)
        self.long_term = prototypes if self.long_term is None else self.long_term.followed_by(prototypes)

    def _forget_least_used(self) -> None:
        """Makes room for the next prototypes; elements used equally little go together."""
        if self.long_term is None:
            return
        surplus = len(self.long_term) - (self.settings.max_long_term - self.settings.prototypes)
        if surplus <= 0:
            return
        used = self.long_term.normalised_usage
        self.long_term = self.long_term.pick(used > used.kthvalue(surplus).values)

    def _prototypes(self, candidates: Elements) -> Elements:
        """The most used candidates, with values and shrinkages read out of all candidates (XMem, section 3.3.2)."""
        count = min(self.settings.prototypes, len(candidates))
        chosen = candidates.pick(candidates.normalised_usage.topk(count).indices)
        assert chosen.selection is not None
        alike = similarity(candidates.key[None], candidates.shrinkage[None], chosen.key[None], chosen.selection[None])
        shrinkage = readout(candidates.shrinkage[None, None], affinity(alike))[0, 0]
        value = torch.cat(
            [
                readout(candidates.value[None, objects], affinities)[0]
                for objects, affinities in self._affinities(alike, candidates.time, top_k=None)
            ]
        )
        value = value * self.valid(chosen.time)[:, None, :]
        return Elements.new(chosen.key, shrinkage, None, value, chosen.time)


def sum_of(parts: list[Tensor]) -> Tensor:
    """The sum of one or more tensors of the same shape."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
