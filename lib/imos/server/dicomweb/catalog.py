"""Catalog: every study that a folder holds, as DICOMweb lists it.

Volumes of other formats have to be read once to know how they are presented; that is done in the background, and what
is known is listed meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fastapi import HTTPException
from pydicom.dataset import Dataset

from imos.errors import UserError
from imos.server.dicomweb.folder import DicomFile, DicomFolder
from imos.server.dicomweb.synthesis import Synthesis, uid
from imos.server.images import ImageCache

if TYPE_CHECKING:
    from imos.server.datastores import FolderDatastore

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 8.0
_LISTED = (
    *("SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName"),
    *("PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyInstanceUID", "StudyDescription"),
    *("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "SeriesDate", "SeriesTime"),
)


class Series(Protocol):
    """One series, whatever it is made of."""

    @property
    def listed(self) -> Dataset:
        """What is searched by."""

    @property
    def count(self) -> int:
        """Number of instances."""

    def headers(self) -> Iterator[Dataset]:
        """Every instance without its pixels."""

    def instance(self, instance_uid: str) -> Dataset:
        """One instance as a file; 404 where there is none."""

    def frame(self, instance_uid: str, number: int) -> tuple[bytes, str]:
        """Pixels of one frame, counted from 1, and their transfer syntax; 404 where there is none."""


@dataclass(frozen=True, eq=False, slots=True)
class FileSeries:
    """A series of DICOM files.

    Attributes:
        files: In order.
    """

    files: Sequence[DicomFile]

    @property
    def listed(self) -> Dataset:
        """What is searched by."""
        return _only_listed(self.files[0].header)

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self.files)

    def headers(self) -> Iterator[Dataset]:
        """Every file's header."""
        return (file.header for file in self.files)

    def instance(self, instance_uid: str) -> Dataset:
        """One file."""
        import pydicom

        for file in self.files:
            if str(file.header.SOPInstanceUID) == instance_uid:
                return pydicom.dcmread(file.path, force=True)
        raise _nothing()

    def frame(self, instance_uid: str, number: int) -> tuple[bytes, str]:
        """Pixels as the file holds them."""
        from pydicom.encaps import generate_pixel_data_frame

        dataset = self.instance(instance_uid)
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        if not 1 <= number <= count or "PixelData" not in dataset:
            raise _nothing()
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_compressed:
            frames = list(generate_pixel_data_frame(dataset.PixelData, count))
            return bytes(frames[number - 1]), str(syntax)
        bits = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * dataset.BitsAllocated
        if bits % 8:
            raise HTTPException(406, "The frames of this instance do not begin at whole bytes. Retrieve the instance.")
        pixels = dataset.PixelData[(number - 1) * bits // 8 : number * bits // 8]
        if not syntax.is_little_endian and dataset.BitsAllocated == 16:
            pixels = b"".join(pixels[place : place + 2][::-1] for place in range(0, len(pixels), 2))
        return pixels, "1.2.840.10008.1.2.1"


@dataclass(frozen=True, eq=False, slots=True)
class VolumeSeries:
    """A volume of another format, presented as a series.

    Attributes:
        path: The image's file.
        images: Where it is read.
        made: How it is presented.
        listed: What is searched by.
    """

    path: Path
    images: ImageCache
    made: Synthesis
    listed: Dataset

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.made.count

    def headers(self) -> Iterator[Dataset]:
        """Every slice without its pixels."""
        return (self.made.header(index) for index in range(self.count))

    def instance(self, instance_uid: str) -> Dataset:
        """One slice."""
        return self.made.instance(self.images.read(self.path), self._index(instance_uid))

    def frame(self, instance_uid: str, number: int) -> tuple[bytes, str]:
        """Pixels of a slice."""
        if number != 1:
            raise _nothing()
        return self.made.frame(self.images.read(self.path), self._index(instance_uid)), "1.2.840.10008.1.2.1"

    def _index(self, instance_uid: str) -> int:
        for index in range(self.count):
            if self.made.instance_uid(index) == instance_uid:
                return index
        raise _nothing()


class Catalog:
    """The studies of a folder.

    Args:
        datastore: The folder.
        images: Where volumes are read.
    """

    def __init__(self, datastore: FolderDatastore, images: ImageCache) -> None:
        self._datastore = datastore
        self._images = images
        self._lock = threading.Lock()
        self._volumes: dict[str, tuple[tuple[str, int, int], VolumeSeries | None]] = {}
        self._reader: threading.Thread | None = None

    @property
    def folder(self) -> DicomFolder:
        """The DICOM files."""
        return self._datastore.dicom

    def read_ahead(self) -> None:
        """Begin to read the volumes, so that the first list is complete."""
        self._volumes_now(patience=0.0)

    def series(self) -> list[Series]:
        """All that is known now."""
        files = self._datastore.look()
        volumes = self._volumes_now(_PATIENCE_SECONDS)
        return [*(FileSeries(found) for found in files.values()), *volumes.values()]

    def find(self, study_uid: str, series_uid: str | None = None) -> list[Series]:
        """The series of a study, or one of them.

        Raises:
            HTTPException: 404, there is none.
        """
        found = [
            one
            for one in self.series()
            if str(one.listed.StudyInstanceUID) == study_uid
            and (series_uid is None or str(one.listed.SeriesInstanceUID) == series_uid)
        ]
        if not found:
            raise _nothing()
        return found

    def image_of_series(self, series_uid: str) -> str | None:
        """The image that a series is; None where it is none."""
        if series_uid in self.folder.images():
            return series_uid
        return next((one for one in self._datastore.list_images() if uid("series", one) == series_uid), None)

    def uids(self, image_id: str) -> tuple[str, str]:
        """Study and series of an image."""
        files = self.folder.images().get(image_id)
        if files is not None:
            return str(files[0].header.StudyInstanceUID), image_id
        return uid("study", image_id), uid("series", image_id)

    def _volumes_now(self, patience: float) -> Mapping[str, VolumeSeries]:
        dicom = self.folder.images()
        wanted: dict[str, tuple[str, int, int]] = {}
        for image in self._datastore.list_images():
            if image in dicom:
                continue
            try:
                path = Path(self._datastore.get_image_uri(image))
                state = path.stat()
            except (HTTPException, OSError):
                continue  # gone meanwhile
            wanted[image] = (str(path), state.st_mtime_ns, state.st_size)
        with self._lock:
            missing = [image for image, key in wanted.items() if self._volumes.get(image, (None,))[0] != key]
            if missing and (self._reader is None or not self._reader.is_alive()):
                work = {image: wanted[image] for image in missing}
                self._reader = threading.Thread(target=self._read, args=(work,), name="catalog", daemon=True)
                self._reader.start()
            reader = self._reader
        if missing and reader is not None:
            reader.join(patience)
        with self._lock:
            known = {image: self._volumes[image] for image in wanted if image in self._volumes}
        return {image: one for image, (key, one) in known.items() if one is not None and key == wanted[image]}

    def _read(self, wanted: Mapping[str, tuple[str, int, int]]) -> None:
        # A cache of its own: listing a folder must not push out what users work on.
        images = ImageCache(1)
        for image, key in wanted.items():
            one: VolumeSeries | None = None
            try:
                path = Path(key[0])
                made = Synthesis.of(image, images.read(path), datetime.fromtimestamp(key[1] / 1e9))
                if made is not None:
                    one = VolumeSeries(path, self._images, made, _only_listed(made.header(0)))
            except UserError as error:
                logger.warning("%s is not shown in the viewer: %s", image, error)
            except Exception:  # a file that breaks its reader must not hide the others
                logger.exception("%s is not shown in the viewer", image)
            with self._lock:
                self._volumes[image] = (key, one)


def _only_listed(header: Dataset) -> Dataset:
    listed = Dataset()
    for name in _LISTED:
        if name in header:
            listed[name] = header[name]
    return listed


def _nothing() -> HTTPException:
    return HTTPException(404, "There is no such study, series or instance.")
