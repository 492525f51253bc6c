"""`python main.py pack`: the stacks that training cuts from, as one file for a machine that has no collection.

Plain compressed arrays: the machine that trains needs no reader of medical formats.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_LZMA, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging.writing import check_folder_of
from imos.training.volumes import Stack, labelled_stacks, turned, unlabelled_stacks

LARGEST = 60 * 2**20
"""Bytes: what a lent machine takes beside the code."""


def write_pack(stacks: Iterable[Stack], path: Path, *, quickly: bool = False) -> int:
    """Write stacks to a file, whole or not at all.

    Args:
        stacks: What to write; taken one by one, so that they need not all be in memory.
        path: Where to.
        quickly: Ten times as fast and a third larger: for a file that does not travel.

    Returns:
        Its size in bytes.
    """
    temporary = path.with_name(f".{path.name}.part.npz")
    try:
        with temporary.open("wb") as file:
            # LZMA: a quarter smaller than savez_compressed, and as readable
            with ZipFile(file, "w", ZIP_DEFLATED if quickly else ZIP_LZMA, compresslevel=1) as pack:
                for number, stack in enumerate(stacks):
                    arrays = {"slices": stack.slices, "labels": stack.labels, "video": np.array(stack.is_video)}
                    if stack.volume is not None:
                        arrays["volume"] = np.array(stack.volume)
                    for name, array in arrays.items():
                        with pack.open(f"{name}{number}.npy", "w") as entry:
                            np.save(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path.stat().st_size


def read_pack(path: Path) -> list[Stack]:
    """Read stacks back.

    Raises:
        UserError: The file is missing or no pack.
    """
    try:
        with np.load(path) as content:
            count = sum(name.startswith("slices") for name in content)
            return [_read(content, number) for number in range(count)]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path} is not a pack of training stacks. Make one with: python main.py pack") from error


def _read(content: Mapping[str, NDArray[Any]], number: int) -> Stack:
    slices, labels, is_video = (content[f"{name}{number}"] for name in ("slices", "labels", "video"))
    volume = int(content[f"volume{number}"]) if f"volume{number}" in content else None
    return Stack.of(slices, labels, is_video=bool(is_video), volume=volume)


@dataclass(frozen=True, slots=True)
class Source:
    """What training cuts from.

    Attributes:
        path: Folder of a collection, or a pack.
        split: Rows of a collection's tables.
        groups: Only these data sets of a collection; empty for all.
        without: Categories of a collection that nothing is learned from.
        holds_out: Every eighth volume is kept for monitoring.
        synthetic_share: Of samples that come from synthetic volumes.
        supervoxel_share: Of the other samples: how many have supervoxels of volumes for objects, labelled or not.
    """

    path: Path
    split: str = "train"
    groups: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    holds_out: bool = True
    synthetic_share: float = 0.35
    supervoxel_share: float = 0.0


def training_stacks(source: Source) -> list[list[Stack]]:
    """Stacks of a source; each with the other planes of its volume.

    Raises:
        UserError: It cannot be read, or a category that is to be left out does not occur in it.
    """
    if source.path.is_file():
        stacks = read_pack(source.path)
    else:
        stacks = labelled_stacks(source.path, source.split, source.groups, source.without)
    return [views for stack in stacks if (views := turned(stack))]


def other_volumes(source: Source) -> list[Stack]:
    """Volumes of a source that nobody labelled.

    Raises:
        UserError: They cannot be read.
    """
    if source.path.is_file():
        return [stack for stack in read_pack(source.path) if not stack.labels.any()]
    return unlabelled_stacks(source.path, source.split, source.groups)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `pack`."""
    parser.add_argument("data", type=Path, help="folder of a collection with volumes.tsv and frames.tsv")
    parser.add_argument("out", type=Path, help="file to write, .npz")


def run(args: argparse.Namespace) -> int:
    """Pack the training split."""
    check_folder_of(args.out)
    stacks = [*labelled_stacks(args.data), *unlabelled_stacks(args.data)]
    size = write_pack(stacks, args.out)
    print(f"{len(stacks)} stacks, {size / 2**20:.1f} MiB")
    if size > LARGEST:
        raise UserError(f"{args.out} is larger than {LARGEST // 2**20} MiB. Leave cases out.")
    return 0
