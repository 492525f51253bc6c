"""CAMUS: ultrasound of the heart, two views of 500 patients, `https://www.creatis.insa-lyon.fr/Challenge/camus`.

Newer release, the heart from its largest to its smallest state with labels on every frame:

```
database_nifti/patient0001/patient0001_4CH_half_sequence.nii.gz  …_4CH_half_sequence_gt.nii.gz  Info_4CH.cfg
```

Older release, labels on the first and the last frame only; `testing` has none:

```
training/patient0001/patient0001_4CH_sequence.mhd  …_4CH_{ED,ES}.mhd  …_4CH_{ED,ES}_gt.mhd  Info_4CH.cfg
```

Arrays are columns, rows, time; every .mhd has its voxels in a .raw. Of the older release the two labelled frames become
a video of two frames, because a frame without labels would say that there is nothing on it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imos.datasets.published import (
    DataSet,
    LabelledImage,
    Listing,
    PublishedCase,
    check_same_shape,
    folder_with,
    read_as_stored,
    read_labels,
    read_volume,
)
from imos.errors import UserError
from imos.imaging.image import Image, ImageKind

STRUCTURES = {1: "left ventricle cavity", 2: "left ventricle myocardium", 3: "left atrium"}

VIEWS = {"2CH": "apical two-chamber view", "4CH": "apical four-chamber view"}

_INNER = (
    "database_nifti",
    "training",
    "CAMUS_public/database_nifti",
    "CAMUS_public",
)
_PATIENT = re.compile(r"patient\d{4}")
_WHOLE = ("_half_sequence.nii.gz", "_half_sequence.nii", "_half_sequence.mhd")
_PHASES = ("ED", "ES")


def find(root: Path) -> Listing:
    """Both views of every patient.

    Raises:
        UserError: There are no patients' folders, or a view has no labels.
    """
    folder = folder_with(root, _INNER, lambda place: bool(_patients(place)))
    if folder is None:
        raise UserError(f"{root} has no folder patient0001. Name the folder that holds CAMUS's patients.")
    cases: list[PublishedCase] = []
    for patient in _patients(folder):
        views = [case for view in VIEWS if (case := _view(patient, view)) is not None]
        if not views:
            raise UserError(f"{patient} has no sequence ({patient.name}_4CH_half_sequence.nii.gz). Unpack it again.")
        cases += views
    return Listing(tuple(cases))


def read(case: PublishedCase) -> LabelledImage:
    """Read a view as a video.

    Raises:
        UserError: A file is broken, or image and labels do not fit.
    """
    if len(case.images) == 1:
        image = read_volume(case.images[0], time=True)
        labels = read_labels(case.labels[0], image, max(STRUCTURES), time=True)
        preprocessing = "as published"
    else:
        phases = _in_time(case)
        frames = [read_as_stored(case.images[phase], time=True) for phase in phases]
        expected = (*frames[0].shape[:2], 1)
        maps: list[NDArray[np.uint8]] = []
        for phase, frame in zip(phases, frames, strict=True):
            check_same_shape(case.images[phase], frame.voxels.shape, case.images[phases[0]], expected)
            maps.append(read_labels(case.labels[phase], frame, max(STRUCTURES), time=True))
        image = replace(frames[0], voxels=np.concatenate([frame.voxels for frame in frames], axis=2))
        labels = np.concatenate(maps, axis=2)
        preprocessing = "the two labelled frames (ED, ES) of the sequence"
    video = Image(_eight_bit(image).swapaxes(0, 1), np.eye(4), ImageKind.VIDEO, case.name, case.images[0])
    return LabelledImage(video, labels.swapaxes(0, 1), STRUCTURES, preprocessing=preprocessing)


def _patients(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _PATIENT.fullmatch(path.name) and path.is_dir())


def _view(patient: Path, view: str) -> PublishedCase | None:
    """The labelled frames of one view; None if the patient's folder has nothing of it."""
    name = f"{patient.name}_{view}"
    modality = f"cardiac ultrasound, {VIEWS[view]}"
    for suffix in _WHOLE:
        image = patient / f"{name}{suffix}"
        if image.is_file():
            labels = patient / image.name.replace("_half_sequence", "_half_sequence_gt")
            _must_exist(labels, image)
            return PublishedCase(patient.name, name, modality, (image,), (labels,), _raw(image, labels))
    images = tuple(patient / f"{name}_{phase}.mhd" for phase in _PHASES)
    if not any(path.is_file() for path in (*images, patient / f"{name}_sequence.mhd")):
        return None
    labels_of_phases = tuple(patient / f"{name}_{phase}_gt.mhd" for phase in _PHASES)
    info = patient / f"Info_{view}.cfg"
    for path in (*images, *labels_of_phases, info):
        _must_exist(path, patient / f"{name}_sequence.mhd")
    others = (*_raw(*images, *labels_of_phases), info)
    return PublishedCase(patient.name, name, modality, images, labels_of_phases, others)


def _must_exist(path: Path, image: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path} is missing: {image.name} cannot be used without it. Unpack it, or delete the sequence."
        )


def _raw(*headers: Path) -> tuple[Path, ...]:
    """The voxels of MetaImage files, which are files of their own."""
    return tuple(raw for path in headers if (raw := path.with_suffix(".raw")) != path and raw.is_file())


def _in_time(case: PublishedCase) -> tuple[int, int]:
    """0 and 1, the largest and the smallest state, in the order in which the heart went through them."""
    info = case.others[-1]
    at: dict[str, int] = {}
    try:
        for line in info.read_text(encoding="latin-1").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in _PHASES:
                at[key.strip()] = int(value)
        return (0, 1) if at["ED"] <= at["ES"] else (1, 0)
    except (ValueError, KeyError) as error:
        raise UserError(f"{info} does not say which frames are ED and ES. Unpack it again.") from error


def _eight_bit(image: Image) -> NDArray[np.uint8]:
    """Gray values of ultrasound are bytes, whatever type a file keeps them in."""
    voxels = image.voxels
    if voxels.dtype != np.uint8:
        if voxels.min() < 0 or voxels.max() > 255:
            raise UserError(f"{image.source} holds gray values outside 0…255. Unpack it again.")
        voxels = np.rint(voxels).astype(np.uint8)
    return np.asarray(voxels)


DATA_SET = DataSet(
    name="camus",
    title="CAMUS",
    body_part="heart",
    licence="unverified (research use; non-commercial)",
    licence_read_at="the data set's page",
    source="humanheart-project.creatis.insa-lyon.fr/database",
    label_origin="cardiologists; frames between ED and ES semi-automatic",
    find=find,
    read=read,
)
