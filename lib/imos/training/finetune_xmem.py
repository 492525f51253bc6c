"""Fine-tuning of `xmem`, as iMOS does it: encoders frozen, their adapters, the key projection and the decoder trained.

The paper's last phase alone, on clips of the user's volumes. What comes out holds only what differs from the weights
that it was made for, adapters included, so that those weights with this file are a network with adapters.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from imos.network.config import is_adapter_entry
from imos.network.weights import XMEM, Weights, WeightsInfo, save_weights, sha256, xmem_from_weights
from imos.network.xmem import with_adapters
from imos.training.curriculum import PAPER_PHASES, Curriculum, resized
from imos.training.packing import Source
from imos.training.run import Machine
from imos.training.train import training_device
from imos.training.train_xmem import ENCODERS, HELD_OUT, WEIGHTS, ClipRun, ClipSettings, ClipStart, train_clips
from imos.training.tuning import Tune, hand_over

BATCH = 4
"""Clips a step, of iMOS."""
STEPS = 10_000
PAPER_STEPS = 110_000

_GATES = ("decoder.hidden_update.", "value_encoder.hidden_reinforce.", "decoder.pred.")


def tunes_xmem(choice: Tune, name: str) -> bool:
    """Whether an entry of the network is trained; `decoder` is iMOS's choice: key projection and decoder."""
    if is_adapter_entry(name) or choice is Tune.ALL:
        return True
    if choice is Tune.DECODER:
        return not name.startswith(ENCODERS)
    return choice is Tune.GATES and name.startswith(_GATES)


@dataclass(frozen=True)
class ClipTuning(ClipStart):
    """The start of a fine-tuning: it leaves only what differs from the base.

    Attributes:
        tune: What is trained.
        base_sha256: Digest of the weights that the adapters belong to.
        carried: Entries that an earlier adapter brought: they differ from the base, trained on or not.
    """

    tune: Tune = Tune.DECODER
    base_sha256: str = ""
    carried: frozenset[str] = frozenset()

    def trains(self, name: str) -> bool:
        """Whether a parameter is trained."""
        return tunes_xmem(self.tune, name)

    def save(self, path: Path, network: Mapping[str, Tensor], clips: int) -> None:
        """Write adapters and what else was trained."""
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in network.items()
            if self.trains(name) or name in self.carried
        }
        extra = {"kind": "adapter", "tune": self.tune.value, "base_sha256": self.base_sha256, "clips": str(clips)}
        save_weights(path, tensors, WeightsInfo(XMEM, "0.1.0", self.data, "of its data", extra))


def finetune_xmem(
    args: argparse.Namespace, weights: Weights, source: Source, data: str, carried: frozenset[str]
) -> None:
    """Fine-tune and write the adapter.

    Args:
        args: Of `finetune`.
        weights: To adapt; those of iMOS bring adapters, which are trained on.
        source: What to cut clips from.
        data: The same, for people.
        carried: Entries of the weights that an earlier adapter brought.
    """
    base = xmem_from_weights(weights)
    short = PAPER_PHASES[-1]
    phases = resized([replace(short, name="adapt", batch=BATCH)], args.size, args.frames, args.batch)
    curriculum = Curriculum(phases, args.steps or STEPS, PAPER_STEPS)
    rate = args.rate or ClipSettings.rate
    settings = ClipSettings(curriculum, rate, save_every=max(50, curriculum.steps // 10), at_once=args.at_once)
    torch.manual_seed(settings.seed)
    network = base if base.config.adapters else with_adapters(base)
    tune = Tune(args.tune)
    start = ClipTuning(network, data=data, tune=tune, base_sha256=sha256(args.weights), carried=carried)
    folder = args.folder or args.output.with_suffix(".run")
    machine = Machine(args.workers, args.bfloat16, args.minutes, args.held_out or HELD_OUT)
    with training_device(args.device) as device:
        current = ClipRun(folder, start, settings, device)
        train_clips(current, source, machine)
        if current.step == curriculum.steps:
            hand_over(folder / WEIGHTS, args.output, keeps_folder=args.folder is not None)
