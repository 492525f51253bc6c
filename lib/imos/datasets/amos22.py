"""AMOS22: abdominal CT and MR with fifteen organs, `https://amos22.grand-challenge.org`.

```
dataset.json                       training, validation: pairs of paths; test: images without labels
imagesTr/amos_0001.nii.gz  labelsTr/amos_0001.nii.gz
imagesVa/amos_0008.nii.gz  labelsVa/amos_0008.nii.gz
imagesTs/amos_0002.nii.gz
```

Numbers below 500 are CT, the others MR. Every number is a patient.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from imos.datasets.published import (
    DataSet,
    LabelledImage,
    Listing,
    PublishedCase,
    folder_with,
    read_labels,
    read_volume,
)
from imos.errors import UserError
from imos.imaging.planes import Plane, plane_axis

ORGANS = {
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    4: "gallbladder",
    5: "oesophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "inferior vena cava",
    10: "pancreas",
    11: "right adrenal gland",
    12: "left adrenal gland",
    13: "duodenum",
    14: "bladder",
    15: "prostate or uterus",
}

FIRST_MR = 500

_LABELLED = ("training", "validation")
_NAME = re.compile(r"amos_(\d{4})\.nii(\.gz)?")


def find(root: Path) -> Listing:
    """The labelled cases that dataset.json lists.

    Raises:
        UserError: There is no dataset.json, it is of another data set, or it lists a file that is not there.
    """
    folder = folder_with(root, ("amos22", "AMOS22"), lambda place: (place / "dataset.json").is_file())
    if folder is None:
        raise UserError(f"{root} has no dataset.json. Name the folder that AMOS22 unpacks to (imagesTr, labelsTr, …).")
    index = folder / "dataset.json"
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        pairs = [(_path(pair["image"]), _path(pair["label"])) for part in _LABELLED for pair in content.get(part, ())]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{index} is not the list of AMOS22 (training, validation: image and label).") from error
    cases: dict[str, PublishedCase] = {}
    for image, label in pairs:
        match = _NAME.fullmatch(image.name)
        if match is None:
            raise UserError(f"{index} lists {image}, which is not named like the images of AMOS22 (amos_0001.nii.gz).")
        for what, path in (("image", folder / image), ("label", folder / label)):
            if not path.is_file():
                raise UserError(
                    f"{path} is missing: the {what} of a case in dataset.json. Unpack it, or delete its line."
                )
        name = f"amos_{match[1]}"
        if name in cases:
            raise UserError(f"{index} lists {name} twice. Delete one of the lines.")
        modality = "CT" if int(match[1]) < FIRST_MR else "MR"
        cases[name] = PublishedCase(name, name, modality, (folder / image,), (folder / label,))
    if not cases:
        raise UserError(
            f"{index} lists no case for training or validation. Use the dataset.json that AMOS22 came with."
        )
    return Listing(tuple(cases[name] for name in sorted(cases)), (index,))


def read(case: PublishedCase) -> LabelledImage:
    """Read a volume; Hounsfield values and geometry stay as they are.

    Raises:
        UserError: A file is broken, or image and labels do not fit.
    """
    image = read_volume(case.images[0])
    if image.voxels.dtype in (np.int64, np.uint64):  # read by few programs, written by none that we use
        image = replace(image, voxels=image.voxels.astype(np.float32))
    labels = read_labels(case.labels[0], image, max(ORGANS))
    return LabelledImage(image, labels, ORGANS, plane_axis(image, Plane.AXIAL))


def _path(text: Any) -> Path:
    path = Path(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(text)
    return path


DATA_SET = DataSet(
    name="amos22",
    title="AMOS22",
    body_part="abdomen",
    licence="unverified (CC BY 4.0 on Zenodo, CC BY-NC in the paper's record)",
    licence_read_at="zenodo.org/records/7262581, openreview.net/forum?id=Vk4-HUnkEak",
    source="amos22.grand-challenge.org",
    label_origin="network, corrected by radiologists",
    find=find,
    read=read,
)
