"""3D Slicer's MONAI Label module without 3D Slicer: its requests, made by its own client class.

The module's `MONAILabelLib/client.py` and `monailabel.client.MONAILabelClient` are the same class. What the module does
around it (`MONAILabel.py` of monailabel 0.8.5) is repeated here: how segments are exported, which parameters go where,
and how an answer is imported.
"""

from __future__ import annotations

import gzip
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # cgi is deprecated
    from monailabel.client import MONAILabelClient

BACKGROUND_STROKES, FOREGROUND_STROKES = "background_scribbles", "foreground_scribbles"
NOT_SUBMITTED = ("background", FOREGROUND_STROKES, BACKGROUND_STROKES)


@dataclass
class Slicer:
    """One user with one volume open.

    Attributes:
        client: The module's client.
        image: Id of the sample.
        affine: Of the volume.
        shape: Of the volume.
        folder: Temporary files.
        segments: Name to mask, in the order of the segment list.
        session: Id of the session for a volume that is not on the server.
    """

    client: MONAILabelClient
    image: str
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    folder: Path
    segments: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    session: str | None = None

    @classmethod
    def open(cls, url: str, image: str, volume: Path, folder: Path, user: str = "user-xyz") -> Slicer:
        """Connect; a segment for each label of the server, all empty (`initSample`)."""
        loaded = nibabel.load(volume)
        client = MONAILabelClient(url, str(folder), user)
        found = cls(client, image, loaded.affine, loaded.shape, folder)
        found.import_labels(None, client.info()["labels"])
        return found

    def add(self, name: str) -> None:
        """An empty segment."""
        self.segments.setdefault(name, np.zeros(self.shape, bool))

    def paint(self, name: str, index: int, mask: NDArray[np.bool_]) -> None:
        """Paint a segment on an axial slice, and nothing else of it there. The brush lets segments overlap."""
        self.add(name)
        self.segments[name][:, :, index] = mask

    def stroke(self, name: str, index: int, mask: NDArray[np.bool_]) -> None:
        """Draw scribbles (`ensureScribblesLayersPresent`)."""
        for layer in (BACKGROUND_STROKES, FOREGROUND_STROKES):
            self.add(layer)
        self.segments[name][:, :, index] |= mask

    def config(self, model: str) -> dict[str, Any]:
        """A model's options as the module sends them (`getParamsFromConfig`)."""
        config = self.client.info()["models"][model]["config"]
        return {name: value[0] if isinstance(value, list) else value for name, value in config.items()}

    def infer(self, model: str, params: dict[str, Any], mask: Path | None = None) -> tuple[str | None, Any]:
        """`MONAILabelLogic.infer`."""
        params |= {"result_extension": ".nrrd", "result_dtype": "uint8"}
        return self.client.infer(model, self.image, params, None if mask is None else str(mask), None, self.session)

    def auto_segmentation(self, model: str = "imos", **options: Any) -> dict[str, Any]:
        """`onClickSegmentation`; returns the answer's JSON."""
        file, params = self.infer(model, self.config(model) | options)
        labels = params.get("label_names") or self.client.info()["models"][model]["labels"]
        if isinstance(labels, dict):
            labels = [name for name, _ in sorted(labels.items(), key=lambda item: item[1])]
        self.import_labels(file, labels)
        return params

    def scribbles(self, name: str, *, cropped: bool = False, **options: Any) -> dict[str, Any]:
        """`onUpdateScribbles` for the selected segment."""
        model = "imos_scribbles"
        mask = self.export(list(self.segments), cropped=cropped)
        params = self.config(model) | {"roi": []} | options
        params["label_info"] = [{"name": one, "id": place} for place, one in enumerate(self.segments, start=1)]
        params["selected_label_name"] = name
        file, answer = self.infer(model, params, mask)
        self.import_labels(file, [name])
        return answer

    def clicks(
        self, name: str, inside: list[list[int]], outside: list[list[int]] | None = None, **options: Any
    ) -> dict[str, Any]:
        """`onClickDeepgrow` with a model of type deepgrow."""
        params = {"label": name, "foreground": inside, "background": outside or []}
        file, answer = self.infer("imos_clicks", params | self.config("imos_clicks") | options)
        self.import_labels(file, [name])
        return answer

    def landmarks(self, points: dict[str, list[list[int]]], current: str, **options: Any) -> dict[str, Any]:
        """`onClickDeepgrow` with a model of type deepedit that has labels."""
        params: dict[str, Any] = {name: points.get(name, []) for name in self.client.info()["labels"]}
        params["label"] = current
        file, answer = self.infer("imos_clicks_of_all", params | self.config("imos_clicks_of_all") | options)
        self.import_labels(file, [name for name, _ in sorted(answer["label_names"].items(), key=lambda item: item[1])])
        return answer

    def submit(self) -> dict[str, Any]:
        """`onSaveLabel`: scribbles are cleared first, and left out."""
        for layer in (BACKGROUND_STROKES, FOREGROUND_STROKES):
            if layer in self.segments:
                self.segments[layer][:] = False
        kept = [(place, name) for place, name in enumerate(self.segments, start=1) if name not in NOT_SUBMITTED]
        label = self.export([name for _, name in kept])
        info = [{"name": name, "idx": place} for place, name in kept]
        return self.client.save_label(self.image, str(label), params={"label_info": info})

    def export(self, names: list[str], *, cropped: bool = False) -> Path:
        """`ExportSegmentsToLabelmapNode`: values 1, 2, 3 … in order; where segments overlap, the later one."""
        labels = np.zeros(self.shape, np.uint8)
        for value, name in enumerate(names, start=1):
            labels[self.segments[name]] = value
        affine = self.affine
        if cropped and labels.any():  # Slicer may export the part that holds something alone
            used = [np.flatnonzero(labels.any(axis=tuple(o for o in range(3) if o != axis))) for axis in range(3)]
            start = [int(one[0]) for one in used]
            labels = labels[tuple(slice(int(one[0]), int(one[-1]) + 1) for one in used)]
            affine = affine @ np.array([[1, 0, 0, start[0]], [0, 1, 0, start[1]], [0, 0, 1, start[2]], [0, 0, 0, 1.0]])
        path = self.folder / "exported.nii.gz"
        path.write_bytes(gzip.compress(nibabel.Nifti1Image(labels, affine).to_bytes(), 1))
        return path

    def import_labels(self, file: str | None, names: list[str]) -> None:
        """`updateSegmentationMask`: without a file, segments are added.

        With one, Slicer gives value 1 to the first name, 2 to the second … (version 5); older ones give the values that
        are there to the names in order. An answer must mean the same to both.
        """
        names = [name for name in names if name != "background"]
        if file is None:
            for name in names:
                self.add(name)
            return
        labels, header = nrrd.read(file)
        assert labels.shape == self.shape
        assert np.allclose(header["space origin"], [-1, -1, 1] * self.affine[:3, 3], atol=1e-3)
        present = [int(value) for value in np.unique(labels) if value]
        assert present in ([], list(range(1, len(names) + 1))), (present, names)
        for value, name in enumerate(names, start=1):
            self.add(name)
            self.segments[name] = labels == value
