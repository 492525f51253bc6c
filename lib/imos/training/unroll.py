"""One training sequence: the network corrects the floor slice by slice, on its own predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imos.network.similarity import affinity, similarity
from imos.network.small import HIDDEN, SmallNetwork
from imos.propagation.floor import FLOOR
from imos.training.samples import Sample

OUTLINE_REACH = 4.0
"""Grid pixels: blur of the mask that `disturbed` adds its field to."""


@dataclass(frozen=True)
class Batch:
    """Samples side by side.

    Attributes:
        pictures: `(B, T, S, S)` float32 in [-1, 1].
        masks: `(B, T, S, S)` float32.
        flows: `(B, T-1, S, S, 2)` float32.
        scores: `(B, T-1, S, S)` float32.
        maps: The key encoder's maps at strides 4, 8, 16, `(B, T, C, h, w)` float32 each.
    """

    pictures: Tensor
    masks: Tensor
    flows: Tensor
    scores: Tensor
    maps: tuple[Tensor, ...]

    @classmethod
    def of(cls, samples: list[Sample], device: torch.device) -> Batch:
        """Stack samples on a device."""

        def stack(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(sample, name) for sample in samples])).to(device).float()

        scores = functional.interpolate(stack("scores"), scale_factor=2, mode="bilinear", align_corners=False)
        levels = range(len(samples[0].maps))
        maps = tuple(
            torch.from_numpy(np.stack([sample.maps[level] for sample in samples])).to(device).float()
            for level in levels
        )
        return cls(stack("pictures") / 127.5 - 1, stack("masks"), stack("flows"), scores, maps)


@dataclass(frozen=True)
class Step:
    """Prediction on one slice.

    Attributes:
        floor: `(B, S, S)` log odds of the untrained floor on the network's previous mask.
        logits: `(B, S, S)` corrected log odds.
        existence: `(B,)` log odds.
        quality: `(B,)` log odds of the predicted J.
    """

    floor: Tensor
    logits: Tensor
    existence: Tensor
    quality: Tensor


def warp(values: Tensor, flow: Tensor) -> Tensor:
    """Carry `(B, C, S, S)` along a backward flow `(B, S, S, 2)` in pixels; 0 from outside."""
    size = values.shape[-1]
    line = torch.arange(size, device=values.device, dtype=torch.float32)
    base = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    grid = (base + flow) * (2.0 / (size - 1)) - 1
    return functional.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _blur(values: Tensor, sigma: float) -> Tensor:
    """Blur `(B, 1, S, S)` as `cv2.GaussianBlur` does: the same kernel size, the edge mirrored."""
    radius = (round(8 * sigma + 1) | 1) // 2
    line = torch.arange(-radius, radius + 1, device=values.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (line / sigma) ** 2)
    kernel = kernel / kernel.sum()
    values = functional.pad(values, (radius, radius, radius, radius), mode="reflect")
    with torch.autocast(values.device.type, enabled=False):  # float32: in bfloat16 the prior's tails are coarse steps
        values = functional.conv2d(values.float(), kernel.view(1, 1, 1, -1))
        return functional.conv2d(values, kernel.view(1, 1, -1, 1))


def floor_logits(previous: Tensor, flow: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The floor's prior and sum, as `propagation.floor` makes them.

    Args:
        previous: `(B, S, S)` mask or probability of the previous slice.
        flow: `(B, S, S, 2)`.
        score: `(B, S, S)` target model.

    Returns:
        Prior's log odds and the floor's, both `(B, S, S)`.
    """
    prior = _blur(warp((previous > 0.5).float()[:, None], flow), FLOOR.prior_blur)[:, 0]
    prior = torch.logit(prior.clamp(0, 1), eps=1e-6).clamp(-FLOOR.prior_limit, FLOOR.prior_limit)
    return prior, prior + FLOOR.score_weight * score


def disturbed(probability: Tensor, noise: Tensor) -> Tensor:
    """A mask with an outline gone astray here and there, as it is after many slices.

    Args:
        probability: `(B, S, S)`.
        noise: `(B, n, n)` coarse field that moves the outline out (> 0) or in; a field of zeros leaves the mask.
    """
    field = functional.interpolate(noise[:, None], probability.shape[-2:], mode="bicubic", align_corners=False)
    astray = (_blur((probability > 0.5).float()[:, None], OUTLINE_REACH) + field > 0.5).float()[:, 0]
    return torch.where((noise != 0).flatten(1).any(1)[:, None, None], astray, probability)


def unroll(
    network: SmallNetwork,
    batch: Batch,
    deep: list[bool] | None = None,
    disturb: Tensor | None = None,
    *,
    bfloat16: bool = False,
) -> list[Step]:
    """Carry the painted mask through a batch of sequences.

    Args:
        network: The trained part.
        batch: Samples.
        deep: Whether the sensory memory takes the deep update on each slice after the first; None for never.
        disturb: `(B, T-1, n, n)` noise for the mask that each step starts from, see `disturbed`; None for none.
        bfloat16: Convolutions in bfloat16 (the similarity stays float32).
    """
    pictures, masks = batch.pictures, batch.masks
    device = pictures.device
    frames = pictures.shape[1]
    steps: list[Step] = []
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        maps = [network.normalise(*(level[:, t] for level in batch.maps)) for t in range(frames)]
        keys = [network.encode_key(of.f16) for of in maps]
        hidden = pictures.new_zeros(pictures.shape[0], HIDDEN, *maps[0].f16.shape[2:])
        value, hidden = network.value_encoder(pictures[:, :1], masks[:, :1], maps[0].f16, hidden)
        memory = [(keys[0][0], keys[0][1], value)]
        probability = masks[:, 0]
        painted = (pictures[:, 0], 2 * masks[:, 0] - 1)
        for t in range(1, frames):
            if disturb is not None:
                probability = disturbed(probability, disturb[:, t - 1])
            prior, floor = floor_logits(probability, batch.flows[:, t - 1], batch.scores[:, t - 1])
            current = pictures[:, t]
            warped = warp(pictures[:, t - 1 : t], batch.flows[:, t - 1])[:, 0]
            score = batch.scores[:, t - 1]
            cues = torch.stack([current, warped, current - warped, prior / 4, score / 4, *painted], 1)
            readout = read(memory, keys[t][0], keys[t][2])
            decoded = network.decode(maps[t], readout, hidden, cues)
            logits = floor + decoded.residual[:, 0].float()
            steps.append(Step(floor, logits, decoded.existence, decoded.quality))
            probability = logits.detach().sigmoid()
            hidden = decoded.hidden
            if t < frames - 1:
                soft = logits.sigmoid()[:, None]
                value, reinforced = network.value_encoder(pictures[:, t : t + 1], soft, maps[t].f16, hidden)
                memory.append((keys[t][0], keys[t][1], value))
                if deep is not None and deep[t - 1]:
                    hidden = reinforced
    return steps


def read(memory: list[tuple[Tensor, Tensor, Tensor]], query: Tensor, selection: Tensor) -> Tensor:
    """Read all memorised slices: `(B, C, h, w)`."""
    keys, shrinkages, values = (
        torch.cat([part.flatten(2) for part in parts], 2) for parts in zip(*memory, strict=True)
    )
    weights = affinity(similarity(keys, shrinkages, query.flatten(2), selection.flatten(2)))
    with torch.autocast(values.device.type, enabled=False):  # float32: a read in bfloat16 makes the memory useless
        return (values.float() @ weights).view(*values.shape[:2], *query.shape[2:])
