"""One pass with the `xmem` network: whole slices at the paper's size, no region of interest, no floor.

The painted slice is the sequence's first frame, the slices outward follow as a video would (paper, sections 3 and 4);
`InferenceCore` does the rest. In a volume an object that has been gone for a few slices has ended: memory networks
otherwise find it again elsewhere, which is their main error there. In a video it may come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from imos.network.inference import InferenceCore, InferenceSettings
from imos.propagation.model import Model
from imos.propagation.slices import SliceSource
from imos.propagation.track import Estimate

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet, per channel in [0, 1]: what the encoders were trained with."""


@dataclass(frozen=True, slots=True)
class XMemSettings:
    """How a pass of `xmem` sees and remembers slices.

    Attributes:
        shorter_side: Pixels to which the shorter side of a slice is resized; 480 is the paper's.
        largest_enlargement: Small slices are enlarged by this factor at most. The network's finest features lie 4
            pixels apart; at 4 each pixel of the slice has one, beyond it is more arithmetic but nothing more to see.
        patience: Slices in a row without the object after which it has ended; None for videos, where it may come back.
        inference: Memories and intervals.
    """

    shorter_side: int = 480
    largest_enlargement: float = 4.0
    patience: int | None = 3
    inference: InferenceSettings = field(default_factory=InferenceSettings)


XMEM = XMemSettings()


def track_xmem(
    model: Model,
    slices: SliceSource,
    mask: NDArray[np.bool_],
    start: int,
    stop: int,
    settings: XMemSettings = XMEM,
) -> Iterator[Estimate]:
    """Carry one object from its painted slice.

    Args:
        model: With the network `xmem`.
        slices: 8-bit slices.
        mask: `(H, W)` the painted object.
        start: Index of the painted slice (not yielded).
        stop: Last slice, inclusive; before or after `start`.
        settings: Size, patience, memories.

    Yields:
        One estimate a slice, outward, over the whole slice. Ends early when the object has ended; the slices on which
        it was already gone are then not yielded.
    """
    core = InferenceCore(model.xmem_of_passes, settings.inference)
    size = network_size(slices.shape, settings)
    painted = torch.from_numpy(mask.astype(np.float32))[None, None]
    core.step(_network_input(slices[start], size), functional.interpolate(painted, size)[0])
    step = 1 if stop >= start else -1
    gone: list[Estimate] = []
    for index in range(start + step, stop + step, step):
        probabilities = core.step(_network_input(slices[index], size), end=index == stop)
        estimate = _estimate(index, probabilities[1:], slices.shape)
        if estimate.existence <= 0.5:
            gone.append(estimate)
            if settings.patience is not None and len(gone) >= settings.patience:
                return
            continue
        yield from gone  # it was hidden, not gone
        gone.clear()
        yield estimate
    if settings.patience is None:
        yield from gone


def network_size(shape: tuple[int, int], settings: XMemSettings = XMEM) -> tuple[int, int]:
    """Height and width at which the network sees a slice, the aspect kept."""
    scale = min(settings.shorter_side / min(shape), settings.largest_enlargement)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _network_input(plane: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """`(3, h, w)`, normalised, then resized as in the paper."""
    values = torch.from_numpy(plane).float().div_(255)
    channels = values.expand(3, -1, -1) if values.ndim == 2 else values.permute(2, 0, 1)
    normal = (channels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_DEVIATION)[:, None, None]
    return functional.interpolate(normal[None], size, mode="bilinear", align_corners=False)[0]


@torch.inference_mode()
def _estimate(index: int, probability: Tensor, shape: tuple[int, int]) -> Estimate:
    """What one slice's `(1, h, w)` probabilities say on the slice's own pixels."""
    resized = functional.interpolate(probability[None].float().cpu(), shape, mode="bilinear", align_corners=False)
    native: NDArray[np.float32] = resized[0, 0].numpy()
    existence = float(native.max())
    inside = native[native > 0.5]
    # Where nothing is found: how sure of that.
    confidence = float((2 * inside - 1).mean()) if inside.size else 1 - 2 * existence
    return Estimate(index, 0, 0, native, existence, confidence)
