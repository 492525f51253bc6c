"""`python main.py finetune`: adapters for one kind of data, trained on a few labelled volumes, as a small file.

Three things are learned for `small`. Kinds: what the labelled objects look like, for the target model; that takes
seconds. Adapters (Conv-Adapter, as in iMOS) in the decoder, and with them what `--tune` says, on the network's own
passes through the volumes; the rest of the network is frozen. How far to go, by the number of volumes and by whole
passes. Weights of `xmem` are adapted with the clips and losses of their own training.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imos.arguments import names, positive, rate, share
from imos.errors import UserError
from imos.imaging.writing import check_folder_of
from imos.network.small import SmallNetwork, is_adapter
from imos.network.weights import WeightsInfo, read_weights, save_weights, sha256
from imos.propagation.existence import Judge
from imos.propagation.kinds import MOST, Kind, to_tensors
from imos.propagation.likeness import Seen
from imos.propagation.model import (
    BUNDLED,
    ENCODER_PREFIX,
    JUDGE_PREFIX,
    NETWORK_PREFIX,
    SMALL,
    XMEM,
    Model,
    load,
    with_adapter,
)
from imos.propagation.taught import Taught
from imos.training.finetune_xmem import finetune_xmem
from imos.training.known import kinds_of, seen_in, taught_in, thinned
from imos.training.lifeline import end_with_parent
from imos.training.on_policy import train_on_policy
from imos.training.packing import Source, training_stacks
from imos.training.rollouts import Course
from imos.training.run import VERSION, WEIGHTS, Machine, Run, Start, TrainSettings
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
from imos.training.volumes import Stack, synthetic_stack, volumes_of

STEPS_A_VOLUME, FEWEST_STEPS, MOST_STEPS = 150, 240, 1200
"""Optimiser steps of `small`: where there is more to learn, it takes longer."""

_FINE = ("up8.", "up4.", "skip8.", "skip4.", "block8.", "block4.", "norm4.", "out.")
_COARSE = ("in16.", "block16.")


def tunes(choice: Tune, name: str) -> bool:
    """Whether a parameter of the network is trained.

    `gates` is the last convolution, which says how far the floor is trusted; `decoder` the decoder's two finer levels.
    The coarsest one, of which the heads judge whether the object is there, is in `all` alone; the encoders never are.
    """
    if is_adapter(name):
        return True
    if choice is Tune.GATES:
        return name.startswith("out.")
    if choice is Tune.DECODER:
        return name.startswith(_FINE)
    return choice is Tune.ALL and name.startswith(_FINE + _COARSE)


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
        self.write(path, network, sequences, ())

    def write(
        self,
        path: Path,
        network: Mapping[str, Tensor],
        sequences: int,
        kinds: Sequence[Kind],
        seen: Seen | None = None,
        taught: Taught | None = None,
        judge: Judge | None = None,
    ) -> None:
        """The same, with what is known of the labelled objects, what it is for, and how sure it is."""
        tensors = {
            NETWORK_PREFIX + name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
            for name, tensor in network.items()
            if self.trains(name) or name in self.carried
        }
        tensors |= to_tensors(kinds)
        for known in (seen, taught):
            tensors |= {} if known is None else known.to_tensors()
        if judge is not None:
            fitted = {"existence": judge.existence, "quality": judge.quality}
            tensors |= {JUDGE_PREFIX + name: torch.from_numpy(weights).float() for name, weights in fitted.items()}
        extra = {
            "kind": "adapter",
            "tune": self.tune.value,
            "base_sha256": self.base_sha256,
            "sequences": str(sequences),
        }
        save_weights(path, tensors, WeightsInfo(SMALL, VERSION, self.data, "of its data", extra))


def steps_for(volumes: int) -> int:
    """Optimiser steps of `small`, by how many volumes it learns from."""
    return min(max(STEPS_A_VOLUME * volumes, FEWEST_STEPS), MOST_STEPS)


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
    parser.add_argument("--steps", type=positive, help="optimiser steps (150 a volume, 240 to 1200; xmem: 10000)")
    parser.add_argument("--batch", type=positive, help="slices a step (12; xmem: 4 sequences, shared by the processes)")
    parser.add_argument("--rate", type=rate, help="highest learning rate (2e-4; xmem: 1e-5)")
    parser.add_argument(
        "--synthetic", type=share, default=0.0, metavar="SHARE",
        help="share of passes through synthetic volumes, against forgetting (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="folder of the run (default: beside the output)")
    add_machine_arguments(parser)
    add_clip_arguments(parser.add_argument_group("only with weights of the configuration xmem"))


def run(args: argparse.Namespace) -> int:
    """Fine-tune and write the adapter."""
    if "LOCAL_RANK" in os.environ:  # torchrun's processes are in sessions of their own and would outlive it
        end_with_parent()
    if args.output.suffix != ".safetensors":
        raise UserError(f"{args.output} is no .safetensors file. Give the adapter such a name.")
    check_folder_of(args.output)
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
    for option in ("held_out", "bfloat16"):
        if getattr(args, option):
            raise UserError(f"--{option.replace('_', '-')} is for the configuration '{XMEM}'. Leave it out.")
    if content.info.configuration != SMALL:
        raise UserError(f"{args.weights.name} holds no network of '{SMALL}' to adapt. Give weights that hold one.")
    champion = load(args.weights, adapter=args.adapter, device="cpu")
    base = champion.for_everything()
    if base.network is None:
        raise UserError(f"{args.weights.name} holds no network of '{SMALL}' to adapt. Give weights that hold one.")
    torch.manual_seed(1)
    network = SmallNetwork(adapters=True)
    network.load_state_dict(base.network.state_dict(), strict=False)  # new adapters keep their start
    carried = frozenset(name.removeprefix(NETWORK_PREFIX) for name in carried if name.startswith(NETWORK_PREFIX))
    encoder = part(content.tensors, ENCODER_PREFIX)
    stacks = [views[0] for views in training_stacks(source)]
    found = [kinds_of(base.steps, stack) for stack in stacks]
    courses, kinds = known_courses(base, stacks, found)
    steps = args.steps or steps_for(volumes_of([course.stack for course in courses]))
    settings = TrainSettings(
        steps=steps,
        batch=args.batch or 12,
        rate=args.rate or 2e-4,
        warm_up=min(10, steps // 5),
        average=0.96,
    )
    start = FineTuning(
        encoder, network, tune=Tune(args.tune), base_sha256=sha256(args.weights), data=said, carried=carried
    )
    folder = args.folder or args.output.with_suffix(".run")
    machine = Machine(minutes=args.minutes)
    with training_device(args.device) as device:
        current = Run(folder, start, settings, device)
        train_on_policy(current, base, [*courses, *synthetic_courses(len(courses), args.synthetic)], machine)
        if machine.minutes is None or current.step == settings.steps:
            if rank() == 0:
                kept = choose(base, current.averaged.cpu(), courses)
                count = current.step * settings.batch * processes()
                # An adapter that was used for everything stays so.
                seen, taught = champion.seen, champion.taught
                if not args.adapter or seen is not None:
                    seen = seen_in(base.steps, stacks, seen)
                if not args.adapter or taught is not None:
                    taught = taught_in(base.steps, stacks, found, taught)
                known = kinds if kept.knows else base.kinds
                start.write(folder / WEIGHTS, kept.network.state_dict(), count, known, seen, taught, kept.judge)
            hand_over(folder / WEIGHTS, args.output, keeps_folder=args.folder is not None)
        elif rank() == 0:
            done = f"{current.step} of {settings.steps} steps"
            print(f"time is up after {done}: {args.output.name} is not written; the same command goes on from {folder}")
    return 0


def known_courses(
    base: Model, stacks: Sequence[Stack], found: Sequence[Sequence[Kind]]
) -> tuple[list[Course], list[Kind]]:
    """What is walked, each with what is known of other volumes, and all that is known.

    Args:
        base: May know kinds already.
        stacks: To walk.
        found: Kinds of each of them.
    """

    def others(stack: Stack) -> list[Kind]:
        pairs = zip(stacks, found, strict=True)
        return [kind for other, kinds in pairs if not other.is_of_volume(stack) for kind in kinds]

    courses = [Course(stack, tuple(thinned(others(stack), MOST))) for stack in stacks]
    new = thinned([kind for kinds in found for kind in kinds], MOST)
    return courses, [*new, *thinned(base.kinds, MOST - len(new))]


def synthetic_courses(courses: int, share: float) -> list[Course]:
    """Synthetic volumes to walk beside the labelled ones.

    Args:
        courses: Labelled ones.
        share: Of all passes that goes through synthetic ones; what is above .9 counts as that.

    Returns:
        One at least where the share is above 0. Weighted: beside one labelled volume one would be half of all passes.
    """
    walked = courses * min(share, 0.9) / (1 - min(share, 0.9))
    count = max(1, round(walked)) if share > 0 else 0
    return [Course(synthetic_stack(np.random.default_rng([1, number])), (), walked / count) for number in range(count)]
