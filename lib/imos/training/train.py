"""`python main.py train`: trains the network of `small` on samples that worker processes make.

`--configuration xmem` trains the paper's network instead (`train_xmem`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed

from imos.arguments import positive, rate, share
from imos.errors import UserError
from imos.network.small import SmallNetwork
from imos.network.weights import load_strictly, read_weights
from imos.propagation.model import (
    BUNDLED,
    ENCODER_PREFIX,
    FLOOR_JUDGE_PREFIX,
    JUDGE_PREFIX,
    NETWORK_PREFIX,
    SMALL,
    XMEM,
)
from imos.training.packing import Source
from imos.training.phases import SMOKE_PHASES, Phase, parse_phases
from imos.training.run import Machine, Run, Start, TrainSettings, train

SMOKE = TrainSettings(steps=150, batch=6, fresh=2, rate=2e-3, warm_up=10, phases=SMOKE_PHASES, save_every=15)
"""All phases in a minute or two; says nothing about quality."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `train`."""
    defaults = TrainSettings()
    parser.add_argument("data", type=Path, help="folder of a collection with volumes.tsv and frames.tsv, or a pack")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the run; an unfinished run is taken up")
    parser.add_argument(
        "--configuration", choices=[SMALL, XMEM], default=SMALL, help="which network (default: %(default)s)"
    )
    parser.add_argument("--init", type=Path, help="weights to begin with; default: a new network")
    parser.add_argument("--steps", type=positive, help=f"optimiser steps in all ({defaults.steps}; xmem: the paper's)")
    parser.add_argument(
        "--batch", type=positive,
        help=f"sequences a step ({defaults.batch} a process; xmem: 16 stills or 8 sequences, shared by the processes)",
    )  # fmt: skip
    parser.add_argument(
        "--phases", type=_phases, metavar="NAME:SHARE:GRID:FRAMES:GAP,…",
        help="what is cut when; gap 0: stills with synthetic motion",
    )  # fmt: skip
    parser.add_argument("--rate", type=rate, help=f"highest learning rate ({defaults.rate}; xmem: 1e-5)")
    parser.add_argument("--save-every", type=positive, help="steps between checkpoints")
    parser.add_argument(
        "--supervoxels", type=share, default=0.0, metavar="SHARE",
        help="share of real samples whose objects are supervoxels of volumes, labelled or not (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="all phases in two minutes, to see that it runs")
    add_machine_arguments(parser)
    only = parser.add_argument_group("only with --configuration xmem")
    only.add_argument(
        "--adapters", action="store_true",
        help="add Conv-Adapters; with --init the encoders stay frozen around them, as in iMOS",
    )  # fmt: skip
    add_clip_arguments(only)


def add_clip_arguments(parser: argparse._ArgumentGroup) -> None:
    """Options of `xmem` that `train` and `finetune` share."""
    parser.add_argument("--size", type=positive, help="pixels a side (384)")
    parser.add_argument("--frames", type=positive, help="slices a sequence (8; stills 3)")
    parser.add_argument("--at-once", type=positive, help="sequences in memory at a time; gradients are added up")


def refuse_without_xmem(args: argparse.Namespace) -> None:
    """Raises a `UserError` for an option that only `xmem` has."""
    for option in ("adapters", "size", "frames", "at_once"):
        if getattr(args, option, None):
            raise UserError(f"--{option.replace('_', '-')} is for the configuration '{XMEM}'. Leave it out.")


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that `train` and `finetune` share."""
    defaults = Machine()
    parser.add_argument("--workers", type=positive, default=defaults.workers, help="processes that make samples")
    parser.add_argument("--held-out", type=positive, help="sequences judged at a checkpoint")
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; the run can go on later")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--bfloat16", action="store_true", help="convolutions in bfloat16: a GPU's, or a CPU's that gains by it"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or go on training."""
    if args.configuration == XMEM:
        from imos.training import train_xmem  # it uses this module

        return train_xmem.run(args)
    refuse_without_xmem(args)
    defaults = TrainSettings()
    batch = args.batch or defaults.batch
    settings = TrainSettings(
        steps=args.steps or defaults.steps,
        batch=batch,
        fresh=max(1, batch // 3),
        rate=args.rate or defaults.rate,
        phases=args.phases or defaults.phases,
        save_every=args.save_every or defaults.save_every,
    )
    machine = Machine(args.workers, args.bfloat16, args.minutes, args.held_out or Machine().held_out)
    if args.smoke:
        settings, machine = SMOKE, Machine(workers=1, held_out=16)
    tensors = read_weights(BUNDLED).tensors
    encoder = part(tensors, ENCODER_PREFIX)
    judge = {name: tensor for name, tensor in tensors.items() if name.startswith((JUDGE_PREFIX, FLOOR_JUDGE_PREFIX))}
    with training_device(args.device) as device:
        torch.manual_seed(settings.seed)
        network = SmallNetwork()
        if args.init is not None:
            load_strictly(network, part(read_weights(args.init).tensors, NETWORK_PREFIX), args.init.name)
        train(
            Run(args.folder, Start(encoder, network, passed_on=judge), settings, device),
            Source(args.data, supervoxel_share=args.supervoxels),
            encoder,
            machine,
        )
    return 0


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries under a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def training_device(choice: str) -> Iterator[torch.device]:
    """The device to train on; under torchrun, this process's own, and the group of processes while it is held.

    Args:
        choice: `auto`, `cpu` or `cuda`.

    Raises:
        UserError: There is no such device.
    """
    cuda = torch.cuda.is_available()
    if choice == "cuda" and not cuda:
        raise UserError("There is no CUDA GPU that this PyTorch can use. Choose --device cpu or auto.")
    use_cuda = cuda and choice != "cpu"
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if use_cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if use_cuda else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def _phases(text: str) -> tuple[Phase, ...]:
    try:
        return parse_phases(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
