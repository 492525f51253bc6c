"""A training run in a folder: it can be killed at any time and taken up again, to the same weights.

`checkpoint.pt` holds network, averaged weights, optimiser and counters and is replaced atomically; `small.safetensors`
the averaged weights, ready to be judged; TensorBoard files lie beside them. Several processes (torchrun) share a run:
each learns from samples of its own, gradients are averaged, the first one writes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed

from imos.network.small import SmallNetwork
from imos.network.weights import WeightsInfo, save_weights
from imos.propagation.model import ENCODER_PREFIX, NETWORK_PREFIX, SMALL
from imos.training.losses import sequence_loss
from imos.training.packing import Source
from imos.training.phases import SMALL_PHASES, Phase, Schedule
from imos.training.producers import SampleMaker, produce
from imos.training.progress import Progress
from imos.training.samples import Sample
from imos.training.sharing import in_any, processes, rank, share_gradients, write_checkpoint
from imos.training.unroll import Batch, unroll

POOL = 768
"""Recent samples that batches are drawn from again: making one costs more than learning from it."""

VERSION = "0.5.0"
"""Of the weights that are trained, and of the adapters made for them."""
WEIGHTS = "small.safetensors"
"""What a run leaves in its folder."""

MONITOR_BATCH = 16
"""Held-out sequences that are judged at a time."""

DISTURBANCE = 8
"""Side of the coarse noise that a mask's outline is disturbed with."""
DRIFT = 0.15
"""Standard deviation of what lies in or out all around: .25 moves an outline by about 3 grid pixels."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One run.

    Attributes:
        steps: Optimiser steps in all.
        batch: Sequences a step and process.
        fresh: New sequences a step; the rest of the batch is drawn from the pool.
        rate: Highest learning rate; cosine to zero after a warm-up.
        warm_up: Steps.
        decay: Weight decay.
        average: Decay of the averaged weights.
        deep_share: Share of slices with a deep sensory update.
        disturbed_share: Share of steps that start from a disturbed mask.
        phases: What is cut when.
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
    phases: tuple[Phase, ...] = SMALL_PHASES
    save_every: int = 250
    seed: int = 1

    @property
    def schedule(self) -> Schedule:
        """Phases over steps."""
        return Schedule(self.phases, self.steps)

    @property
    def sample_schedule(self) -> Schedule:
        """Phases over the numbers of the samples; they change where steps change."""
        return Schedule(self.phases, self.steps, self.fresh)

    def filled(self, step: int) -> int:
        """Samples in the pool before a step."""
        return min(POOL, (step - self.schedule.at(step).first) * self.fresh)


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate: linear warm-up, then cosine to zero."""
    if step < settings.warm_up:
        return settings.rate * (step + 1) / settings.warm_up
    progress = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return settings.rate * 0.5 * (1 + float(np.cos(np.pi * min(1.0, progress))))


@torch.no_grad()
def monitor(network: SmallNetwork, batches: list[Batch]) -> dict[str, float]:
    """J on held-out sequences at each step, beside the floor on the same sequences; slices that show the object only.

    Size is the median of found over true area. The floor walks on its own masks: the residual is switched off.
    """
    silent = copy.deepcopy(network)
    for parameter in silent.out.parameters():
        torch.nn.init.zeros_(parameter)
    measures: dict[str, float] = {}
    for name, judged in (("network", network), ("floor", silent)):
        collected: dict[int, list[Tensor]] = {}
        right: list[Tensor] = []
        sizes: list[Tensor] = []
        for batch in batches:
            for t, step in enumerate(unroll(judged, batch), 1):
                true = batch.masks[:, t] > 0.5
                there = true.sum((1, 2)) >= 6
                hard = step.logits > 0
                j = (hard & true).sum((1, 2)) / (hard | true).sum((1, 2)).clamp_min(1)
                collected.setdefault(t, []).append(j[there])
                sizes.append((hard.sum((1, 2)).clamp_min(1) / true.sum((1, 2)).clamp_min(1)).log()[there])
                right.append(((step.existence > 0) == there).float())
        measures |= {f"{name} J{t}": float(torch.cat(values).mean()) for t, values in collected.items()}
        measures[f"{name} size"] = float(torch.cat(sizes).median().exp())
        if name == "network":
            measures["existence"] = float(torch.cat(right).mean())
    return measures


@dataclass(frozen=True)
class Start:
    """What a run begins with, and what it leaves.

    Attributes:
        encoder: Frozen key encoder's state dict.
        network: The trained parts, as they are in the beginning.
        passed_on: Other entries of the weights that are saved (the fitted judge).
    """

    encoder: Mapping[str, Tensor]
    network: SmallNetwork
    passed_on: Mapping[str, Tensor] = field(default_factory=dict)

    def trains(self, name: str) -> bool:
        """Whether a parameter is trained."""
        return True

    def save(self, path: Path, network: Mapping[str, Tensor], sequences: int) -> None:
        """Write what was trained, after so many sequences."""
        tensors = {ENCODER_PREFIX + name: tensor for name, tensor in self.encoder.items()}
        tensors |= {NETWORK_PREFIX + name: tensor for name, tensor in network.items()}
        tensors = {name: tensor.cpu().half().contiguous() for name, tensor in tensors.items()}
        info = WeightsInfo(SMALL, VERSION, "see the model card", "Apache-2.0", {"sequences": str(sequences)})
        save_weights(path, tensors | dict(self.passed_on), info)


class Run:
    """A training run in a folder.

    Args:
        folder: Where it lives; an unfinished run there is taken up.
        start: What it begins with.
        settings: The run.
        device: Where to train.
    """

    def __init__(self, folder: Path, start: Start, settings: TrainSettings, device: torch.device) -> None:
        self.folder, self.settings, self.device = folder, settings, device
        self._start = start
        self.network = start.network.to(device)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(start.trains(name))
        self.averaged = copy.deepcopy(self.network)
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, settings.rate, weight_decay=settings.decay)
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
        write_checkpoint(self._checkpoint, state)
        seen = self.step * self.settings.batch * processes()
        self._start.save(self.folder / WEIGHTS, self.averaged.state_dict(), seen)

    def learn(self, batch: Batch, *, bfloat16: bool) -> dict[str, float]:
        """One optimiser step."""
        settings = self.settings
        random = np.random.default_rng([settings.seed, 2, self.step])
        steps = batch.masks.shape[1] - 1
        deep = [bool(value) for value in random.random(steps) < settings.deep_share]
        disturb = _disturbance(random, (len(batch.masks), steps), settings.disturbed_share).to(self.device)
        loss, parts = sequence_loss(unroll(self.network, batch, deep, disturb, bfloat16=bfloat16), batch.masks)
        self.descend(loss)
        return {"loss": float(loss.detach())} | parts

    def descend(self, loss: Tensor) -> None:
        """One optimiser step down a loss."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, settings)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.share_gradients()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        self.optimizer.step()
        decay = min(settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, current in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                average.lerp_(current, 1 - decay)
        self.step += 1

    def share_gradients(self) -> None:
        """Average gradients over the processes of this run."""
        share_gradients(self.network.parameters())


def _disturbance(random: np.random.Generator, shape: tuple[int, int], share: float) -> Tensor:
    """Fields for `disturbed`: outlines that waver, and outlines too far in or out all around, as after a drift."""
    noise = random.standard_normal((*shape, DISTURBANCE, DISTURBANCE))
    noise *= random.uniform(0.1, 0.5, (*shape, 1, 1))
    noise += random.normal(0, DRIFT, (*shape, 1, 1))
    noise *= random.random((*shape, 1, 1)) < share
    return torch.from_numpy(noise).float()


def batches(samples: Iterator[Sample], settings: TrainSettings, step: int, filled: int) -> Iterator[list[Sample]]:
    """Batches of new samples and samples drawn again from the recent ones.

    Args:
        samples: The stream, `filled` samples before those of `step`.
        settings: Sizes and seed.
        step: First step.
        filled: Samples that only fill the pool: after a restart, those before `step`.
    """
    starts = settings.schedule.starts
    pool = [next(samples) for _ in range(filled)]
    while True:
        new = [next(samples) for _ in range(settings.fresh)]
        pool = (([] if step in starts else pool) + new)[-POOL:]  # samples of a batch have one size
        random = np.random.default_rng([settings.seed, 3, step])
        again = random.choice(len(pool), settings.batch - len(new))
        yield new + [pool[number] for number in again]
        step += 1


@dataclass(frozen=True, slots=True)
class Machine:
    """How much of the machine a run takes.

    Attributes:
        workers: Processes that make samples.
        bfloat16: Convolutions in bfloat16.
        minutes: Stop after this time; None for when all steps are done.
        held_out: Held-out sequences that are judged at a checkpoint.
    """

    workers: int = 2
    bfloat16: bool = False
    minutes: float | None = None
    held_out: int = 128


def train(current: Run, source: Source, encoder: dict[str, Tensor], machine: Machine) -> None:
    """Train, or go on training, until all steps are done or the time is up.

    Args:
        current: The run.
        source: What to cut samples from.
        encoder: Frozen key encoder's state dict.
        machine: How much of the machine it takes.
    """
    settings = current.settings
    watch = _watch(current, source, encoder, machine.held_out) if rank() == 0 else []
    filled = settings.filled(current.step)
    first = current.step * settings.fresh - filled
    # each process has a stream of its own
    seed = settings.seed + 1000 * rank()
    samples = produce(source, encoder, settings.sample_schedule, seed, first, machine.workers)
    progress = Progress(current.folder, current.step, settings.steps)
    try:
        stream = batches(samples, settings, current.step, filled)
        while current.step < settings.steps:
            with progress.waiting():
                batch = Batch.of(next(stream), current.device)
            parts = current.learn(batch, bfloat16=machine.bfloat16)
            phase = settings.schedule.at(current.step - 1).phase.name
            progress.show(current.step, phase, settings.batch * processes(), parts)
            ended = in_any(machine.minutes is not None and progress.elapsed > 60 * machine.minutes, current.device)
            if current.step % settings.save_every == 0 or current.step == settings.steps or ended:
                if rank() == 0:
                    current.save()
                    progress.show_measures(current.step, monitor(current.averaged, watch))
                if processes() > 1:
                    distributed.barrier()
            if ended:
                break
    finally:
        samples.close()
        progress.close()


def _watch(current: Run, source: Source, encoder: dict[str, Tensor], count: int) -> list[Batch]:
    last = Schedule([current.settings.phases[-1]], 1)  # what it will be used on
    held_out = SampleMaker(source, encoder, last, seed=7, cases="monitor")
    return [
        Batch.of([held_out.make(number) for number in range(count)[first : first + MONITOR_BATCH]], current.device)
        for first in range(0, count, MONITOR_BATCH)
    ]
