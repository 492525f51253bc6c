"""The frozen split: which patients' labels teach, and which only judge.

Decided once, when the first label of a patient is accepted, and kept on disk: a patient who judges never teaches, and
all images of one patient are on one side. A hash of the patient decides, so that nobody can choose; it is overruled
only where one side would fall behind, so that there is something to learn from at once and somebody to judge soon:
of the first ten patients half judge, later every fourth. The first one teaches.

Patients are kept as hashes: the file says nothing about anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from imos.errors import UserError
from imos.imaging.writing import replacing
from imos.registry.records import now

EARLY = 10
"""Patients of whom half judge: the gate needs five volumes (`imos.learning.gate`)."""


class Side(StrEnum):
    """What a patient's labels are for."""

    TRAINING = "training"
    VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient's place.

    Attributes:
        side: What his labels are for; never changes.
        time: When it was decided.
    """

    side: Side
    time: str


def fewest_judges(patients: int) -> int:
    """How many of so many patients judge at least; one more may."""
    return patients // 2 if patients <= EARLY else EARLY // 2 + (patients - EARLY) // 4


def side_of(key: str, patients: int, judges: int) -> Side:
    """Where the next patient goes.

    Args:
        key: Hash of the patient.
        patients: Patients decided before.
        judges: Those of them who judge.
    """
    fewest = fewest_judges(patients + 1)
    if judges < fewest:
        return Side.VALIDATION
    if judges > fewest or patients == 0:
        return Side.TRAINING
    share = 2 if patients < EARLY else 4
    return Side.VALIDATION if int(key[:8], 16) % share == 0 else Side.TRAINING


def patient_key(patient: str) -> str:
    """Hash under which a patient is kept.

    Args:
        patient: Patient ID, else study UID, else id of the image.
    """
    return sha256(f"imos patient {patient}".encode()).hexdigest()[:24]


class FrozenSplit:
    """The split on disk.

    Args:
        folder: Of the registry.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "split.json"

    def read(self) -> Mapping[str, Patient]:
        """Every patient decided so far, in that order.

        Raises:
            UserError: The file is damaged. It is never made anew by itself: judges could become pupils.
        """
        try:
            said = json.loads(self._path.read_text("utf-8"))
            return {key: Patient(Side(one["side"]), str(one["time"])) for key, one in said.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self._path} is damaged: nobody knows any more which volumes judge. Restore it from a backup,"
                " or remove it together with the versions beside it."
            ) from error

    def __contains__(self, patient: str) -> bool:
        """Whether the side of a patient is decided.

        Raises:
            UserError: The file is damaged.
        """
        return patient_key(patient) in self.read()

    def decide(self, patient: str, earlier: Side | None = None) -> Side:
        """The side of a patient, decided now if it is not yet.

        Args:
            patient: As for `patient_key`.
            earlier: Where labels of this patient already are, under another name; taken where nothing is decided yet.

        Raises:
            UserError: The file is damaged or cannot be written.
        """
        key = patient_key(patient)
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / ".split.lock"):
            known = dict(self.read())
            if key not in known:
                judges = sum(one.side is Side.VALIDATION for one in known.values())
                known[key] = Patient(earlier or side_of(key, len(known), judges), now())
                text = json.dumps({name: {"side": one.side, "time": one.time} for name, one in known.items()}, indent=1)
                with replacing(self._path) as beside:
                    beside.write_text(text, "utf-8")
        return known[key].side
