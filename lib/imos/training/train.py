"""`python main.py train`: trains the network of `small` on samples that worker processes make.

The run is a folder: `checkpoint.pt` (network, averaged weights, optimiser, counters; replaced atomically, so that a
killed run goes on from the last one), `small.safetensors` (averaged weights, ready to be judged), TensorBoard files.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from imos.errors import UserError
from imos.network.small import SmallNetwork
from imos.network.weights import WeightsInfo, read_weights, save_weights
from imos.propagation.model import BUNDLED, ENCODER_PREFIX, JUDGE_PREFIX, NETWORK_PREFIX, SMALL
from imos.training.producers import SampleMaker, produce
from imos.training.samples import Sample, SampleSettings
from imos.training.unroll import Batch, Step, unroll

POOL = 768
"""Recent samples that batches are drawn from again: making one costs more than learning from it."""

MONITOR_BATCH = 16
"""Held-out sequences that are judged at a time."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One run.

    Attributes:
        steps: Optimiser steps in all.
        batch: Sequences a step.
        fresh: New sequences a step; the rest of the batch is drawn from the pool.
        rate: Highest learning rate; cosine to zero after a warm-up.
        warm_up: Steps.
        decay: Weight decay.
        average: Decay of the averaged weights.
        deep_share: Share of slices with a deep sensory update.
        disturbed_share: Share of steps that start from a disturbed mask.
        coarse: So many steps, the first ones, are on the coarse grid.
        save_every: Steps between checkpoints.
        seed: Of samples and of everything else.
    """

    steps: int = 10_000
    batch: int = 12
    fresh: int = 4
    rate: float = 1e-3
    warm_up: int = 200
    decay: float = 0.01
    average: float = 0.999
    deep_share: float = 0.3
    disturbed_share: float = 0.25
    coarse: int = 0
    save_every: int = 250
    seed: int = 1

    def filled(self, step: int) -> int:
        """Samples in the pool before a step."""
        since = self.coarse if step >= self.coarse else 0
        return min(POOL, (step - since) * self.fresh)


def sequence_loss(steps: list[Step], masks: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Loss of one unrolled batch.

    Masks are judged only on slices that show the object: counting the others teaches the mask to shrink. Whether it is
    there is the existence head's task.

    Args:
        steps: Predictions on slices 1…T-1.
        masks: `(B, T, S, S)`.

    Returns:
        The loss, and its parts by name.
    """
    total = masks.new_zeros(())
    parts: dict[str, list[float]] = {"cross entropy": [], "dice": [], "existence": [], "quality": []}
    for t, step in enumerate(steps, 1):
        mask = masks[:, t]
        there = (mask.sum((1, 2)) >= 6).float()
        shown = there.sum().clamp_min(1.0)
        pixel = functional.binary_cross_entropy_with_logits(step.logits, mask, reduction="none")
        # the object fills a tenth of its region: pixels near either outline decide
        either = torch.maximum(mask, (step.floor > 0).float())[:, None]
        near = functional.max_pool2d(functional.max_pool2d(either, 4), 5, 1, 2)
        weight = 0.2 + functional.interpolate(near, scale_factor=4)[:, 0]
        entropy = ((pixel * weight).sum((1, 2)) / weight.sum((1, 2)) * there).sum() / shown
        probability = step.logits.sigmoid()
        overlap = 2 * (probability * mask).sum((1, 2)) + 1
        dice = ((1 - overlap / (probability.sum((1, 2)) + mask.sum((1, 2)) + 1)) * there).sum() / shown
        existence = functional.binary_cross_entropy_with_logits(step.existence.float(), there)
        hard, true = step.logits > 0, mask > 0.5
        union = (hard | true).sum((1, 2)).clamp_min(1)
        true_j = (hard & true).sum((1, 2)) / union
        judged = functional.binary_cross_entropy_with_logits(step.quality.float(), true_j, reduction="none")
        quality = (judged * there).sum() / shown
        total = total + 2 * entropy + dice + 0.2 * existence + 0.2 * quality
        for name, value in zip(parts, (entropy, dice, existence, quality), strict=True):
            parts[name].append(float(value.detach()))
    return total / len(steps), {name: float(np.mean(values)) for name, values in parts.items()}


@torch.no_grad()
def monitor(network: SmallNetwork, batches: list[Batch]) -> dict[str, float]:
    """J on held-out sequences at each step, beside the floor on the same sequences; slices that show the object only.

    The floor walks on its own masks: the residual is switched off.
    """
    silent = copy.deepcopy(network)
    for parameter in silent.out.parameters():
        torch.nn.init.zeros_(parameter)
    measures: dict[str, float] = {}
    for name, judged in (("network", network), ("floor", silent)):
        collected: dict[int, list[Tensor]] = {}
        right: list[Tensor] = []
        for batch in batches:
            for t, step in enumerate(unroll(judged, batch), 1):
                true = batch.masks[:, t] > 0.5
                there = true.sum((1, 2)) >= 6
                hard = step.logits > 0
                j = (hard & true).sum((1, 2)) / (hard | true).sum((1, 2)).clamp_min(1)
                collected.setdefault(t, []).append(j[there])
                right.append(((step.existence > 0) == there).float())
        measures |= {f"{name} J{t}": float(torch.cat(values).mean()) for t, values in collected.items()}
        if name == "network":
            measures["existence"] = float(torch.cat(right).mean())
    return measures


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate: linear warm-up, then cosine to zero."""
    if step < settings.warm_up:
        return settings.rate * (step + 1) / settings.warm_up
    progress = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return settings.rate * 0.5 * (1 + float(np.cos(np.pi * min(1.0, progress))))


class Run:
    """A training run in a folder.

    Args:
        folder: Where it lives; an unfinished run there is taken up.
        encoder: Frozen key encoder's state dict.
        settings: The run.
        device: Where to train.
        judge: Entries of the fitted judge, passed on to the weights that are saved.
    """

    def __init__(
        self,
        folder: Path,
        encoder: dict[str, Tensor],
        settings: TrainSettings,
        device: torch.device,
        judge: dict[str, Tensor] | None = None,
    ) -> None:
        self.folder, self.settings, self.device = folder, settings, device
        self._encoder = encoder
        self._judge = judge or {}
        torch.manual_seed(settings.seed)
        self.network = SmallNetwork().to(device)
        self.averaged = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), settings.rate, weight_decay=settings.decay)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.is_file():
            state = torch.load(self._checkpoint, map_location=device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each in one atomic move."""
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        temporary = self._checkpoint.with_suffix(".part")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._checkpoint)
        tensors = {ENCODER_PREFIX + name: tensor for name, tensor in self._encoder.items()}
        tensors |= {NETWORK_PREFIX + name: tensor.cpu() for name, tensor in self.averaged.state_dict().items()}
        tensors = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
        tensors |= self._judge
        seen = str(self.step * self.settings.batch)
        info = WeightsInfo(SMALL, "0.1.0", "see the model card", "Apache-2.0", {"sequences": seen})
        save_weights(self.folder / "small.safetensors", tensors, info)

    def learn(self, batch: Batch, *, bfloat16: bool) -> dict[str, float]:
        """One optimiser step."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, settings)
        random = np.random.default_rng([settings.seed, 2, self.step])
        deep = [bool(value) for value in random.random(batch.masks.shape[1] - 1) < settings.deep_share]
        noise = random.standard_normal((*batch.scores.shape[:2], 8, 8)) * random.uniform(
            0.1, 0.5, (*batch.scores.shape[:2], 1, 1)
        )
        noise *= random.random((*batch.scores.shape[:2], 1, 1)) < settings.disturbed_share
        disturb = torch.from_numpy(noise).float().to(self.device)
        loss, parts = sequence_loss(unroll(self.network, batch, deep, disturb, bfloat16=bfloat16), batch.masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        self.optimizer.step()
        decay = min(settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, current in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                average.lerp_(current, 1 - decay)
        self.step += 1
        return {"loss": float(loss.detach())} | parts


def batches(samples: Iterator[Sample], settings: TrainSettings, step: int, filled: int) -> Iterator[list[Sample]]:
    """Batches of new samples and samples drawn again from the recent ones.

    Args:
        samples: The stream, `filled` samples before those of `step`.
        settings: Sizes and seed.
        step: First step.
        filled: Samples that only fill the pool: after a restart, those before `step`.
    """
    pool = [next(samples) for _ in range(filled)]
    while True:
        new = [next(samples) for _ in range(settings.fresh)]
        pool = (([] if step == settings.coarse else pool) + new)[-POOL:]  # a batch has one grid
        random = np.random.default_rng([settings.seed, 3, step])
        again = random.choice(len(pool), settings.batch - len(new))
        yield new + [pool[number] for number in again]
        step += 1


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


def _grid(text: str) -> int:
    number = _positive(text)
    if number % 16:
        raise argparse.ArgumentTypeError(f"{number} is no multiple of 16")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `train`."""
    run_defaults, sample_defaults = TrainSettings(), SampleSettings()
    parser.add_argument("data", type=Path, help="folder of a collection with volumes.tsv and frames.tsv, or a pack")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; an unfinished run is taken up")
    parser.add_argument("--steps", type=_positive, default=run_defaults.steps, help="optimiser steps in all")
    parser.add_argument("--batch", type=_positive, default=run_defaults.batch, help="sequences a step")
    parser.add_argument("--frames", type=int, default=sample_defaults.frames, help="slices a sequence")
    parser.add_argument("--gap", type=_positive, default=sample_defaults.largest_gap, help="greatest slice distance")
    parser.add_argument("--grid", type=_grid, default=sample_defaults.grid, help="side of a slice in grid pixels")
    parser.add_argument(
        "--coarse", type=_share, default=0.7, help="share of the steps on slices of half the pixels, at the beginning"
    )
    parser.add_argument("--rate", type=float, default=run_defaults.rate, help="highest learning rate")
    parser.add_argument("--workers", type=_positive, default=2, help="processes that make samples")
    parser.add_argument(
        "--save-every", type=_positive, default=run_defaults.save_every, help="steps between two checkpoints"
    )
    parser.add_argument("--held-out", type=_positive, default=128, help="held-out sequences judged at a checkpoint")
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; the run can go on later")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--bfloat16", action="store_true", help="convolutions in bfloat16: a GPU's, or a CPU's that gains by it"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or go on training."""
    cuda = torch.cuda.is_available()
    if args.device == "cuda" and not cuda:
        raise UserError("There is no CUDA GPU that this PyTorch can use. Choose --device cpu or auto.")
    device = torch.device("cuda" if cuda and args.device != "cpu" else "cpu")
    settings = TrainSettings(
        steps=args.steps,
        batch=args.batch,
        fresh=max(1, args.batch // 3),
        rate=args.rate,
        coarse=round(args.coarse * args.steps),
        save_every=args.save_every,
    )
    coarse = settings.coarse * settings.fresh
    sizes = SampleSettings(
        args.grid, args.frames, args.gap, coarse_grid=round(0.7 * args.grid / 16) * 16, coarse=coarse
    )
    weights = read_weights(BUNDLED).tensors
    prefix = ENCODER_PREFIX
    encoder = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    judge = {name: tensor for name, tensor in weights.items() if name.startswith(JUDGE_PREFIX)}
    current = Run(args.run, encoder, settings, device, judge)
    held_out = SampleMaker(args.data, encoder, replace(sizes, coarse=0), seed=7, cases="monitor")
    numbers = range(args.held_out)
    watch = [
        Batch.of([held_out.make(number) for number in numbers[first : first + MONITOR_BATCH]], device)
        for first in range(0, args.held_out, MONITOR_BATCH)
    ]
    del held_out
    filled = settings.filled(current.step)
    first = current.step * settings.fresh - filled
    samples = produce(args.data, encoder, sizes, settings.seed, first, args.workers)
    writer = SummaryWriter(str(args.run))
    began, began_step, shown = time.monotonic(), current.step, 0.0
    waited = 0.0
    try:
        stream = batches(samples, settings, current.step, filled)
        while current.step < settings.steps:
            before = time.monotonic()
            samples_of_step = next(stream)
            batch = Batch.of(samples_of_step, device)
            waited += time.monotonic() - before
            parts = current.learn(batch, bfloat16=args.bfloat16)
            elapsed = time.monotonic() - began
            speed = (current.step - began_step) / elapsed
            if elapsed - shown > 10:
                shown = elapsed
                left = (settings.steps - current.step) / speed / 60
                print(
                    f"step {current.step}/{settings.steps}  loss {parts['loss']:.3f}"
                    f"  {speed * settings.batch:.1f} sequences/s, {100 * waited / elapsed:.0f} % waiting for samples"
                    f"  {left:.0f} min left",
                    file=sys.stderr,
                    flush=True,
                )
                for name, value in parts.items():
                    writer.add_scalar(name, value, current.step)
            ended = args.minutes is not None and elapsed > 60 * args.minutes
            if current.step % settings.save_every == 0 or current.step == settings.steps or ended:
                current.save()
                measures = monitor(current.averaged, watch)
                for name, value in measures.items():
                    writer.add_scalar(name, value, current.step)
                text = "  ".join(f"{name} {value:.3f}" for name, value in measures.items())
                print(f"step {current.step}: {text}", file=sys.stderr, flush=True)
            if ended:
                break
    finally:
        samples.close()
        writer.close()
    return 0
