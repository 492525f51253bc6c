"""The store of versions: one folder a version, written once, and the alias that says which one is in use.

    versions/v0001/adapter.safetensors, record.json     never change
    champion.json                                       the alias and its moves, replaced as a whole

A folder appears complete or not at all, so a process that is killed while it publishes leaves nothing behind that
counts. A version whose file is not what its record says is never loaded.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from imos.errors import UserError
from imos.imaging.writing import replacing
from imos.registry.adapter_files import RECORD, digest, read_metadata, with_metadata
from imos.registry.alias import Alias, AliasFile, Stamp
from imos.registry.records import BASE, Draft, LabelRef, Move, Record, State

logger = logging.getLogger(__name__)

_ADAPTER = "adapter.safetensors"
_RECORD_FILE = "record.json"


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it stands now.

    Attributes:
        record: What never changes.
        state: Where it stands.
        reason: Of the latest move to it, else of its record.
    """

    record: Record
    state: State
    reason: str


class Registry:
    """All versions of one project.

    Args:
        folder: Where they are kept; made when something is published.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = folder / "versions"
        self._alias = AliasFile(folder)

    # Reading

    @property
    def champion(self) -> str:
        """The version in use; `base` where there is none."""
        return self._alias.read().champion

    @property
    def moves(self) -> tuple[Move, ...]:
        """Every move of the alias, the latest last."""
        return self._alias.read().moves

    def stamp(self) -> Stamp | None:
        """Changes whenever the alias was moved; cheap."""
        return self._alias.stamp()

    def names(self) -> list[str]:
        """All versions, the oldest first."""
        if not self._versions.is_dir():
            return []
        return sorted(path.name for path in self._versions.iterdir() if path.name.startswith("v") and path.is_dir())

    def record(self, name: str) -> Record:
        """What is known about a version.

        Raises:
            UserError: There is no such version, or its record cannot be read.
        """
        if name not in self.names():
            known = ", ".join([BASE, *self.names()])
            raise UserError(f"There is no version {name!r}. There are: {known}.")
        try:
            return Record.from_json(json.loads((self._versions / name / _RECORD_FILE).read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"The record of {name} is damaged. Activate another version.") from error

    def adapter(self, name: str) -> Path | None:
        """The adapter file of a version, checked; None for the base.

        Raises:
            UserError: There is no such version, or its file is not what was published.
        """
        if name == BASE:
            return None
        published = self.record(name).sha256
        path = self._versions / name / _ADAPTER
        try:
            is_whole = digest(path) == published
        except OSError:  # gone, or on a disk that does not give it
            is_whole = False
        if not is_whole:
            raise UserError(f"The adapter file of {name} is damaged or missing. Activate another version.")
        return path

    def versions(self) -> list[Version]:
        """All versions as they stand now, the oldest first; those that cannot be read are left out."""
        alias = self._alias.read()
        reasons = alias.reasons()
        found = []
        for name in self.names():
            try:
                record = self.record(name)
            except UserError as error:
                logger.warning("%s", error)
                continue
            state = State.RETIRED if name in alias.been else State.KEPT
            state = State.CHAMPION if name == alias.champion else state
            if not self._is_whole(name):
                state = State.DAMAGED
            found.append(Version(record, state, reasons.get(name, record.reason)))
        return found

    def learned(self, name: str) -> set[LabelRef]:
        """Every label that a version or one it descends from has learned from."""
        labels: set[LabelRef] = set()
        while name != BASE:
            try:
                record = self.record(name)
            except UserError:  # what it learned is unknown: it is learned again
                break
            labels |= set(record.new) | set(record.replay)
            name = record.parent
        return labels

    # Changing

    def publish(self, adapter: Path, draft: Draft) -> Record:
        """Add a version; it is not in use yet.

        Args:
            adapter: Its file; copied.
            draft: What is known about it.

        Raises:
            UserError: It is no adapter file, or it cannot be written.
        """
        base = read_metadata(adapter).get("base_sha256", "")
        with self._alias.locked():
            self._versions.mkdir(exist_ok=True)
            self._sweep()
            numbers = [int(name[1:]) for name in self.names() if name[1:].isdigit()]
            name = f"v{max(numbers, default=0) + 1:04}"
            about = draft.named(name, base).as_json()
            with replacing(self._versions / name) as folder:
                folder.mkdir()
                file = folder / _ADAPTER
                _put(file, with_metadata(adapter, {RECORD: json.dumps(about)}))
                about["sha256"] = digest(file)
                _put(folder / _RECORD_FILE, json.dumps(about, indent=1).encode())
        return self.record(name)

    def activate(self, name: str, reason: str, *, instead_of: str | None = None) -> bool:
        """Use a version from now on.

        Args:
            name: The version, or `base`.
            reason: Why; kept with the move.
            instead_of: Only if this one is still in use: the one that `name` was found to be better than.

        Returns:
            Whether it is in use now.

        Raises:
            UserError: There is no such version, or its file is damaged.
        """
        self.adapter(name)
        with self._alias.locked() as alias:
            if instead_of is not None and alias.champion != instead_of:
                why = f"Not used: {alias.champion} was put to use while it was judged against {instead_of}. {reason}"
                self._alias.write(alias.refusing(name, why))
                return False
            if alias.champion != name:
                self._alias.write(alias.to(name, reason))
        logger.info("%s is in use now: %s", name, reason)
        return True

    def rollback(self, reason: str) -> str:
        """Use the version again that was in use before the present one.

        Returns:
            Its name.

        Raises:
            UserError: There is none before.
        """
        with self._alias.locked() as alias:
            return self._go_back(alias, reason)

    def give_up(self, name: str, reason: str) -> str:
        """Go back from a version that cannot be used, unless somebody has done so already.

        Returns:
            The version in use then.
        """
        logger.error("Version %s cannot be used: %s", name, reason)
        with self._alias.locked() as alias:
            if alias.champion != name or name == BASE:
                return alias.champion
            return self._go_back(alias, f"{name} cannot be used: {reason}")

    # To other servers

    def export(self, name: str, target: Path) -> None:
        """Write a version as one file that says all that is known about it.

        Raises:
            UserError: There is no such version, it is damaged, or the file cannot be written.
        """
        adapter = self.adapter(name)
        if adapter is None:
            raise UserError("The base is the weights file that the server was started with; copy that.")
        if target.suffix != ".safetensors":
            raise UserError(f"{target.name} is no .safetensors file. Give it such a name.")
        with replacing(target) as beside:
            shutil.copyfile(adapter, beside)

    def bring(self, adapter: Path) -> Record:
        """Add a version that another server exported, or any adapter file; it is not in use yet.

        Raises:
            UserError: It is no adapter file.
        """
        metadata = read_metadata(adapter)
        draft = Draft(BASE, reason=f"Imported from {adapter.name}")
        try:
            origin = Record.from_json(json.loads(metadata[RECORD]))
        except (KeyError, TypeError, ValueError):
            origin = None
        if origin is not None:
            # Its figures are about another server's volumes, so they are not repeated as if they held here.
            said = "" if origin.figures.candidate is None else f", J&F {origin.figures.candidate:.3f} there"
            draft = Draft(BASE, reason=f"Imported from {adapter.name}: {origin.name} of {origin.time}{said}")
        return self.publish(adapter, draft)

    # Inside

    def _go_back(self, alias: Alias, reason: str) -> str:
        """Go back from the version in use to the one before that is whole; only while the alias is locked."""
        back = alias.back(reason)
        while back.champion != BASE and len(back.line) > 1 and not self._is_whole(back.champion):
            logger.error("%s is damaged; going back further", back.champion)
            back = back.back(f"{back.champion} is damaged")
        if back is alias:
            raise UserError("There is no version to go back to: the base is in use.")
        self._alias.write(back)
        logger.warning("Back from %s to %s: %s", alias.champion, back.champion, reason)
        return back.champion

    def _is_whole(self, name: str) -> bool:
        try:
            self.adapter(name)
        except UserError:
            return False
        return True

    def _sweep(self) -> None:
        """Remove what a process that was killed while it published left behind."""
        for path in self._versions.iterdir():
            if path.name.startswith(".") and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def _put(path: Path, content: bytes) -> None:
    with replacing(path) as beside:
        beside.write_bytes(content)
