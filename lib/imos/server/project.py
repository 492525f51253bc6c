"""The project: what a server's people have accepted, what is learned from it, and how it goes.

Small and without state of its own, so that the server and the process that trains look at the same files.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fastapi import HTTPException

from imos.errors import UserError
from imos.imaging import read_image, read_label_map
from imos.imaging.writing import replacing
from imos.learning.rounds import Lessons
from imos.learning.volumes import LabelledVolume, VolumeRef
from imos.registry.places import models_folder
from imos.registry.records import LabelRef, now
from imos.registry.split import FrozenSplit, Side
from imos.registry.store import Registry
from imos.server.acceptances import Acceptance, AcceptanceLog, Effort
from imos.server.conf import AppConf

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore

logger = logging.getLogger(__name__)

FINAL = "final"

MOST_VOLUMES = 24
"""A round learns from so many volumes at most, and at most two thirds of them are new: the rest is repeated."""


def registry_of(conf: AppConf, datastore: Datastore) -> Registry:
    """The versions of the project that a server was started for."""
    return Registry(Path(conf.models) if conf.models else models_folder(Path(datastore._datastore_path)))


@dataclass(frozen=True, slots=True)
class Project:
    """One annotation project.

    Attributes:
        conf: How the server was started.
        datastore: Where images and labels lie.
        registry: The versions.
    """

    conf: AppConf
    datastore: Datastore
    registry: Registry

    @classmethod
    def of(cls, conf: AppConf, datastore: Datastore) -> Self:
        """The project of a datastore."""
        return cls(conf, datastore, registry_of(conf, datastore))

    @property
    def log(self) -> AcceptanceLog:
        """What was accepted."""
        return AcceptanceLog(self.registry.folder)

    # Accepting

    def accepted(self, image: str) -> Acceptance | None:
        """Take note of the final label that an image has now; None where it has none.

        Args:
            image: Id of the image.

        Raises:
            UserError: The split is damaged, or nothing can be written.
        """
        file = self._label_file(image)
        if file is None:
            return None
        digest = _digest(file)
        latest = self.log.latest().get(image)
        if latest is not None and latest.digest == digest:
            return latest
        info = self.datastore.get_label_info(image, FINAL)
        effort = info.get("effort")
        one = Acceptance(
            time=now(),
            image=image,
            digest=digest,
            side=FrozenSplit(self.registry.folder).decide(self.patient_of(image)),
            version=self.registry.champion,
            client=str(info.get("client_id") or ""),
            effort=Effort(**effort) if isinstance(effort, dict) else None,
        )
        self.log.add(one)
        return one

    def patient_of(self, image: str) -> str:
        """Whose image it is, as far as anybody said: patient, else study, else the image itself."""
        info = self.datastore.get_image_info(image)
        return str(info.get("PatientID") or info.get("StudyInstanceUID") or image)

    # Learning

    def lessons(self) -> Lessons:
        """What the next round learns from and who judges it, as things stand now."""
        self._take_note_of_old_labels()
        accepted = list(self.log.latest().values())
        known = self.registry.learned(self.registry.champion)
        pupils = [one for one in accepted if one.side is Side.TRAINING]
        pupils.sort(key=lambda one: one.time, reverse=True)
        new = [one for one in pupils if LabelRef(one.image, one.digest) not in known]
        old = [one for one in pupils if LabelRef(one.image, one.digest) in known]
        most_new = MOST_VOLUMES if not old else MOST_VOLUMES - min(len(old), MOST_VOLUMES // 3)
        new = new[:most_new]
        return Lessons(
            new=self._refs(new),
            replay=self._refs(old[: MOST_VOLUMES - len(new)]),
            held_out=self._refs(one for one in accepted if one.side is Side.VALIDATION),
        )

    def since_last_round(self) -> int:
        """Images accepted since the last round began."""
        begun = self._begun()
        return sum(one.time > begun for one in self.log.latest().values())

    @property
    def is_due(self) -> bool:
        """Whether a round shall begin by itself."""
        most = self.conf.auto_train
        return most > 0 and self.since_last_round() >= most

    def begin(self) -> None:
        """Take note that a round begins now."""
        self.registry.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.registry.folder / "begun.txt") as beside:
            beside.write_text(now(), "utf-8")

    def _begun(self) -> str:
        try:
            return (self.registry.folder / "begun.txt").read_text("utf-8").strip()
        except OSError:
            return ""

    # Inside

    def _take_note_of_old_labels(self) -> None:
        """Labels that were there before this server, or were stored past it."""
        for image in sorted(self.datastore.get_labeled_images(FINAL)):
            try:
                self.accepted(image)
            except HTTPException as error:  # what the store says of a label that it lists but does not hold
                logger.warning("%s has no label to learn from: %s", image, error.detail)

    def _label_file(self, image: str) -> Path | None:
        if self.datastore.get_labels_by_image_id(image).get(FINAL) is None:
            return None
        file = Path(self.datastore.get_label_uri(image, FINAL))
        return file if file.is_file() else None

    def _refs(self, accepted: Any) -> list[VolumeRef]:
        return [VolumeRef(LabelRef(one.image, one.digest), partial(self._volume, one.image)) for one in accepted]

    def _volume(self, image: str) -> LabelledVolume:
        """Read an image and its final label.

        Raises:
            UserError: One of them is gone or cannot be read.
        """
        try:
            content = read_image(Path(self.datastore.get_image_uri(image)))
            file = self._label_file(image)
            info: Mapping[str, Any] = self.datastore.get_label_info(image, FINAL) if file is not None else {}
        except HTTPException as error:
            raise UserError(str(error.detail)) from error
        if file is None:
            raise UserError(f"The label of {image} is gone.")
        axes = {int(value): int(axis) for value, axis in dict(info.get("axes") or {}).items()}
        return LabelledVolume(image, content, read_label_map(file, content), axes)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
