"""`python main.py judge`: fits the two logistic models that say whether an object is there and how good its mask is.

Passes over labelled volumes run on to the end of the volume; every step's evidence is set beside the truth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging.writing import check_folder_of
from imos.metrics import jaccard
from imos.network.weights import WeightsInfo, read_weights, save_weights
from imos.propagation.existence import DISTANCE, FEATURES, Evidence, Judge, Sure, features
from imos.propagation.model import BUNDLED, FLOOR_JUDGE_PREFIX, JUDGE_PREFIX, Model, load
from imos.propagation.parts import split
from imos.propagation.track import PATIENCE, track
from imos.training.packing import read_pack
from imos.training.passes import StackSlices, mask_of
from imos.training.samples import end_at_once
from imos.training.volumes import SMALLEST_AREA, Stack, labelled_stacks

PAST_THE_END = 6
"""Steps behind an object's end that count: those far away would decide everything."""

LONGEST = 12
"""Slices of a pass on which an object is made to end at once."""

KEEP = 0.07
"""An object counts as there from this fitted probability on: to end too early costs more than to end late."""


@dataclass(frozen=True)
class Steps:
    """Evidence beside the truth.

    Attributes:
        evidence: `(N, 23)` features.
        there: `(N,)` bool: the object is on the slice.
        quality: `(N,)` true J.
        case: `(N,)` which stack.
        from_largest: `(N,)` bool: the pass began at the object's largest slice.
    """

    evidence: NDArray[np.float64]
    there: NDArray[np.bool_]
    quality: NDArray[np.float64]
    case: NDArray[np.int64]
    from_largest: NDArray[np.bool_]


class _Recorder(Sure):
    """A judge that lets every pass run on, and writes down what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[NDArray[np.float64]] = []

    def of(self, evidence: Evidence) -> tuple[float, float]:
        """Sure of everything."""
        self.seen.append(features(evidence))
        return super().of(evidence)


def collect(model: Model, stacks: list[Stack], objects: int = 6) -> Steps:
    """Run passes from the largest, first and last slice of up to `objects` objects of every volume.

    Those from the largest slice are run once more through slices on which the object ends at once: most real objects
    fade, and what is to be learned is to stop.
    """
    rows: list[tuple[NDArray[np.float64], bool, float, int, bool]] = []
    for number, stack in enumerate(stacks):
        print(f"{number + 1}/{len(stacks)}", file=sys.stderr, flush=True)
        random = np.random.default_rng(number)
        for value in stack.objects()[:objects]:
            area = stack.areas[:, value]
            shown = np.flatnonzero(area)
            if shown.size < 4:
                continue
            for start, stop in _passes(area):
                if len(split(stack.labels[start] == value)) > 1:
                    continue  # parts are judged one by one, and the truth says nothing of each
                is_largest = start == int(area.argmax())
                rows += [(*row, number, is_largest) for row in _walk(model, stack, value, start, stop)]
                end = int(shown[-1] if stop > start else shown[0])
                if is_largest and abs(end - start) > 1 and stack.slices.ndim == 3:
                    ended = _ended_at_once(stack, value, start, end, random)
                    rows += [(*row, number, True) for row in _walk(model, ended, 1, 0, len(ended.slices) - 1)]
    if not rows:
        raise UserError("No object of this collection is on four slices or more. Give labelled volumes.")
    evidence, there, quality, case, from_largest = zip(*rows, strict=True)
    return Steps(np.stack(evidence), np.array(there), np.array(quality), np.array(case), np.array(from_largest))


def _walk(
    model: Model, stack: Stack, value: int, start: int, stop: int
) -> Iterator[tuple[NDArray[np.float64], bool, float]]:
    """Evidence, whether the object is there, and J of every step of a pass that counts."""
    shown = np.flatnonzero(stack.areas[:, value])
    recorder = _Recorder()
    judged = replace(model, judge=recorder, floor_judge=recorder)
    # without a network as gray videos are carried, which the floor's judge is for
    patience = None if model.network is None and stack.slices.ndim == 3 else PATIENCE
    walk = track(judged, StackSlices(stack), stack.labels[start] == value, start, stop, patience=patience)
    for step, estimate in enumerate(walk):
        index = estimate.index
        there = bool(stack.areas[index, value])
        if there or min(abs(index - shown[0]), abs(index - shown[-1])) <= PAST_THE_END:
            true = stack.labels[index] == value
            yield recorder.seen[step], there, jaccard(mask_of(estimate, true.shape), true)


def _ended_at_once(stack: Stack, value: int, start: int, end: int, random: np.random.Generator) -> Stack:
    """The slices from `start` towards `end`, the object's last one, as label 1, which ends on one of them at once."""
    step = 1 if end > start else -1
    indices = list(range(start, end + step, step))[:LONGEST]
    first = int(random.integers(1, len(indices)))
    indices = indices[: first + PAST_THE_END + 1]
    pictures = np.stack([stack.slices[index] for index in indices])
    masks = np.stack([stack.labels[index] == value for index in indices]).astype(np.uint8)
    return Stack.of(*end_at_once(pictures, masks, first, random))


def _passes(area: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Painted slices and where passes from them stop: people paint large slices, and also where an object begins."""
    large = np.flatnonzero(area >= SMALLEST_AREA)
    if not large.size:
        return []
    largest, end = int(area.argmax()), len(area) - 1
    return [
        (start, stop)
        for start, stop in dict.fromkeys([(largest, 0), (largest, end), (int(large[0]), end), (int(large[-1]), 0)])
        if start != stop
    ]


def fit(steps: Steps, *, for_floor: bool = False) -> Judge:
    """Both models; every case counts by the square root of its steps.

    Existence is learned from passes that began at the largest slice alone: with the others, passes run on far longer
    behind the end of an object.

    Args:
        steps: What was collected.
        for_floor: The judge of passes without the network, which are mostly those of gray videos: there quality too is
            learned from the largest slice alone, and the distance is not looked at, for frames may lie near each other.
    """
    weight = 1 / np.sqrt(np.bincount(steps.case)[steps.case])
    large = steps.from_largest
    existence = _logistic(steps.evidence[large], steps.there[large].astype(float), weight[large])
    existence[-1] -= np.log(KEEP / (1 - KEEP))
    used = steps.there & large if for_floor else steps.there
    seen = np.ones(FEATURES)
    seen[[DISTANCE, DISTANCE + FEATURES // 2]] = not for_floor
    quality = _logistic(steps.evidence[used] * seen, steps.quality[used], weight[used]) * seen
    return Judge(existence, quality)


def _logistic(x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    weight = weight / weight.mean()
    found = np.zeros(x.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(x @ found, -30, 30)))
        gradient = x.T @ (weight * (p - y)) + 2 * found
        hessian = (x * (weight * p * (1 - p) + 1e-6)[:, None]).T @ x + 2 * np.eye(x.shape[1])
        found = found - np.linalg.solve(hessian, gradient)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `judge`."""
    parser.add_argument("data", type=Path, help="folder of a collection, or a pack")
    parser.add_argument("out", type=Path, help="weights to write: the given ones with the fitted judge")
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="weights whose passes are judged")
    parser.add_argument("--floor", action="store_true", help="fit the floor's judge: passes without the network")
    parser.add_argument("--every", type=int, default=1, help="take every n-th volume only")


def run(args: argparse.Namespace) -> int:
    """Fit and write."""
    check_folder_of(args.out)
    source: Path = args.data
    stacks = read_pack(source) if source.is_file() else labelled_stacks(source)
    stacks = [stack for stack in stacks if len(stack.slices) >= 4 and stack.labels.any()][:: max(1, args.every)]
    model = load(args.weights, device="cpu", judged=False)
    is_floor = args.floor or model.network is None
    steps = collect(replace(model, network=None) if is_floor else model, stacks)
    judge = fit(steps, for_floor=is_floor)
    content = read_weights(args.weights)
    prefix = FLOOR_JUDGE_PREFIX if is_floor else JUDGE_PREFIX
    fitted = {prefix + name: torch.from_numpy(getattr(judge, name)).float() for name in ("existence", "quality")}
    halves = {name: tensor.half() for name, tensor in content.tensors.items()}
    # as small as it was: what a half holds exactly was stored as one
    kept = {
        name: halves[name] if torch.equal(halves[name].float(), tensor) else tensor
        for name, tensor in content.tensors.items()
    }
    judges = (JUDGE_PREFIX, FLOOR_JUDGE_PREFIX)
    of_another_version = {name for name in kept if name.startswith(judges) and kept[name].shape != (FEATURES,)}
    tensors = {name: tensor for name, tensor in kept.items() if name not in of_another_version} | fitted
    info = content.info
    save_weights(args.out, tensors, WeightsInfo(info.configuration, info.version, info.data, info.licence, info.extra))
    values = steps.evidence @ judge.quality
    predicted = 1 / (1 + np.exp(-values[steps.there]))
    agreement = np.corrcoef(predicted, steps.quality[steps.there])[0, 1]
    print(f"{len(steps.there)} steps; predicted and true J correlate by {agreement:.2f} on the slices fitted to")
    return 0
