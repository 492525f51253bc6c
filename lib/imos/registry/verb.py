"""`python main.py weights`: look at a project's versions, choose one, carry one to another server."""

from __future__ import annotations

import argparse
from pathlib import Path

from imos.errors import UserError
from imos.registry.places import models_folder
from imos.registry.store import Registry

_DONE = "asked for on the command line"


_OPERANDS = {
    "list": (),
    "activate": ("VERSION",),
    "rollback": (),
    "export": ("VERSION", "FILE"),
    "import": ("FILE",),
}
"""What is done, and what must be named for it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `weights`."""
    parser.add_argument(
        "what",
        choices=_OPERANDS,
        help="list: all versions, their figures, and why they are used or not; activate VERSION (v0001, … or base) and"
        " rollback: from the next run on; export VERSION F.safetensors, or with --bundle a new folder; import FILE: a"
        " version that another server exported, not used yet",
    )
    parser.add_argument("operands", nargs="*", metavar="VERSION|FILE", help="what it is done with")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--studies", type=Path, metavar="DIR", help="folder that the server serves")
    place.add_argument("--models", type=Path, metavar="DIR", help="folder of the versions (the server's --conf models)")
    parser.add_argument("--reason", default=_DONE, help="kept with a move (default: %(default)s)")
    parser.add_argument("--bundle", action="store_true", help="export a MONAI bundle with the weights it belongs to")
    parser.add_argument("--weights", type=Path, help="with --bundle: those weights (default: the shipped ones)")


def run(args: argparse.Namespace) -> int:
    """Do it. The server notices by itself."""
    wanted = _OPERANDS[args.what]
    if len(args.operands) != len(wanted):
        raise UserError(f"say it as: weights {' '.join((args.what, *wanted))} --studies DIR")
    registry = Registry(_folder(args))
    if args.what == "list":
        _print(registry)
    elif args.what == "activate":
        registry.activate(args.operands[0], args.reason)
        print(f"{args.operands[0]} is in use now")
    elif args.what == "rollback":
        print(f"{registry.rollback(args.reason)} is in use now")
    elif args.what == "import":
        record = registry.bring(Path(args.operands[0]))
        print(f"{record.name}: {record.reason}. Use it with: weights activate {record.name}")
    elif args.bundle:
        _write_bundle(registry, args.operands[0], Path(args.operands[1]), args.weights)
    else:
        registry.export(args.operands[0], Path(args.operands[1]))
    return 0


def _folder(args: argparse.Namespace) -> Path:
    folder: Path = args.models or models_folder(args.studies)
    place: Path = args.models or args.studies
    if not place.is_dir():
        raise UserError(f"{place} is not a folder. Give the one that the server serves, or its folder of versions.")
    return folder


def _write_bundle(registry: Registry, name: str, target: Path, weights: Path | None) -> None:
    from imos.registry.bundle import write_bundle

    adapter = registry.adapter(name)
    if adapter is None:
        raise UserError("The base is no version. Name one of: " + ", ".join(registry.names()))
    if weights is None:
        from imos.propagation.model import BUNDLED

        weights = BUNDLED
    write_bundle(target, weights, adapter, registry.record(name))


def _print(registry: Registry) -> None:
    print(f"{registry.champion} is in use\n")
    rows: list[tuple[str, ...]] = [
        ("version", "from", "state", "labels", "volumes", "J&F", "champion", "base", "published", "why")
    ]
    for version in registry.versions():
        record, figures = version.record, version.record.figures
        means = (figures.candidate, figures.champion, figures.base)
        rows.append(
            (
                *(record.name, record.parent, str(version.state)),
                f"{len(record.new)}+{len(record.replay)}",
                str(figures.volumes),
                *("-" if mean is None else f"{mean:.3f}" for mean in means),
                *(record.time[:16].replace("T", " "), version.reason),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
