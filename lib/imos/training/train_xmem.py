"""`python main.py train --configuration xmem`: the paper's network in the paper's three phases.

AdamW with weight decay; no gradient clipping, no warm-up of the learning rate, which drops tenfold late in a phase.
Batch norms keep their statistics; every phase begins with a fresh optimiser. A run lives in a folder, can be killed at
any time and goes on with the same clips. Processes under torchrun share the clips of each step, so that a run learns
the same on one GPU or on several.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn

from imos.errors import UserError
from imos.network.config import NetworkConfig, is_adapter_entry
from imos.network.weights import MASK_ENTRY, XMEM, Weights, WeightsInfo, read_weights, save_weights, xmem_from_weights
from imos.network.xmem import XMem, with_adapters
from imos.training.clips import Clip, ClipMaker
from imos.training.curriculum import PAPER_PHASES, ClipPhase, Curriculum, of_phases, resized
from imos.training.packing import Source
from imos.training.producers import produce_with
from imos.training.progress import Progress
from imos.training.run import Machine
from imos.training.sharing import in_any, processes, rank, share_gradients, share_weights, write_checkpoint
from imos.training.train import training_device
from imos.training.unroll_xmem import ClipBatch, clip_loss, draw_references, unroll_clips

WEIGHTS = "xmem.safetensors"
"""What a run leaves in its folder."""
AHEAD = 6
"""Clips that a worker may be ahead of the training: each takes some megabytes."""
HELD_OUT = 16
"""Held-out clips that are judged at a checkpoint, unless said otherwise."""
CHECKPOINT = "checkpoint.pt"
"""What a run goes on from."""
SETTLING = 8
"""Clips from which a new network's batch norms take their statistics."""
ENCODERS = ("key_encoder.", "value_encoder.")


@dataclass(frozen=True)
class ClipSettings:
    """One run.

    Attributes:
        curriculum: Phases over steps.
        rate: Learning rate before its drop.
        decay: Weight decay.
        deep_share: Share of slices with a deep sensory update.
        save_every: Steps between checkpoints.
        seed: Of clips and of everything else.
        at_once: Clips that go through the network together; gradients are added up. None for all of a process.
    """

    curriculum: Curriculum
    rate: float = 1e-5
    decay: float = 0.05
    deep_share: float = 0.2
    save_every: int = 1000
    seed: int = 14159265
    at_once: int | None = None


SMOKE_STEPS = 12
SMOKE_PHASES = tuple(
    ClipPhase(name, 1, batch=2, size=64, frames=3, references=2, objects=1 if name == "static" else 2,
              still=name == "static", drop=None if name == "static" else 0.8, tail=0.25)
    for name in ("static", "long", "short")
)  # fmt: skip
"""All phases in a minute or two; says nothing about quality."""


@dataclass(frozen=True)
class ClipStart:
    """What a run begins with, and what it leaves.

    Attributes:
        network: As it is in the beginning.
        freezes_encoders: Nothing of the encoders is trained but their adapters.
        data: What it is trained on, for people.
    """

    network: XMem
    freezes_encoders: bool = False
    data: str = ""

    def trains(self, name: str) -> bool:
        """Whether a parameter is trained."""
        return not self.freezes_encoders or is_adapter_entry(name) or not name.startswith(ENCODERS)

    def save(self, path: Path, network: Mapping[str, Tensor], clips: int) -> None:
        """Write what was trained, after so many clips."""
        save_weights(path, network, WeightsInfo(XMEM, "0.1.0", self.data, "of its data", {"clips": str(clips)}))


class ClipRun:
    """A training run in a folder.

    Args:
        folder: Where it lives; an unfinished run there is taken up.
        start: What it begins with.
        settings: The run.
        device: Where to train.

    Raises:
        UserError: Steps cannot be shared by the processes, or the folder holds a run of another network.
    """

    def __init__(self, folder: Path, start: ClipStart, settings: ClipSettings, device: torch.device) -> None:
        self.folder, self.settings, self.device = folder, settings, device
        self._start = start
        for phase in settings.curriculum.phases:
            if phase.batch % processes():
                raise UserError(
                    f"a batch of {phase.batch} clips cannot be shared by {processes()} processes."
                    " Give a --batch that they divide."
                )
        self.network = start.network.to(device).train()
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(start.trains(name))
        self.optimizer = self._new_optimizer()
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.is_file():
            state = torch.load(self._checkpoint, map_location=device, weights_only=True)
            fits = state["network"].keys() == self.network.state_dict().keys()
            if not fits or state.get("steps") != settings.curriculum.steps:
                raise UserError(
                    f"{folder} holds a run of another network or of another number of steps."
                    " Repeat its options, or choose another folder."
                )
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
        share_weights(self.network)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def _new_optimizer(self) -> torch.optim.AdamW:
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, self.settings.rate, weight_decay=self.settings.decay)

    def save(self) -> None:
        """Write the checkpoint and the weights, each in one atomic move."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "steps": self.settings.curriculum.steps,
        }
        write_checkpoint(self._checkpoint, state)
        clips = self.settings.curriculum.clips_before(self.step)
        self._start.save(self.folder / WEIGHTS, self.network.state_dict(), clips)

    def learn(self, batch: ClipBatch, *, bfloat16: bool = False) -> dict[str, float]:
        """One optimiser step.

        Args:
            batch: This process's clips.
            bfloat16: Convolutions in bfloat16.

        Returns:
            The loss and its parts, by name.
        """
        settings = self.settings
        position = settings.curriculum.at(self.step)
        phase = position.phase
        if position.iteration == 0:
            self.optimizer = self._new_optimizer()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate * position.rate_factor
        deep = deep_updates(settings, self.step, batch.frames)
        self.optimizer.zero_grad(set_to_none=True)
        count = len(batch.numbers)
        measures: dict[str, float] = {}
        for part in batch.parts(settings.at_once or count):
            references = draw_references(part.numbers, part.frames, phase.references, settings.seed)
            steps = unroll_clips(self.network, part, references, deep, bfloat16=bfloat16)
            loss, of_part = clip_loss(steps, part, phase.objects, position.iteration, settings.curriculum.warm_up)
            share = len(part.numbers) / count
            (loss * share).backward()
            for name, value in ({"loss": float(loss.detach())} | of_part).items():
                measures[name] = measures.get(name, 0.0) + share * value
        share_gradients(self.network.parameters())
        self.optimizer.step()
        self.step += 1
        return measures


def deep_updates(settings: ClipSettings, step: int, frames: int) -> list[bool]:
    """For every slice from 1 on, whether a step updates the sensory memory deeply there."""
    random = np.random.default_rng([settings.seed, 2, step])
    return [bool(value) for value in random.random(frames - 1) < settings.deep_share]


@torch.no_grad()
def judge_clips(network: XMem, batches: list[ClipBatch], references: int) -> dict[str, float]:
    """J on held-out clips after one slice, two, …: means over objects that the slice shows."""
    collected: dict[int, list[float]] = {}
    for batch in batches:
        drawn = draw_references(batch.numbers, batch.frames, references, seed=0)
        for t, step in enumerate(unroll_clips(network, batch, drawn, [False] * (batch.frames - 1)), 1):
            found = step.probabilities.argmax(1)
            for b, objects in enumerate(batch.objects):
                for value in range(1, objects + 1):
                    hard, true = found[b] == value, batch.labels[b, t] == value
                    if true.any():
                        collected.setdefault(t, []).append(float((hard & true).sum() / (hard | true).sum()))
    return {f"J{t}": float(np.mean(values)) for t, values in collected.items()}


def train_clips(current: ClipRun, source: Source, machine: Machine) -> None:
    """Train, or go on training, until all steps are done or the time is up.

    Args:
        current: The run.
        source: What to cut clips from.
        machine: How much of the machine it takes.
    """
    settings = current.settings
    curriculum = settings.curriculum
    watch = _watch(current, source, machine.held_out) if rank() == 0 else []
    maker = partial(ClipMaker, source, curriculum, settings.seed)
    first = curriculum.clips_before(current.step) + rank()
    clips = produce_with(maker, first, machine.workers, step=processes(), ahead=AHEAD)
    progress = Progress(current.folder, current.step, curriculum.steps)
    try:
        while current.step < curriculum.steps:
            phase = curriculum.at(current.step).phase
            with progress.waiting():
                own = _next(clips, phase.batch // processes())
            parts = current.learn(ClipBatch.of(own, current.device), bfloat16=machine.bfloat16)
            progress.show(current.step, phase.name, phase.batch, parts)
            ended = in_any(machine.minutes is not None and progress.elapsed > 60 * machine.minutes, current.device)
            if current.step % settings.save_every == 0 or current.step == curriculum.steps or ended:
                if rank() == 0:
                    current.save()
                    measures = judge_clips(current.network, watch, curriculum.phases[-1].references)
                    progress.show_measures(current.step, measures)
                if processes() > 1:
                    distributed.barrier()
            if ended:
                break
    finally:
        clips.close()
        progress.close()


def _next(clips: Iterator[Clip], count: int) -> list[Clip]:
    return [next(clips) for _ in range(count)]


def _watch(current: ClipRun, source: Source, count: int) -> list[ClipBatch]:
    last = current.settings.curriculum.phases[-1]  # what it will be used on
    held_out = ClipMaker(source, Curriculum([last], 1), seed=7, cases="monitor")
    return [ClipBatch.of([held_out.make(number)], current.device) for number in range(count)]


def starting_network(weights: Weights | None, *, adapters: bool) -> XMem:
    """The network that a training begins with; draw from torch's seed what the weights lack.

    Args:
        weights: To begin with; None for a new network. A single-object network gets its channel of other objects.
        adapters: Whether it gets adapters, if it has none.

    Raises:
        UserError: These are not weights of an `xmem` network.
    """
    if weights is None:
        return XMem(NetworkConfig(adapters=adapters))
    entry = weights.tensors.get(MASK_ENTRY)
    if entry is not None and entry.dim() == 4 and entry.shape[1] == 4:
        more = nn.init.orthogonal_(entry.new_empty(entry.shape[0], 1, *entry.shape[2:]))
        widened = weights.tensors | {MASK_ENTRY: torch.cat([entry, more], dim=1)}
        weights = Weights(weights.path, widened, weights.info)
    network = xmem_from_weights(weights)
    return with_adapters(network) if adapters and not network.config.adapters else network


@torch.no_grad()
def settle_norms(network: XMem, batch: ClipBatch) -> None:
    """Give the batch norms of a new network statistics, once: training keeps them as they are.

    The paper's come with its ImageNet weights. Without any, activations would grow from block to block. Those of
    adapters stay at mean 0 and variance 1, as in iMOS.
    """
    norms = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and not is_adapter_entry(name)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the mean over all that it sees
        norm.reset_running_stats()
    for part in batch.parts(1):
        pictures = part.pictures[0]
        masks = torch.cat([part.masks(t) for t in range(part.frames)])
        network.encode_value(pictures, network.encode_key(pictures).features.f16, None, masks, deep=False)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def run(args: argparse.Namespace) -> int:
    """Train `xmem`, or go on training; `training.train` declares the options."""
    phases = resized(
        PAPER_PHASES if args.phases is None else of_phases(args.phases), args.size, args.frames, args.batch
    )
    if args.smoke:
        phases = list(SMOKE_PHASES)
    steps = SMOKE_STEPS if args.smoke else args.steps or round(1000 * sum(phase.share for phase in PAPER_PHASES))
    settings = ClipSettings(
        Curriculum(phases, steps),
        rate=args.rate or ClipSettings.rate,
        save_every=SMOKE_STEPS // 2 if args.smoke else args.save_every or ClipSettings.save_every,
        at_once=args.at_once,
    )
    machine = Machine(args.workers, args.bfloat16, args.minutes, args.held_out or HELD_OUT)
    if args.smoke:
        machine = Machine(workers=1, held_out=2)
    with training_device(args.device) as device:
        torch.manual_seed(settings.seed)
        weights = None if args.init is None else read_weights(args.init)
        network = starting_network(weights, adapters=args.adapters)
        source = Source(args.data, supervoxel_share=args.supervoxels)
        if weights is None and not (args.folder / CHECKPOINT).is_file():
            first = ClipMaker(source, settings.curriculum, settings.seed)
            seen = ClipBatch.of([first.make(number) for number in range(SETTLING)], device)
            settle_norms(network.to(device), seen)
        start = ClipStart(network, freezes_encoders=args.adapters and weights is not None, data=args.data.name)
        train_clips(ClipRun(args.folder, start, settings, device), source, machine)
    return 0
