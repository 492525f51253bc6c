"""The command line: one function a verb.

Other programs call it (design, section 4), so it keeps to a few rules. What the user did wrong is one line on standard
error and exit code 2; a fault of ours is one line and 1, with `--debug` the traceback; Ctrl-C is 130 and leaves no
partial file. Nothing heavy is imported before it is needed: `--help` answers without torch and numpy.

A new verb is one row of `VERBS`: a module that has `add_arguments(parser)` and `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn, Self, TextIO

from imos.errors import UserError

if TYPE_CHECKING:
    from imos.propagation.result import Progress, Result


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: where it lives, imported only when it is called.

    Attributes:
        summary: One line for `--help`.
        module: Dotted name of the module.
        add_arguments: Name of the function that declares the arguments on a parser.
        run: Name of the function that takes the parsed arguments and returns the exit code.
    """

    summary: str
    module: str
    add_arguments: str = "add_arguments"
    run: str = "run"


VERBS: dict[str, Verb] = {
    "propagate": Verb(
        "carry painted slices through the whole volume or video", __name__, "propagate_arguments", "propagate"
    ),
    "dice": Verb("compare two label maps: Dice per label and the mean", __name__, "dice_arguments", "dice"),
    "serve": Verb("start the MONAI Label server with the iMOS app", __name__, "serve_arguments", "serve"),
    "batch": Verb("propagate thousands of studies from a list, side by side", "imos.batch.batch"),
    "prepare": Verb("make a collection of a public data set, as it is published", "imos.datasets.prepare"),
    "pack": Verb("pack the training stacks of a collection into one file", "imos.training.packing"),
    "judge": Verb("fit when an object has ended and how good a mask is", "imos.training.judge"),
    "train": Verb("train a network, or go on with a run", "imos.training.train"),
    "average": Verb("the mean of several trained weights", "imos.training.average"),
    "finetune": Verb("train adapters for one kind of data on a few labelled volumes", "imos.training.finetune"),
    "weights": Verb("a project's versions: list, activate, roll back, export, import", "imos.registry.verb"),
    "simulate": Verb("what the learning loop gains on a labelled collection", "imos.learning.simulation"),
    "benchmark": Verb("time and memory of propagation on this machine", "imos.benchmark.benchmark"),
    "evaluate": Verb("judge weights on a labelled collection, beside baselines", "imos.evaluation.evaluate"),
}

PLANES = ("auto", "axial", "coronal", "sagittal", "time")
DEVICES = ("auto", "cpu", "cuda")

INTERRUPTED = 130
USER_ERROR = 2
FAULT = 1

# What the machine refuses and the user can mend: a full disk, a read-only folder, a file without rights, …
_USERS_ERRNO = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The words after the program's name; those of this process by default.

    Returns:
        The exit code: 0, 2 the user's mistake (one line on stderr), 1 a fault of ours, 130 Ctrl-C.
    """
    if argv is None:
        _end_tidily_on_sigterm()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED, debug)
    except UserError as error:
        return _complain(str(error), USER_ERROR, debug)
    except BrokenPipeError:
        # The reader of our standard output has gone (`| head`): nothing to tell anyone, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except MemoryError:
        return _complain("out of memory; propagate fewer objects or slices (--first, --last) at a time", FAULT, debug)
    except OSError as error:
        if error.errno in _USERS_ERRNO:
            return _complain(f"{error.filename or 'a file'}: {error.strerror}", USER_ERROR, debug)
        return _complain(f"{_fault(error)}; --debug shows where", FAULT, debug)
    except Exception as error:
        return _complain(f"{_fault(error)}; --debug shows where", FAULT, debug)


def program() -> NoReturn:
    """`main` as a process of its own.

    The process leaves as soon as everything that was registered for its end is done: the interpreter would go on for
    half a second to take torch down piece by piece (docs/performance.md).
    """
    codes: list[int] = []

    def leave() -> None:
        if codes:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])

    atexit.register(leave)  # the first one registered is the last one called
    codes.append(main())
    sys.exit(codes[0])


def _end_tidily_on_sigterm() -> None:
    """Make `kill` an exception, so that temporary files are taken away as after Ctrl-C."""
    import signal

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else USER_ERROR
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"imos {version('imos')}")
        return 0
    name, rest = words[0], words[1:]
    verb = VERBS.get(name)
    if verb is None:
        what = "option" if name.startswith("-") else "verb"
        near = _nearest(name, VERBS)
        hint = f"did you mean {near}?" if near else f"the verbs are {', '.join(VERBS)}."
        raise UserError(f"there is no {what} {name!r}: {hint}")

    from importlib import import_module

    module = import_module(verb.module)
    add_arguments: Callable[[argparse.ArgumentParser], None] = getattr(module, verb.add_arguments)
    run: Callable[[argparse.Namespace], int] = getattr(module, verb.run)
    summary = verb.summary[0].upper() + verb.summary[1:] + "."
    parser = _Parser(prog=f"{_program()} {name}", description=summary, allow_abbrev=False)
    add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks and warnings")
    args = parser.parse_args(rest)
    with nullcontext() if args.debug else _quiet():
        return run(args)


def _overview() -> str:
    width = max(len(name) for name in VERBS)
    rows = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    program = _program()
    head = f"usage: {program} VERB …\n\nPaint one slice, get the volume.\n"
    tail = f"\n{program} VERB --help explains a verb."
    return "\n".join([head, *rows, tail])


def _program() -> str:
    return "python main.py" if os.path.basename(sys.argv[0]) == "main.py" else "imos"


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line with a suggestion, raised as `UserError`."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # First, because argparse would name what is missing (`-o`) and not what was mistyped (`--ouput`).
        for word in args or ():
            if word == "--":
                break
            option = word.split("=", 1)[0]
            if option.startswith("--") and option not in self._option_string_actions:
                options = [name for name in self._option_string_actions if name.startswith("--")]
                near = _nearest(option, options)
                self.error(f"there is no option {option}" + (f": did you mean {near}?" if near else ""))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if message.endswith("?"):
            raise UserError(message)
        raise UserError(f"{message} (see {self.prog} --help)")


def _nearest(word: str, choices: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    matches = get_close_matches(word, list(choices), n=1, cutoff=0.55)
    return matches[0] if matches else None


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _fault(error: BaseException) -> str:
    return f"unexpected {type(error).__name__}: {error}" if str(error) else f"unexpected {type(error).__name__}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' own warnings off standard error, where a program that calls us expects our one line."""
    import logging
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# ---- propagate ---------------------------------------------------------------------------------------------------


def propagate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `propagate` (design, section 4)."""
    add = parser.add_argument
    add("image", metavar="IMAGE", help="NIfTI, NRRD, MHA, a DICOM folder, or a folder of frames (png, jpg)")
    add(
        "prompt",
        metavar="PROMPT",
        help="label map with the painted slices, any number of labels; for frames a folder of PNGs named like them",
    )
    add(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="label map to write: .nii.gz, .nii, .nrrd, .mha, .dcm (DICOM SEG, for a DICOM image); frames: a folder",
    )
    add("--weights", metavar="F", help="weights: .safetensors, or a checkpoint of XMem or iMOS; default: those shipped")
    add("--adapter", metavar="F", help="adapter weights fine-tuned for one structure (.safetensors)")
    add("--plane", choices=PLANES, default="auto", help="plane of the painted slices; auto: the one they are thin in")
    add("--first", metavar="N", type=_slice_index, help="first slice to fill, counted from 0 along the plane's axis")
    add("--last", metavar="N", type=_slice_index, help="last slice to fill")
    add("--device", choices=DEVICES, default="auto", help="auto takes a GPU where there is one")
    add("--time", action="store_true", help="IMAGE has 4 dimensions: propagate through time")
    add("--report", metavar="F.json", help="write times, memory, weights, confidence per slice")
    add("--sheet", metavar="F.png", help="write a contact sheet: slices with the outlines found")


def propagate(args: argparse.Namespace) -> int:
    """Carry painted slices through the whole volume or video."""
    started = perf_counter()
    if args.first is not None and args.last is not None and args.first > args.last:
        raise UserError(f"--first {args.first} lies behind --last {args.last}: no slice is left. Swap them.")
    _check_input("weights", args.weights)
    _check_input("adapter", args.adapter)
    _check_suffix("--report", args.report, (".json",))
    _check_suffix("--sheet", args.sheet, (".png",))
    for path in (args.output, args.report, args.sheet):
        _check_writable(path)
    _check_distinct(args)

    from imos.imaging import ImageKind, check_writable, read_image, read_label_map, write_label_map

    image = read_image(args.image, time=args.time)
    check_writable(args.output, image)  # now that the image's kind is known, its format too
    painted = read_label_map(args.prompt, image)
    if not painted.any():
        raise UserError(f"{args.prompt} has no painted voxel. Paint at least one slice with a label from 1 to 65535.")

    import imos

    model = imos.load(args.weights, adapter=args.adapter, device=args.device)
    model.prepare(is_video=image.kind is ImageKind.VIDEO, has_colour=image.is_rgb)
    session = imos.Session(model, image, first=args.first, last=args.last)
    session.paint_volume(painted, plane=args.plane)

    loaded = perf_counter()
    with ProgressLine(sys.stderr) as progress:
        result = session.propagate(on_progress=progress)

    write_label_map(args.output, result.labels, image)
    if args.report:
        from imos.propagation.report import make_report, write_report

        write_report(args.report, make_report(result, model, load_seconds=loaded - started))
    if args.sheet:
        from imos.propagation.sheet import draw_sheet, write_sheet

        write_sheet(args.sheet, draw_sheet(image, result))
    _summarise(args.output, result)
    return 0


def _summarise(output: str, result: Result) -> None:
    objects = f"{len(result.states)} object{'s' * (len(result.states) != 1)}"
    rate = f", {result.computed / result.seconds:.1f} slices/s" if result.computed and result.seconds else ""
    print(f"{output}: {objects} in {result.seconds:.1f} s{rate}")
    advice = [f"slice {index} for label {label}" for label, index in result.suggested.items() if index is not None]
    if advice:
        print(f"to improve it, paint next: {', '.join(advice[:6])}{', …' * (len(advice) > 6)}")


def _slice_index(text: str) -> int:
    try:
        index = int(text)
    except ValueError:
        index = -1
    if index < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no slice number; slices are counted from 0")
    return index


def _check_input(what: str, path: str | None) -> None:
    # Before torch is imported: a mistyped path should not cost seconds.
    if path is not None and not os.path.isfile(path):
        raise UserError(f"there is no {what} file {path}. Check the path, or leave --{what} out.")


def _check_suffix(option: str, path: str | None, suffixes: tuple[str, ...]) -> None:
    if path is not None and not path.lower().endswith(suffixes):
        raise UserError(f"{option} {path}: the name must end in {' or '.join(suffixes)}.")


def _check_writable(path: str | None) -> None:
    """See before the work that a file can be made beside `path`, where it will first be written under another name."""
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) and path.lower().endswith((".json", ".png")):
        raise UserError(f"cannot write {path}: a folder has that name. Choose another name.")
    if not os.path.isdir(folder):
        raise UserError(f"cannot write {path}: {folder} is not a folder. Create it, or choose another place.")
    from tempfile import TemporaryFile

    try:
        with TemporaryFile(dir=folder, prefix=".imos-"):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror} in {folder}. Choose another place.") from error


def _check_distinct(args: argparse.Namespace) -> None:
    """Never write over what was read, nor one output over another."""
    for option, path in (("IMAGE", args.image), ("PROMPT", args.prompt)):
        if not path:
            raise UserError(f"{option} is empty. Name a file or folder.")
    seen = {os.path.realpath(args.image): "IMAGE", os.path.realpath(args.prompt): "PROMPT"}
    read = dict(seen)
    for option, path in (("-o", args.output), ("--report", args.report), ("--sheet", args.sheet)):
        if path is None:
            continue
        real = os.path.realpath(path)
        other = seen.setdefault(real, option)
        for place, what in read.items():
            # A file of a folder that was read, or a folder of label maps with the painted one among them.
            is_part = os.path.isfile(real) and _is_within(real, place)
            if is_part or (os.path.isdir(real) and what == "PROMPT" and _is_within(place, real)):
                other = what
        if other != option:
            raise UserError(f"{option} {path} would overwrite {other}. Choose another name.")


def _is_within(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder


class ProgressLine:
    """A progress bar with slices/s on a terminal; elsewhere a line every ten seconds, so that logs stay short."""

    WIDTH = 30
    TERMINAL_INTERVAL = 0.1
    LOG_INTERVAL = 10.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._started = self._shown = perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._stream.write("\r\x1b[K")  # the summary on standard output says it all
            self._stream.flush()

    def __call__(self, progress: Progress) -> None:
        """Show how far the propagation is; cheap to call for every slice."""
        now = perf_counter()
        if now - self._shown < (self.TERMINAL_INTERVAL if self._terminal else self.LOG_INTERVAL):
            return
        self._shown = now
        rate = progress.done / (now - self._started)
        left = (progress.total - progress.done) / rate if rate else 0.0
        count = f"{progress.done}/{progress.total} slices"
        text = f"{count}, {rate:.1f} slices/s, {left:.0f} s left, label {progress.label}"
        if self._terminal:
            filled = self.WIDTH * progress.done // max(progress.total, 1)
            self._stream.write(f"\r\x1b[K{'█' * filled}{'░' * (self.WIDTH - filled)} {text}")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


# ---- dice --------------------------------------------------------------------------------------------------------


def dice_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `dice`."""
    parser.add_argument("prediction", metavar="PREDICTION", help="label map to judge; resampled to REFERENCE's grid")
    parser.add_argument("reference", metavar="REFERENCE", help="label map taken as the truth; its labels are compared")
    parser.add_argument("--image", metavar="IMAGE", help="image that both belong to; DICOM SEG needs it")


def dice(args: argparse.Namespace) -> int:
    """Print Dice of every label of the reference, and their mean."""
    import numpy as np

    from imos.imaging import read_grid, read_label_map
    from imos.metrics import dice as dice_of

    grid = read_grid(args.image or args.reference)
    reference = read_label_map(args.reference, grid, may_be_empty=True)
    prediction = read_label_map(args.prediction, grid, may_be_empty=True)
    labels = [int(label) for label in np.unique(reference) if label]
    if not labels:
        raise UserError(f"{args.reference} has no labelled voxel, so there is nothing to compare with.")
    values = [dice_of(prediction == label, reference == label) for label in labels]
    width = max(len("label"), *(len(str(label)) for label in labels))
    print(f"{'label':>{width}}  Dice")
    for label, value in zip(labels, values, strict=True):
        print(f"{label:>{width}}  {value:.4f}")
    print(f"{'mean':>{width}}  {sum(values) / len(values):.4f}")
    return 0


# ---- serve -------------------------------------------------------------------------------------------------------


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `serve`."""
    add = parser.add_argument
    add("--studies", required=True, metavar="FOLDER|URL", help="folder of images, or the address of a DICOMweb archive")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    add("--port", type=int, default=8000, help="port (default: %(default)s)")
    add("--conf", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="setting of the app; repeatable")
    add(
        "--orthanc",
        metavar="DIR",
        help="start Orthanc there, filled with the volumes of --studies, and use it",
    )
    add(
        "--orthanc-port",
        type=int,
        metavar="N",
        help="its port, on this machine only (default: 8042, or the next free one)",
    )


def serve(args: argparse.Namespace) -> int:
    """Become `python -m monailabel.main start_server --app apps/imos …`."""
    app = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "apps", "imos")
    if not os.path.isdir(app):
        raise UserError("the server runs from a clone of the repository (apps/imos); clone it and use its main.py.")
    if "://" not in args.studies and not os.path.isdir(args.studies):
        raise UserError(f"--studies {args.studies} is no folder. Name a folder of images, or a DICOMweb address.")
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", os.path.realpath(app)]
    options = ["--host", args.host, "--port", str(args.port)]
    for key, value in args.conf:
        options += ["--conf", key, value]
    if args.orthanc is None:
        command += ["--studies", args.studies, *options]
    elif "://" in args.studies:
        raise UserError("--orthanc is filled from a folder of images; --studies names an archive that is there.")
    else:
        own = ["--port", str(args.orthanc_port)] if args.orthanc_port else []
        own += ["--viewer", f"http://{args.host}:{args.port}"]
        folders = [args.orthanc, args.studies]
        command = [sys.executable, "-m", "imos.server.local_archive", *own, "--", *folders, *command, *options]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # this process becomes the server, so signals and exit code are its own
