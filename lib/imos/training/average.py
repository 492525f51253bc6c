"""`python main.py average`: the mean of several trained weights, better than each of them (docs/training.md)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from imos.arguments import shares
from imos.errors import UserError
from imos.imaging.writing import check_folder_of
from imos.network.weights import Weights, WeightsInfo, read_weights, save_weights
from imos.propagation.model import ENCODER_PREFIX, NETWORK_PREFIX, SHARE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `average`."""
    parser.add_argument("weights", type=Path, nargs="+", metavar="F", help="weights that began alike; two or more")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="F", help="weights to write (.safetensors)")
    parser.add_argument(
        "--share",
        type=shares,
        metavar="V,G,C,E",
        help="how much of the correction is taken: in volumes, gray and colour videos, and more for edges (as before)",
    )


def run(args: argparse.Namespace) -> int:
    """Read, average, write."""
    if args.output.suffix != ".safetensors":
        raise UserError(f"-o {args.output}: the name must end in .safetensors.")
    check_folder_of(args.output)
    if any(args.output.exists() and args.output.samefile(path) for path in args.weights if path.exists()):
        raise UserError(f"-o {args.output} would overwrite weights that are averaged. Choose another name.")
    contents = [read_weights(path) for path in args.weights]
    first = contents[0]
    tensors = average(contents)
    if args.share is not None:
        tensors[SHARE] = torch.tensor(args.share)
    sequences = sum(int(content.info.extra.get("sequences", 0)) for content in contents)
    info = first.info
    extra = {**info.extra, "sequences": str(sequences)}
    save_weights(args.output, tensors, WeightsInfo(info.configuration, info.version, info.data, info.licence, extra))
    print(f"{args.output}: mean of {len(contents)}; fit its judge next: main.py judge DATA OUT --weights {args.output}")
    return 0


def average(contents: Sequence[Weights]) -> dict[str, Tensor]:
    """The first weights with the mean of all networks in place of its own, in half precision as runs store it.

    Raises:
        UserError: They are one, of different networks, or their frozen encoders differ.
    """
    first = contents[0]
    if len(contents) < 2:
        raise UserError(f"{first.path.name} is all there is. Give two weights or more.")
    trained = sorted(name for name in first.tensors if name.startswith(NETWORK_PREFIX))
    frozen = {name for name in first.tensors if name.startswith(ENCODER_PREFIX)}
    for other in contents[1:]:
        names = sorted(name for name in other.tensors if name.startswith(NETWORK_PREFIX))
        if names != trained or any(other.tensors[name].shape != first.tensors[name].shape for name in names):
            raise UserError(f"{other.path.name} holds another network than {first.path.name}.")
        if any(not torch.equal(other.tensors[name], first.tensors[name]) for name in frozen):
            raise UserError(f"{other.path.name} has another key encoder than {first.path.name}.")
    tensors = dict(first.tensors)
    for name in trained:
        tensors[name] = torch.stack([content.tensors[name] for content in contents]).mean(0)
    return {
        name: tensor.half() if name.startswith((ENCODER_PREFIX, NETWORK_PREFIX)) else tensor
        for name, tensor in tensors.items()
    }
