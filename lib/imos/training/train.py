"""`python main.py train`: trains the network of `small` on samples that worker processes make."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed

from imos.errors import UserError
from imos.network.small import SmallNetwork
from imos.network.weights import load_strictly, read_weights
from imos.propagation.model import BUNDLED, ENCODER_PREFIX, JUDGE_PREFIX, NETWORK_PREFIX
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
    parser.add_argument("--init", type=Path, help="weights to begin with; default: a new network")
    parser.add_argument("--steps", type=positive, default=defaults.steps, help="optimiser steps in all")
    parser.add_argument("--batch", type=positive, default=defaults.batch, help="sequences a step")
    parser.add_argument(
        "--phases", type=_phases, default=defaults.phases, metavar="NAME:SHARE:GRID:FRAMES:GAP,…",
        help="what is cut when; gap 0: stills with synthetic motion",
    )  # fmt: skip
    parser.add_argument("--rate", type=float, default=defaults.rate, help="highest learning rate")
    parser.add_argument("--save-every", type=positive, default=defaults.save_every, help="steps between checkpoints")
    parser.add_argument("--smoke", action="store_true", help="all phases in two minutes, to see that it runs")
    add_machine_arguments(parser)


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that `train` and `finetune` share."""
    defaults = Machine()
    parser.add_argument("--workers", type=positive, default=defaults.workers, help="processes that make samples")
    parser.add_argument("--held-out", type=positive, default=defaults.held_out, help="sequences judged at a checkpoint")
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; the run can go on later")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--bfloat16", action="store_true", help="convolutions in bfloat16: a GPU's, or a CPU's that gains by it"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or go on training."""
    settings = TrainSettings(
        steps=args.steps,
        batch=args.batch,
        fresh=max(1, args.batch // 3),
        rate=args.rate,
        phases=args.phases,
        save_every=args.save_every,
    )
    machine = Machine(args.workers, args.bfloat16, args.minutes, args.held_out)
    if args.smoke:
        settings, machine = SMOKE, Machine(workers=1, held_out=16)
    tensors = read_weights(BUNDLED).tensors
    encoder = part(tensors, ENCODER_PREFIX)
    judge = {name: tensor for name, tensor in tensors.items() if name.startswith(JUDGE_PREFIX)}
    with training_device(args.device) as device:
        torch.manual_seed(settings.seed)
        network = SmallNetwork()
        if args.init is not None:
            load_strictly(network, part(read_weights(args.init).tensors, NETWORK_PREFIX), args.init.name)
        train(
            Run(args.folder, Start(encoder, network, passed_on=judge), settings, device),
            Source(args.data),
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


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _phases(text: str) -> tuple[Phase, ...]:
    try:
        return parse_phases(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
