"""`python main.py finetune`: adapters for one kind of data, trained on a few labelled volumes, as a small file.

The key encoder stays as it is. Adapters (Conv-Adapter, as in iMOS) are added to the network and trained, and with them
what `--tune` says; the rest of the network is frozen. Weights of `xmem` are adapted in the same way, with the clips and
losses of their own training.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from imos.arguments import names, positive
from imos.errors import UserError
from imos.network.small import SmallNetwork, is_adapter
from imos.network.weights import WeightsInfo, read_weights, save_weights, sha256
from imos.propagation.model import (
    BUNDLED,
    ENCODER_PREFIX,
    NETWORK_PREFIX,
    SHARE,
    SMALL,
    XMEM,
    Share,
    load,
    with_adapter,
)
from imos.training.finetune_xmem import finetune_xmem
from imos.training.packing import Source, training_stacks
from imos.training.phases import Phase
from imos.training.run import VERSION, WEIGHTS, Machine, Run, Start, TrainSettings, train
from imos.training.sharing import processes, rank
from imos.training.taken import choose
from imos.training.train import (
    add_clip_arguments,
    add_machine_arguments,
    part,
    refuse_without_xmem,
    training_device,
)
from imos.training.tuning import Tune, hand_over

PHASES = (Phase("adapt", 1.0, 160, frames=4, largest_gap=2),)


_OF_THE_VALUE_ENCODER = "value_encoder."
_GATES = ("update.", "value_encoder.reinforce.", "out.")


def tunes(choice: Tune, name: str) -> bool:
    """Whether a parameter of the network is trained.

    `gates` are the sensory memory's gated updates and the last convolution, which says how far the floor is trusted;
    `decoder` is, as in iMOS, all but the encoders: the key projection too.
    """
    if is_adapter(name) or choice is Tune.ALL:
        return True
    if choice is Tune.DECODER:
        return not name.startswith(_OF_THE_VALUE_ENCODER)
    return choice is Tune.GATES and name.startswith(_GATES)


@dataclass(frozen=True)
class FineTuning(Start):
    """The start of a fine-tuning: it leaves only what differs from the base.

    Attributes:
        tune: What is trained.
        base_sha256: Digest of the weights that the adapters belong to.
        data: What they were trained on, for people.
        carried: Entries that an earlier adapter brought: they differ from the base, trained on or not.
    """

    tune: Tune = Tune.ADAPTERS
    base_sha256: str = ""
    data: str = ""
    carried: frozenset[str] = frozenset()

    def trains(self, name: str) -> bool:
        """Whether a parameter is trained."""
        return tunes(self.tune, name)

    def save(self, path: Path, network: Mapping[str, Tensor], sequences: int) -> None:
        """Write adapters and what else was trained."""
        self.write(path, network, sequences, Share())

    def write(self, path: Path, network: Mapping[str, Tensor], sequences: int, share: Share) -> None:
        """The same, with how much of the correction is taken."""
        tensors = {
            NETWORK_PREFIX + name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
            for name, tensor in network.items()
            if self.trains(name) or name in self.carried
        }
        tensors[SHARE] = torch.tensor(share)
        extra = {
            "kind": "adapter",
            "tune": self.tune.value,
            "base_sha256": self.base_sha256,
            "sequences": str(sequences),
        }
        save_weights(path, tensors, WeightsInfo(SMALL, VERSION, self.data, "of its data", extra))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `finetune`."""
    parser.add_argument("data", type=Path, help="folder of a collection with volumes.tsv and frames.tsv, or a pack")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="F.safetensors", help="adapter to write")
    parser.add_argument("--split", default="adapt", help="which rows of the tables (default: %(default)s)")
    parser.add_argument("--sets", type=names, default=(), metavar="S,…", help="only these data sets")
    parser.add_argument(
        "--hold-out-class", action="append", default=[], metavar="NAME", help="learn nothing from this label"
    )
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="weights to adapt")
    parser.add_argument("--adapter", type=Path, metavar="F", help="adapter of these weights to go on from")
    parser.add_argument(
        "--tune", choices=[tune.value for tune in Tune], default=Tune.DECODER.value,
        help="what is trained beside the adapters (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--steps", type=positive, help="optimiser steps in all (300; xmem: 10000)")
    parser.add_argument("--batch", type=positive, help="sequences a step (8; xmem: 4, shared by the processes)")
    parser.add_argument("--rate", type=float, help="highest learning rate (5e-4; xmem: 1e-5)")
    parser.add_argument(
        "--synthetic", type=float, default=0.0, metavar="SHARE",
        help="share of samples from synthetic volumes, against forgetting (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="folder of the run (default: beside the output)")
    add_machine_arguments(parser)
    add_clip_arguments(parser.add_argument_group("only with weights of the configuration xmem"))


def run(args: argparse.Namespace) -> int:
    """Fine-tune and write the adapter."""
    if args.output.suffix != ".safetensors":
        raise UserError(f"{args.output} is no .safetensors file. Give the adapter such a name.")
    if not args.output.absolute().parent.is_dir():
        raise UserError(f"cannot write {args.output}: {args.output.parent} is not a folder. Create it first.")
    content, carried = read_weights(args.weights), frozenset[str]()
    if args.adapter:
        content, carried = with_adapter(content, args.adapter), frozenset(read_weights(args.adapter).tensors)
    groups, without = args.sets, tuple(args.hold_out_class)
    source = Source(args.data, args.split, groups, without, holds_out=False, synthetic_share=args.synthetic)
    said = f"{args.data.name}/{args.split} {','.join(groups)}" + (f" without {', '.join(without)}" if without else "")
    if content.info.configuration == XMEM:
        finetune_xmem(args, content, source, said, carried)
        return 0
    refuse_without_xmem(args)
    if content.info.configuration != SMALL:
        raise UserError(f"{args.weights.name} holds no network of '{SMALL}' to adapt. Give weights that hold one.")
    base = load(args.weights, adapter=args.adapter, device="cpu")
    if base.network is None:
        raise UserError(f"{args.weights.name} holds no network of '{SMALL}' to adapt. Give weights that hold one.")
    torch.manual_seed(1)
    network = SmallNetwork(adapters=True)
    network.load_state_dict(base.network.state_dict(), strict=False)  # new adapters keep their start
    carried = frozenset(name.removeprefix(NETWORK_PREFIX) for name in carried if name.startswith(NETWORK_PREFIX))
    encoder = part(content.tensors, ENCODER_PREFIX)
    steps, batch = args.steps or 300, args.batch or 8
    settings = TrainSettings(
        steps=steps,
        batch=batch,
        fresh=max(1, batch // 2),
        rate=args.rate or 5e-4,
        warm_up=min(20, steps // 5),
        average=0.98,
        phases=PHASES,
        save_every=max(50, steps // 4),
    )
    start = FineTuning(
        encoder, network, tune=Tune(args.tune), base_sha256=sha256(args.weights), data=said, carried=carried
    )
    folder = args.folder or args.output.with_suffix(".run")
    machine = Machine(args.workers, args.bfloat16, args.minutes, min(args.held_out or 32, 32))
    with training_device(args.device) as device:
        current = Run(folder, start, settings, device)
        train(current, source, encoder, machine)
        if current.step == settings.steps:
            if rank() == 0:
                stacks = [views[0] for views in training_stacks(source)]
                kept, share = choose(base, current.averaged.cpu(), stacks)
                start.write(folder / WEIGHTS, kept.state_dict(), steps * batch * processes(), share)
            hand_over(folder / WEIGHTS, args.output, keeps_folder=args.folder is not None)
    return 0
