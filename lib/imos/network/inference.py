"""Inference over one sequence of slices, one step a slice (XMem, sections 3.1 and 3.3).

A step encodes the slice, asks the memory, decodes, takes over what the user painted, and remembers the slice when it
is due. Nothing here knows of volumes, directions or files: callers bring normalised slices in the order of propagation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from imos.errors import UserError
from imos.network.aggregate import aggregate
from imos.network.memory import Memory, MemorySettings
from imos.network.xmem import STRIDE, EncodedSlice, XMem


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """How a sequence is walked through.

    Attributes:
        memory: Sizes of the memories.
        memory_every: Slices from one memory slice to the next, r.
        deep_update_every: Slices from one deep update of the sensory memory to the next; a due one waits for the next
            memory slice. None makes every memory slice a deep update.

    Raises:
        UserError: An interval is less than one slice.
    """

    memory: MemorySettings = field(default_factory=MemorySettings)
    memory_every: int = 5
    deep_update_every: int | None = None

    def __post_init__(self) -> None:
        if self.memory_every < 1 or (self.deep_update_every is not None and self.deep_update_every < 1):
            raise UserError(
                f"memory_every is {self.memory_every} and deep_update_every is {self.deep_update_every};"
                " both must be at least 1 slice."
            )


class InferenceCore:
    """Segments one sequence. A new sequence needs a new core.

    Attributes:
        network: In evaluation mode.
        settings: Intervals and sizes.
        memory: Working and long-term memory.
        hidden: Sensory memory, `(1, K, C^h, h, w)`; None before the first slice or without sensory memory.
    """

    def __init__(self, network: XMem, settings: InferenceSettings | None = None) -> None:
        self.network = network
        self.settings = settings or InferenceSettings()
        self.memory = Memory(self.settings.memory)
        self.hidden: Tensor | None = None
        self._time = -1
        self._last_memory = 0
        self._last_deep = -(self.settings.deep_update_every or 0)
        self._size: tuple[int, int] | None = None

    @torch.inference_mode()
    def step(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        valid_labels: Collection[int] | None = None,
        *,
        end: bool = False,
    ) -> Tensor:
        """Segments the next slice.

        Args:
            image: `(3, H, W)`, normalised as in training.
            mask: `(K, H, W)` in [0, 1], one channel for every object known so far and behind them the objects that
                enter here. The first slice needs one.
            valid_labels: The objects, counted from 1, that `mask` speaks for; the others are predicted. None means all.
            end: Whether this is the last slice, so that nothing needs to be remembered.

        Returns:
            `(K + 1, H, W)`, probabilities that sum to 1, the background first. On a slice whose mask speaks for all
            objects they are the mask.

        Raises:
            UserError: No mask on the first slice, or a slice or mask of another size than before.
        """
        self._check(image, mask, valid_labels)
        settings = self.settings
        self._time += 1
        time = self._time
        known = self.memory.objects if mask is None else mask.shape[0]

        remember = (mask is not None or time - self._last_memory >= settings.memory_every) and not end
        segment = time > 0 and (valid_labels is None or len(set(valid_labels)) != known)
        if settings.deep_update_every is None:
            deep_due, decoder_updates = remember, not remember and not end
        else:
            deep_due, decoder_updates = time - self._last_deep >= settings.deep_update_every and not end, not end

        padded, borders = pad_to_stride(image.to(self.network.device))
        padded = padded[None]
        encoded = self.network.encode_key(padded)
        predicted = self._predict(encoded, update_hidden=decoder_updates) if segment else None
        if mask is None:
            assert predicted is not None
            probabilities = predicted
        else:
            painted, _ = pad_to_stride(mask.to(padded))
            probabilities = joined(painted, predicted, valid_labels)
            self._make_room(known, padded.shape[-2:])
        if remember:
            masks = probabilities[None, 1:]
            value, self.hidden = self.network.encode_value(
                padded, encoded.features.f16, self.hidden, masks, deep=deep_due
            )
            self.memory.add(encoded.key[0], encoded.shrinkage[0], encoded.selection[0], value[0], time)
            self._last_memory = time
            if deep_due:
                self._last_deep = time
        left, right, top, bottom = borders
        height, width = probabilities.shape[-2:]
        return probabilities[:, top : height - bottom, left : width - right]

    def _predict(self, encoded: EncodedSlice, *, update_hidden: bool) -> Tensor:
        """`(K + 1, H, W)`, what the memory says of a slice."""
        read = self.memory.read(encoded.key[0], encoded.selection[0])[None]
        result = self.network.segment(encoded.features, self.hidden, read, update_hidden=update_hidden)
        self.hidden = result.hidden
        return result.probabilities[0]

    def _make_room(self, objects: int, size: torch.Size) -> None:
        """Gives objects that enter an empty sensory memory; the others keep theirs."""
        have = 0 if self.hidden is None else self.hidden.shape[1]
        empty = self.network.new_hidden(objects - have, (size[0], size[1]))
        if empty is not None:
            self.hidden = empty if self.hidden is None else torch.cat([self.hidden, empty], dim=1)

    def _check(self, image: Tensor, mask: Tensor | None, valid_labels: Collection[int] | None) -> None:
        size = (image.shape[-2], image.shape[-1])
        if self._size is None and mask is None:
            raise UserError("The first slice has no mask. Start on a painted slice.")
        if self._size is not None and size != self._size:
            raise UserError(
                f"A slice of {size[0]}×{size[1]} follows slices of {self._size[0]}×{self._size[1]}."
                " Resample all slices to one size."
            )
        if mask is not None:
            if mask.shape[-2:] != image.shape[-2:]:
                raise UserError(
                    f"The mask is {mask.shape[-2]}×{mask.shape[-1]}, its slice {size[0]}×{size[1]}."
                    " Paint on the slice's own grid."
                )
            if mask.shape[0] < max(self.memory.objects, 1):
                raise UserError(
                    f"The mask has {mask.shape[0]} channels, but {self.memory.objects} objects are known."
                    " Give every known object a channel, and at least one."
                )
            strange = set(valid_labels or ()) - set(range(1, mask.shape[0] + 1))
            if strange:
                raise UserError(
                    f"The mask has {mask.shape[0]} channels and cannot speak for object {min(strange)}."
                    " Count objects from 1 in the order of the channels."
                )
        elif valid_labels is not None:
            raise UserError("valid_labels say what a mask speaks for, but no mask was given.")
        self._size = size


def joined(painted: Tensor, predicted: Tensor | None, valid_labels: Collection[int] | None) -> Tensor:
    """What was painted, and what is predicted for the objects that were not.

    Args:
        painted: `(K, H, W)`.
        predicted: `(1 + K', H, W)` with K' ≤ K, the background first, or None.
        valid_labels: The objects, counted from 1, that were painted; None means all.

    Returns:
        `(K + 1, H, W)`, probabilities that sum to 1, the background first.
    """
    masks = painted.clone()
    if predicted is not None and valid_labels is not None:
        free = painted.sum(dim=0) <= 0.5  # paint beats prediction
        for index in range(predicted.shape[0] - 1):
            if index + 1 not in valid_labels:
                masks[index] = predicted[index + 1] * free
    return aggregate(masks, dim=0)[1]


def pad_to_stride(x: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Zeros around `(C, H, W)`, centred, up to multiples of the network's stride.

    Returns:
        The padded tensor and its borders: left, right, top, bottom.
    """
    extra_height, extra_width = -x.shape[-2] % STRIDE, -x.shape[-1] % STRIDE
    left, top = extra_width // 2, extra_height // 2
    borders = (left, extra_width - left, top, extra_height - top)
    return functional.pad(x, borders), borders
