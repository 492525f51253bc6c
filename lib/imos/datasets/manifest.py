"""What a prepared collection was made of: a record of every case with the hashes of all its files.

While work goes on, every finished case is a line of a journal, so that an interrupted run is taken up where it was. At
the end the records become `manifest.json` and the journal goes. Paths are relative to the source and to the collection:
both may be moved.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from imos.datasets.splits import SHARES
from imos.errors import UserError
from imos.imaging.writing import replacing

MANIFEST = "manifest.json"
JOURNAL = ".prepare.jsonl"
FORMAT = 1

_PARTIAL = re.compile(r"\.[0-9a-f]{8}\.partial\..+")


@dataclass(frozen=True, slots=True)
class Record:
    """A finished case.

    Attributes:
        case: Its name.
        patient: Who it shows.
        split: What it is for.
        table: Table of the collection that has its row: `volumes` or `frames`.
        row: The row, by column.
        sequences: Its rows of sequences.tsv, by column.
        sources: SHA-256 of every file that was read, by path below the source.
        written: SHA-256 of every file that was written, by path below the collection.
    """

    case: str
    patient: str
    split: str
    table: str
    row: dict[str, str]
    sequences: list[dict[str, str]]
    sources: dict[str, str]
    written: dict[str, str]


@dataclass(frozen=True, slots=True)
class Header:
    """What all runs into one collection must agree on."""

    data_set: str
    seed: int
    format: int = FORMAT


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def hashes(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """SHA-256 of files, by their paths below `root`."""
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in sorted(paths)}


def still_holds(root: Path, expected: Mapping[str, str]) -> bool:
    """Whether all these files are there with these hashes."""
    return all((root / name).is_file() and sha256_of(root / name) == digest for name, digest in expected.items())


def begin(target: Path, header: Header) -> dict[str, Record]:
    """Take up a collection, or begin one.

    Args:
        target: Its folder; made if it is not there.
        header: What is to be made.

    Returns:
        Records of the cases that were finished, by name.

    Raises:
        UserError: The folder holds something else, or a collection of another data set or seed.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file. Name a folder for the collection.")
    target.mkdir(parents=True, exist_ok=True)
    journal, manifest = target / JOURNAL, target / MANIFEST
    if not journal.is_file() and not manifest.is_file():
        if any(not _PARTIAL.fullmatch(path.name) for path in target.iterdir()):
            raise UserError(f"{target} is not empty and holds no collection of {header.data_set}. Name a new folder.")
        remove_partial_files(target)
        _start_journal(journal, header)
        return {}
    records: dict[str, Record] = {}
    try:
        if manifest.is_file():
            content = json.loads(manifest.read_text(encoding="utf-8"))
            _must_agree(target, Header(**content["made"]), header)
            records |= {record["case"]: Record(**record) for record in content["cases"]}
        if journal.is_file():
            written = journal.read_bytes()
            whole = written.rfind(b"\n") + 1  # what follows was being written when the run was killed
            first, *lines = written[:whole].decode().splitlines()
            _must_agree(target, Header(**json.loads(first)), header)
            records |= {record.case: record for record in (Record(**json.loads(line)) for line in lines)}
            os.truncate(journal, whole)
        else:
            _start_journal(journal, header)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{target} was not made by prepare, or its {MANIFEST} is damaged. Name a new folder."
        ) from error
    remove_partial_files(target)
    return records


def note(target: Path, record: Record) -> None:
    """Add a finished case to the journal; it is on disk when this returns."""
    line = json.dumps(asdict(record)) + "\n"
    path = target / JOURNAL
    whole = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        os.truncate(path, whole)
        raise UserError(f"{path} cannot be written ({error.strerror}). Free some space and run it again.") from error


def finish(target: Path, header: Header, records: Iterable[Record], described_by: Mapping[str, str]) -> None:
    """Write the tables and the manifest; the journal goes.

    Args:
        target: Folder of the collection.
        header: What was made.
        records: All its cases, in the order of the tables.
        described_by: SHA-256 of the files that list the cases, by path below the source.
    """
    from importlib.metadata import version

    records = list(records)
    tables = {
        f"{name}.tsv": [record.row for record in records if record.table == name] for name in ("volumes", "frames")
    }
    tables["sequences.tsv"] = [row for record in records for row in record.sequences]
    written: dict[str, str] = {}
    for name, rows in tables.items():
        path = target / name
        if rows:
            with replacing(path) as temporary:
                temporary.write_text(_as_tsv(rows), encoding="utf-8")
            written[name] = sha256_of(path)
        else:
            path.unlink(missing_ok=True)
    content: dict[str, Any] = {
        "made": asdict(header),
        "made_by": f"imos {version('imos')}",
        "shares": SHARES,
        "described_by": dict(described_by),
        "tables": written,
        "cases": [asdict(record) for record in records],
    }
    with replacing(target / MANIFEST) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (target / JOURNAL).unlink(missing_ok=True)


def remove_files(target: Path, record: Record) -> None:
    """Take a case's files away, and the folders that are empty then."""
    for name in record.written:
        path = target / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            continue  # a manifest that was tampered with names no file of ours
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == target or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def remove_partial_files(target: Path) -> None:
    """Take away what a run left that was killed."""
    for folder, folders, files in os.walk(target):
        for name in [*folders, *files]:
            if _PARTIAL.fullmatch(name):
                path = Path(folder, name)
                shutil.rmtree(path) if name in folders else path.unlink()
        folders[:] = [name for name in folders if not _PARTIAL.fullmatch(name)]


def _start_journal(journal: Path, header: Header) -> None:
    with replacing(journal) as temporary:
        temporary.write_text(json.dumps(asdict(header)) + "\n", encoding="utf-8")


def _must_agree(target: Path, there: Header, wanted: Header) -> None:
    if there.data_set != wanted.data_set:
        raise UserError(f"{target} holds the data set {there.data_set}, not {wanted.data_set}. Name a new folder.")
    if there.seed != wanted.seed:
        raise UserError(f"{target} was divided with --seed {there.seed}. Use that seed, or name a new folder.")
    if there.format != wanted.format:
        raise UserError(f"{target} was made by another version of prepare. Name a new folder.")


def _as_tsv(rows: list[dict[str, str]]) -> str:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)
