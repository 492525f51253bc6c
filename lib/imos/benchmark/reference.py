"""`xmem` against a checkout of XMem: the same weights and slices, in turns, in one process.

Speed does not depend on the weights, so both networks get the same made-up ones (rule.py), and their probabilities are
compared. Turns alternate, so that a machine whose speed drifts drifts for both.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imos.benchmark.cases import make_case
from imos.benchmark.rule import rule_tensor
from imos.errors import UserError
from imos.network.inference import InferenceCore, InferenceSettings
from imos.network.quickened import quickened
from imos.network.xmem import XMem

SIDE = 480
FRAMES = 12
OBJECTS = (1, 8)
_NEEDED = ("model/network.py", "inference/inference_core.py")
_SETTINGS = {
    "hidden_dim": 64,
    "key_dim": 64,
    "value_dim": 512,
    "top_k": 30,
    "mem_every": 5,
    "deep_update_every": -1,
    "enable_long_term": True,
    "enable_long_term_count_usage": True,
    "max_mid_term_frames": 10,
    "min_mid_term_frames": 5,
    "num_prototypes": 128,
    "max_long_term_elements": 10_000,
    "single_object": False,
}


def compare(checkout: Path, repeats: int, *, quick: bool) -> Iterator[str]:
    """Time both and yield a line for each number of objects.

    Args:
        checkout: Folder of XMem's sources.
        repeats: Turns.
        quick: Half as many slices.

    Raises:
        UserError: The folder is no checkout of XMem, or what it makes is no number.
    """
    missing = [name for name in _NEEDED if not (checkout / name).is_file()]
    if missing:
        raise UserError(f"{checkout} is no checkout of XMem: there is no {missing[0]}. Clone it, and name its folder.")
    network = _network()
    theirs, core = _reference(checkout, network.state_dict())
    ours = quickened(network)
    frames = FRAMES // 2 if quick else FRAMES
    yield f"XMem at {SIDE}×{SIDE}, {frames} slices, {torch.get_num_threads()} threads, float32"
    yield "objects  ours s/slice  reference s/slice  reference/ours (least … most)  largest difference"
    for objects in OBJECTS:
        slices, masks = _sequence(frames, objects)
        pairs, difference = [], 0.0
        for _ in range(repeats):
            seconds, found = _run(InferenceCore(ours, InferenceSettings()), slices, masks)
            their_core = core(theirs, dict(_SETTINGS))
            their_core.set_all_labels(list(range(1, objects + 1)))
            their_seconds, expected = _run(their_core, slices, masks)
            pairs.append((seconds, their_seconds))
            differences = (found - expected).abs()
            if not differences.isfinite().all():
                raise UserError(f"{checkout} made probabilities that are no numbers. Give a checkout that works.")
            difference = max(difference, float(differences.max()))
        mine, other = (median(side) / (frames - 1) for side in zip(*pairs, strict=True))
        ratios = sorted(theirs_ / ours_ for ours_, theirs_ in pairs)
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"
        yield f"{objects:7}  {mine:12.3f}  {other:17.3f}  {spread:>29}  {difference:.1e}"


def _network() -> XMem:
    network = XMem()
    weights = {name: rule_tensor(name, list(tensor.shape)) for name, tensor in network.state_dict().items()}
    network.load_state_dict(weights)
    return network.eval()


def _reference(checkout: Path, weights: dict[str, Tensor]) -> tuple[Any, Any]:
    """The reference's network with these weights, and its inference core."""
    sys.path.insert(0, str(checkout.resolve()))
    try:
        from inference.inference_core import InferenceCore as Core
        from model import resnet
        from model.network import XMem as Network
    except ImportError as error:
        raise UserError(f"{checkout} cannot be imported: {error}.") from error
    finally:
        sys.path.remove(str(checkout.resolve()))
    for name in ("resnet18", "resnet50"):  # their first weights would come from the web, only to be replaced
        make = getattr(resnet, name)
        setattr(resnet, name, lambda make=make, **options: make(**options | {"pretrained": False}))
    with contextlib.redirect_stdout(io.StringIO()):
        network = Network(dict(_SETTINGS)).eval()
        network.load_state_dict(weights)
    return network, Core


def _sequence(frames: int, objects: int) -> tuple[list[Tensor], Tensor]:
    case = make_case(SIDE, frames, objects)
    pictures = torch.from_numpy(case.voxels.astype(np.float32)).div_(400).sub_(1)
    slices = [picture.expand(3, -1, -1).contiguous() for picture in pictures]
    labels = torch.from_numpy(case.labels[0].astype(np.int64))
    return slices, functional.one_hot(labels, objects + 1).permute(2, 0, 1)[1:].float()


@torch.inference_mode()
def _run(core: Any, slices: list[Tensor], masks: Tensor) -> tuple[float, Tensor]:
    """Seconds without the first slice, and the probabilities of the last one."""
    objects = list(range(1, len(masks) + 1))
    core.step(slices[0], masks, objects)
    started = perf_counter()
    for picture in slices[1:]:
        probabilities: Tensor = core.step(picture)
    return perf_counter() - started, probabilities
