"""Worker processes that make samples, in an order that depends on the seed alone."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Generator
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.errors import UserError
from imos.network.efficientnet import EfficientNetLite0
from imos.training.packing import Source, other_volumes, training_stacks
from imos.training.phases import Schedule
from imos.training.samples import Sample, make_sample
from imos.training.supervoxels import SupervoxelPool
from imos.training.volumes import Stack, synthetic_stack

SYNTHETIC_POOL = 24
SYNTHETIC_EVERY = 4000
"""Samples after which the synthetic volumes are made anew."""
STILL_SHARE = 0.3
"""How often a still is cut from, beside a volume with one object (1) or with n (√n)."""
AHEAD = 24
"""Samples that a worker may be ahead of the training."""


Made = TypeVar("Made")
MadeByIt = TypeVar("MadeByIt", covariant=True)


class Maker(Protocol[MadeByIt]):
    """Makes sample number n of a seeded stream."""

    def make(self, number: int) -> MadeByIt:
        """Sample `number`, the same whenever and by whomever it is made."""


class StackChoice:
    """Which stacks sample number n may be cut from: labelled ones, a synthetic volume, or one cut into supervoxels.

    Args:
        source: What to cut from.
        seed: Of the stream.
        cases: `train` leaves every eighth volume, sequence and still out, `monitor` takes only those.

    Raises:
        UserError: The collection is too small to be divided; or supervoxels cannot be made.
    """

    def __init__(self, source: Source, seed: int, cases: str = "train") -> None:
        volumes = training_stacks(source)
        kept = volumes
        if source.holds_out:  # by volume: other planes of the same volume would flatter the network
            kept = [views for number, views in enumerate(volumes) if (number % 8 == 5) == (cases == "monitor")]
        if not kept:
            raise UserError(
                f"{source.path} gives {len(volumes)} volumes to train on, and 6 are the least:"
                " every eighth is held out. Add volumes."
            )
        self.stacks = [view for views in kept for view in views]
        shares = [STILL_SHARE if len(view.slices) == 1 else view.objects().size ** 0.5 for view in self.stacks]
        self.shares = np.array(shares) / sum(shares)
        self._seed = seed
        self._synthetic: dict[int, list[Stack]] = {}
        self._share = source.synthetic_share if cases == "train" else 0.0
        self._cut_share = source.supervoxel_share if cases == "train" else 0.0
        if self._cut_share:
            self._cut = SupervoxelPool([*(views[0] for views in kept), *other_volumes(source)], seed)

    def of(self, number: int, random: np.random.Generator) -> tuple[list[Stack], NDArray[np.float64] | None]:
        """Stacks for sample `number`, and how often each is cut from; None for equally."""
        if random.random() < self._share:
            return self._pool(int(random.integers(SYNTHETIC_POOL)) + SYNTHETIC_POOL * (number // SYNTHETIC_EVERY)), None
        if self._cut_share and random.random() < self._cut_share:
            return [self._cut.draw(random)], None
        return self.stacks, self.shares

    def _pool(self, number: int) -> list[Stack]:
        if number not in self._synthetic:
            if len(self._synthetic) > 2 * SYNTHETIC_POOL:
                self._synthetic.clear()
            self._synthetic[number] = [synthetic_stack(np.random.default_rng([self._seed, 1, number]))]
        return self._synthetic[number]


class SampleMaker:
    """Makes sample number n of a seeded stream.

    Args:
        source: What to cut from.
        encoder: Frozen key encoder's state dict.
        schedule: Sizes, over the numbers of the samples.
        seed: Of the stream.
        cases: `train` leaves every eighth volume, sequence and still out, `monitor` takes only those.

    Raises:
        UserError: The collection is too small to be divided.
    """

    def __init__(
        self, source: Source, encoder: dict[str, Tensor], schedule: Schedule, seed: int, cases: str = "train"
    ) -> None:
        self._encoder = EfficientNetLite0()
        self._encoder.load_state_dict(encoder)
        self._encoder.eval()
        self._choice = StackChoice(source, seed, cases)
        self._schedule = schedule
        self._seed = seed

    @property
    def stacks(self) -> list[Stack]:
        """What it cuts from, beside synthetic volumes."""
        return self._choice.stacks

    def make(self, number: int) -> Sample:
        """Sample `number`, the same whenever and by whomever it is made."""
        random = np.random.default_rng([self._seed, number])
        phase = self._schedule.at(number).phase
        stacks, shares = self._choice.of(number, random)
        return make_sample(stacks, self._encoder, phase, random, shares)


def produce(
    source: Source, encoder: dict[str, Tensor], schedule: Schedule, seed: int, first: int, workers: int
) -> Generator[Sample, None, None]:
    """Endless samples from number `first` on.

    Args:
        source: What to cut from.
        encoder: Frozen key encoder's state dict.
        schedule: Sizes, over the numbers of the samples.
        seed: Of the stream.
        first: Number of the first sample.
        workers: Processes; the order of the samples does not depend on it.

    Raises:
        RuntimeError: A worker ended.
    """
    arrays = {name: tensor.numpy() for name, tensor in encoder.items()}
    return produce_with(partial(_sample_maker, source, arrays, schedule, seed), first, workers)


def _sample_maker(source: Source, arrays: dict[str, NDArray[Any]], schedule: Schedule, seed: int) -> SampleMaker:
    encoder = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return SampleMaker(source, encoder, schedule, seed)


def produce_with(
    build: Callable[[], Maker[Made]], first: int, workers: int, *, step: int = 1, ahead: int = AHEAD
) -> Generator[Made, None, None]:
    """Endless samples whose numbers begin with `first` and are `step` apart.

    Args:
        build: Builds a maker in a worker; it is sent there.
        first: Number of the first sample.
        workers: Processes; the order of the samples does not depend on it.
        step: From one number to the next; processes of one run take turns.
        ahead: Samples that a worker may be ahead of the training.

    Raises:
        RuntimeError: A worker ended.
    """
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(maxsize=ahead) for _ in range(workers)]
    processes: list[BaseProcess] = []
    for worker, results in enumerate(queues):
        arguments = (results, build, first + worker * step, workers * step)
        process: BaseProcess = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        processes.append(process)
    try:
        number = 0
        while True:
            worker = number % workers
            try:
                yield queues[worker].get(timeout=5)
            except queue.Empty:
                if not processes[worker].is_alive():
                    msg = "A process that makes training samples ended; its own message is above."
                    raise RuntimeError(msg) from None
                continue
            number += 1
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _work(results: multiprocessing.Queue[Made], build: Callable[[], Maker[Made]], first: int, step: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # a training that was killed ends nobody: a worker would wait at its full queue for ever
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    maker = build()
    number = first
    while True:
        results.put(maker.make(number))
        number += step


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
