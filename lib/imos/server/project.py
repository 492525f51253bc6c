"""The project: what a server's people have accepted, what is learned from it, and how it goes.

Small and without state of its own, so that the server and the process that trains look at the same files.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fastapi import HTTPException

from imos.errors import UserError
from imos.imaging import read_image, read_label_map
from imos.imaging.writing import replacing
from imos.learning.rounds import Lessons, divided
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

_UNKNOWN = ("", "UNK")
"""What MONAI Label says of a patient or a study that an archive does not name: they are not all the same one."""


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
        known = self.log.latest()
        latest = known.get(image)
        if latest is not None and latest.digest == digest:
            return latest
        info = self.datastore.get_label_info(image, FINAL)
        effort = info.get("effort")
        one = Acceptance(
            time=now(),
            image=image,
            digest=digest,
            side=self._side(image, known),
            version=self.registry.champion,
            client=str(info.get("client_id") or ""),
            effort=Effort(**effort) if isinstance(effort, dict) else None,
        )
        self.log.add(one)
        return one

    def patient_of(self, image: str) -> str:
        """Whose image it is, as far as anybody said: patient, else study, else the image itself."""
        info = self.datastore.get_image_info(image)
        said = (str(info.get(name) or "").strip() for name in ("PatientID", "StudyInstanceUID"))
        return next((one for one in said if one not in _UNKNOWN), image)

    # Learning

    def lessons(self) -> Lessons:
        """What the next round learns from and who judges it, as things stand now."""
        self._take_note_of_old_labels()
        accepted = list(self.log.latest().values())
        known = self.registry.learned(self.registry.champion)
        pupils = [one for one in accepted if one.side is Side.TRAINING]
        pupils.sort(key=lambda one: one.time, reverse=True)
        new, old = divided(pupils, lambda one: LabelRef(one.image, one.digest) in known)
        return Lessons(self._refs(new), self._refs(old), self._refs(self._judges(accepted)))

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
        except (OSError, ValueError):
            return ""

    # Inside

    def _take_note_of_old_labels(self) -> None:
        """Labels that were there before this server, or were stored past it."""
        for image in sorted(self.datastore.get_labeled_images(FINAL)):
            try:
                self.accepted(image)
            except HTTPException as error:  # what the store says of a label that it lists but does not hold
                logger.warning("%s has no label to learn from: %s", image, error.detail)

    def _side(self, image: str, known: Mapping[str, Acceptance]) -> Side:
        """What an image's labels are for: as decided before, whatever is said of its patient by now."""
        split, patient = FrozenSplit(self.registry.folder), self.patient_of(image)
        own = earlier = known.get(image)
        if own is None and patient not in split:
            # Images of this patient may have been accepted before anybody said whose they are.
            earlier = next((one for one in known.values() if self.patient_of(one.image) == patient), None)
        decided = split.decide(patient, None if earlier is None else earlier.side)
        return decided if own is None else own.side

    def _judges(self, accepted: Sequence[Acceptance]) -> Iterator[Acceptance]:
        """Held-out labels; not those of a patient of whom it became known too late that others of his teach."""
        taught = {self.patient_of(one.image) for one in accepted if one.side is Side.TRAINING}
        for one in accepted:
            if one.side is not Side.VALIDATION:
                continue
            if self.patient_of(one.image) in taught:
                logger.warning("%s does not judge: another image of the same patient teaches", one.image)
                continue
            yield one

    def _label_file(self, image: str) -> Path | None:
        if self.datastore.get_labels_by_image_id(image).get(FINAL) is None:
            return None
        file = Path(self.datastore.get_label_uri(image, FINAL))
        return file if file.is_file() else None

    def _refs(self, accepted: Iterable[Acceptance]) -> list[VolumeRef]:
        labels = [LabelRef(one.image, one.digest) for one in accepted]
        return [VolumeRef(one, partial(self._volume, one), self.patient_of(one.image)) for one in labels]

    def _volume(self, label: LabelRef) -> LabelledVolume:
        """Read an image and its final label.

        Raises:
            UserError: One of them is gone or cannot be read, or another label was accepted meanwhile.
        """
        image = label.image
        try:
            content = read_image(Path(self.datastore.get_image_uri(image)))
            file = self._label_file(image)
            info: Mapping[str, Any] = self.datastore.get_label_info(image, FINAL) if file is not None else {}
        except HTTPException as error:
            raise UserError(str(error.detail)) from error
        if file is None:
            raise UserError(f"The label of {image} is gone.")
        axes = {int(value): int(axis) for value, axis in dict(info.get("axes") or {}).items()}
        labels = read_label_map(file, content)
        # Last: what was read before, and is still the file now, is the label that is meant.
        if _digest(file) != label.digest:
            raise UserError(f"{image} was accepted again meanwhile. The next round takes its new label.")
        return LabelledVolume(image, content, labels, axes)


def _digest(file: Path) -> str:
    """SHA-256 of a label file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"The label {file.name} cannot be read ({error.strerror}). Store it again.") from error
