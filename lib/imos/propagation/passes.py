"""Passes: what was computed from one painted slice in one direction, kept so that it is computed once.

A pass depends only on the image, its painted slice and its direction, never on other prompts ("from the future"). A
pass that ran further than is now needed therefore serves as it is, by its first part; a correction makes new passes
only from the new prompt and towards it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from imos.propagation.blending import Layer
from imos.propagation.prompts import Prompt


class PassKey(NamedTuple):
    """What a pass depends on, beside the image and the weights.

    Attributes:
        label: The object.
        axis: Array axis it walks along.
        start: Its painted slice.
        step: +1 towards higher indices, -1 towards lower ones.
        digest: Names the painted mask.
    """

    label: int
    axis: int
    start: int
    step: int
    digest: str

    @classmethod
    def of(cls, prompt: Prompt, step: int) -> PassKey:
        """The pass from a prompt in one direction."""
        return cls(prompt.label, prompt.axis, prompt.index, step, prompt.digest)


@dataclass(frozen=True, slots=True)
class Pass:
    """One finished pass.

    Attributes:
        layers: Slice index → what the pass sees there; without gaps from the start on.
        stop: Last slice that was asked for.
    """

    layers: dict[int, Layer]
    stop: int

    def reaches(self, start: int, stop: int) -> bool:
        """Whether it answers all slices from `start` to `stop`; a pass that ended answers "absent" for the rest."""
        return abs(stop - start) <= abs(self.stop - start) or len(self.layers) < abs(self.stop - start)

    @property
    def nbytes(self) -> int:
        """Bytes that the pass keeps."""
        return 256 + sum(layer.crop.nbytes + 256 for layer in self.layers.values())


class PassCache:
    """Passes by key, bounded: the ones used longest ago leave first.

    Args:
        capacity: Bytes to keep.
    """

    def __init__(self, capacity: int = 256 * 2**20) -> None:
        self._capacity = capacity
        self._passes: OrderedDict[PassKey, Pass] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes kept now."""
        return self._nbytes

    def get(self, key: PassKey) -> Pass | None:
        """A pass, if it is still kept."""
        found = self._passes.get(key)
        if found is not None:
            self._passes.move_to_end(key)
        return found

    def put(self, key: PassKey, computed: Pass) -> None:
        """Keep a pass in place of a shorter one."""
        self._remove(key)
        self._passes[key] = computed
        self._nbytes += computed.nbytes

    def trim(self, needed: Collection[PassKey] = ()) -> None:
        """Drop what exceeds the capacity, except `needed`: what the present prompts use must not be made twice."""
        for key in list(self._passes):
            if self._nbytes <= self._capacity:
                return
            if key not in needed:
                self._remove(key)

    def _remove(self, key: PassKey) -> None:
        old = self._passes.pop(key, None)
        if old is not None:
            self._nbytes -= old.nbytes
