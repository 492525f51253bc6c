"""An experiment: every case of a split through the whole path, by every method, judged.

Our own methods see a case as a user's program would: an `Image` in memory, all labels painted in one call each on its
own slice, `Session.propagate`, a label map out.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from enum import StrEnum
from multiprocessing.process import BaseProcess
from time import perf_counter
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from imos.datasets.collection import Case, Modality
from imos.errors import UserError
from imos.evaluation import baselines, walker
from imos.evaluation.annotator import Effort, Technique, annotate_case
from imos.evaluation.causes import Explained, explain
from imos.evaluation.judging import Score, judge
from imos.evaluation.packed import Packed
from imos.evaluation.planes import View, other_planes
from imos.evaluation.sequences import Protocol, paint, sequences_of
from imos.evaluation.sequences import Sequence as Judged
from imos.imaging import Image, ImageKind

if TYPE_CHECKING:
    from imos.propagation.model import Model


class Method(StrEnum):
    """What makes the volume from the painted slices.

    `ours` is the loaded weights; `floor` the same with the network's residual switched off; `flow` optical flow on full
    slices; `copy` the painted mask everywhere; `walker` random walks from the painted slice.
    """

    OURS = "ours"
    FLOOR = "floor"
    FLOW = "flow"
    COPY = "copy"
    WALKER = "walker"


_BASELINES = {Method.FLOW: baselines.FLOW, Method.COPY: baselines.COPY, Method.WALKER: walker.WALKER}


@dataclass(frozen=True, slots=True)
class WeightsChoice:
    """Which weights every process loads; the arguments of `imos.load`."""

    weights: str | None = None
    adapter: str | None = None
    device: str = "auto"

    def load(self) -> Model:
        """Load them."""
        import imos

        return imos.load(self.weights, adapter=self.adapter, device=self.device)


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence by one method.

    Attributes:
        protocol: Which slice was painted.
        method: What carried it.
        group: Data set.
        case: Volume or frame sequence.
        modality: Group of the tables.
        sequence: Label and slices.
        score: J, F, leak.
        seconds: Time of the case, shared equally among its sequences.
        view: Along which axis it was walked and judged.
        found: What was found, where the experiment keeps it.
        explained: Why it is as good as it is, where the experiment asks.
    """

    protocol: Protocol
    method: Method
    group: str
    case: str
    modality: Modality
    sequence: Judged
    score: Score
    seconds: float
    view: View = View.OWN
    found: Packed | None = None
    explained: Explained | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of one case.

    Attributes:
        rows: Sequences, by protocol and method.
        efforts: Annotated objects, by technique.
    """

    rows: list[Row] = field(default_factory=list)
    efforts: list[Effort] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Volume:
    """What a method made of the painted slices.

    Attributes:
        labels: `(D, H, W)` label map.
        confidence: label → slice → expected J; empty where the method says nothing.
    """

    labels: NDArray[np.uint8]
    confidence: Mapping[int, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is compared.

    Attributes:
        methods: Side by side, in the order of the tables.
        protocols: Which slices are painted.
        choice: Weights of `ours` and `floor`.
        planes: Judge `ours` along the two other axes of volumes as well, by the first protocol.
        techniques: With which ones volumes are annotated; none: they are not.
        keeps_found: Keep what `ours` found, for pictures.
        explains: Look for the causes of what `ours` got wrong.
    """

    methods: tuple[Method, ...] = (Method.OURS,)
    protocols: tuple[Protocol, ...] = (Protocol.LARGEST,)
    choice: WeightsChoice = WeightsChoice()
    planes: bool = False
    techniques: tuple[Technique, ...] = ()
    keeps_found: bool = False
    explains: bool = False

    @property
    def needs_weights(self) -> bool:
        """Whether a method needs them."""
        return bool({Method.OURS, Method.FLOOR} & set(self.methods)) or self.planes or bool(self.techniques)


def run_case(case: Case, experiment: Experiment, model: Model | None) -> Findings:
    """Judge one case by every protocol and method, along other axes and by the annotator where that is asked for.

    Args:
        case: Volume or frame sequence.
        experiment: What to compare.
        model: Loaded weights; None when no method needs them.

    Raises:
        UserError: The case cannot be read, or the weights have no floor.
    """
    slices, labels = case.load()
    rows: list[Row] = []
    for protocol in experiment.protocols:
        judged = sequences_of(labels, protocol, is_video=case.is_video)
        if not judged:
            continue
        made = _make(case, slices, labels, judged, experiment, model)
        for method in experiment.methods:
            volume, seconds = made[method]
            for sequence in judged:
                score = judge(volume.labels, labels, sequence, volume.confidence.get(sequence.label))
                keeps = experiment.keeps_found and method is Method.OURS
                found = Packed.of(volume.labels == sequence.label) if keeps else None
                asks = experiment.explains and method is Method.OURS
                explained = explain(slices, labels, volume.labels, sequence) if asks else None
                about = case.group, case.name, case.modality
                time = seconds / len(judged)
                rows.append(Row(protocol, method, *about, sequence, score, time, found=found, explained=explained))
        if experiment.planes and not case.is_video and protocol is experiment.protocols[0]:
            assert model is not None  # `needs_weights` saw to it
            own = made[Method.OURS][0] if Method.OURS in made else propagate(case, slices, paint(labels, judged), model)
            rows += _rows_of_other_planes(case, slices, labels, own, protocol, model)
    efforts: list[Effort] = []
    if experiment.techniques and not case.is_video:
        assert model is not None  # `needs_weights` saw to it
        efforts = list(annotate_case(case, slices, labels, experiment.techniques, model))
    return Findings(rows, efforts)


def _make(
    case: Case,
    slices: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    judged: Sequence[Judged],
    experiment: Experiment,
    model: Model | None,
) -> dict[Method, tuple[Volume, float]]:
    """What every method makes of the same painted slices, and its seconds."""
    painted = paint(labels, judged)
    made: dict[Method, tuple[Volume, float]] = {}
    for method in experiment.methods:
        if method in made:
            continue
        started = perf_counter()
        if method in _BASELINES:
            volume = Volume(baselines.carry_all(_BASELINES[method], slices, labels, judged))
        else:
            assert model is not None  # `needs_weights` saw to it
            volume = propagate(case, slices, painted, model if method is Method.OURS else floor_of(model))
        made[method] = volume, perf_counter() - started
        if method is Method.OURS and model is not None and has_only_floor(model):
            made[Method.FLOOR] = made[method]
    return made


def _rows_of_other_planes(
    case: Case,
    slices: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    own: Volume,
    protocol: Protocol,
    model: Model,
) -> Iterator[Row]:
    def made(turned: NDArray[np.uint8], painted: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return propagate(case, turned, painted, model).labels

    for view, sequence, score in other_planes(slices, labels, own.labels, protocol, made):
        yield Row(protocol, Method.OURS, case.group, case.name, case.modality, sequence, score, 0.0, view)


def has_only_floor(model: Model) -> bool:
    """Whether the weights hold no network beside the untrained floor."""
    return model.encoder is not None and model.network is None


def floor_of(model: Model) -> Model:
    """The untrained floor of the same weights.

    Raises:
        UserError: Weights of this configuration have none.
    """
    if model.encoder is None:
        raise UserError(f"weights of '{model.info.configuration}' have no floor. Leave floor out of --compare.")
    if has_only_floor(model):
        return model
    return replace(model, network=None)


def propagate(case: Case, slices: NDArray[np.uint8], painted: NDArray[np.uint8], model: Model) -> Volume:
    """The whole path of a user's program.

    Args:
        case: Says whether this is a video, and names the image.
        slices: `(D, H, W)` or `(D, H, W, 3)`.
        painted: `(D, H, W)` the painted slices only.
        model: Loaded weights.
    """
    import imos

    kind = ImageKind.VIDEO if case.is_video else ImageKind.VOLUME
    # with the identity as affine the third array axis is the one that is walked: time, or across the axial plane
    image = Image(np.moveaxis(slices, 0, 2), np.eye(4), kind, case.name)
    session = imos.Session(model, image)
    session.paint_volume(np.moveaxis(painted, 0, 2), plane="time" if case.is_video else "axial")
    result = session.propagate()
    return Volume(np.moveaxis(result.labels, 2, 0).astype(np.uint8, copy=False), result.confidence)


# ---- many cases --------------------------------------------------------------------------------------------------


def run_cases(cases: Sequence[Case], experiment: Experiment, workers: int) -> Iterator[tuple[Case, Findings]]:
    """Judge cases, in several processes when asked for.

    Args:
        cases: What to judge.
        experiment: What to compare.
        workers: Processes; 1 works in this one.

    Yields:
        Every case with what came of it as it is finished, in no order.

    Raises:
        UserError: A case cannot be read, or the weights.
    """
    if workers == 1:
        model = experiment.choice.load() if experiment.needs_weights else None
        for case in cases:
            yield case, run_case(case, experiment, model)
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # the processes share the cores: one thread each
    # spawn: a fork would copy torch's and OpenCV's threads in whatever state they are
    context = multiprocessing.get_context("spawn")
    longest_first = sorted(cases, key=_size, reverse=True)
    with ProcessPoolExecutor(workers, context, _start_worker, (experiment,)) as pool:
        try:
            jobs = {pool.submit(_run_in_worker, case): case for case in longest_first}
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _size(case: Case) -> int:
    if case.is_video:
        return sum(path.stat().st_size for path in (case.path / "images").glob("*"))
    return case.path.stat().st_size if case.path.is_file() else 0


@dataclass
class _Worker:
    """What a worker process keeps between cases."""

    experiment: Experiment | None = None
    model: Model | None = None


_worker = _Worker()


def _start_worker(experiment: Experiment) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes; the parent alone has something to say
    parent = multiprocessing.parent_process()
    if parent is not None:  # when the parent is killed, nobody else would end this process
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    cv2.setNumThreads(1)
    _worker.experiment = experiment


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _run_in_worker(case: Case) -> Findings:
    experiment = _worker.experiment
    assert experiment is not None  # set by `_start_worker`
    if experiment.needs_weights and _worker.model is None:  # here and not at the start: an error reaches the parent
        import torch

        torch.set_num_threads(1)
        _worker.model = experiment.choice.load()
    return run_case(case, experiment, _worker.model)
