"""DICOM files in a folder: which series there are, and which files belong to each.

Files are known by their content, whatever they are called. Headers are read once for each state of a file.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from imos.imaging.dicom import read_header
from imos.imaging.formats import format_of_suffix, is_dicom
from imos.server.dicomweb.modalities import is_image

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 3.0
_OTHER_SUFFIXES = (".json", ".png", ".jpg", ".jpeg", ".txt", ".md", ".csv", ".tif", ".svs", ".xml", ".lock")


@dataclass(frozen=True, eq=False, slots=True)
class DicomFile:
    """One file.

    Attributes:
        path: Where it is.
        header: Everything but the pixels.
    """

    path: Path
    header: Dataset


class DicomFolder:
    """All DICOM files of a folder and its sub-folders; hidden ones excepted.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._files: dict[Path, tuple[tuple[int, int], DicomFile | None]] = {}
        self._series: dict[str, list[DicomFile]] = {}
        self._looked = -_LOOK_SECONDS

    def series(self, *, now: bool = False) -> Mapping[str, list[DicomFile]]:
        """Files by the UID of their series, in the order of their instance numbers.

        Args:
            now: Whether to look even if that was done a moment ago.
        """
        with self._lock:
            if now or time.monotonic() - self._looked >= _LOOK_SECONDS:
                self._look()
                self._looked = time.monotonic()
            return self._series

    def images(self) -> dict[str, list[DicomFile]]:
        """The series that are volumes to work on: several slices, or several frames."""
        return {
            uid: files
            for uid, files in self.series().items()
            if "Rows" in files[0].header
            and is_image(str(files[0].header.get("Modality", "")))
            and (len(files) > 1 or int(files[0].header.get("NumberOfFrames", 1) or 1) > 1)
        }

    def _look(self) -> None:
        found: dict[Path, tuple[tuple[int, int], DicomFile | None]] = {}
        for folder, names, files in os.walk(self.root):
            names[:] = sorted(name for name in names if not name.startswith("."))
            for name in sorted(files):
                path = Path(folder) / name
                if name.startswith(".") or not _may_be_dicom(path):
                    continue
                try:
                    status = path.stat()
                except OSError:
                    continue  # gone meanwhile
                state = (status.st_mtime_ns, status.st_size)
                known = self._files.get(path)
                found[path] = known if known is not None and known[0] == state else (state, _read(path))
        if found.keys() == self._files.keys() and all(found[path] is self._files[path] for path in found):
            return
        self._files = found
        series: dict[str, list[DicomFile]] = {}
        seen: set[str] = set()
        for _state, file in found.values():
            if file is None or str(file.header.SOPInstanceUID) in seen:
                continue
            seen.add(str(file.header.SOPInstanceUID))
            series.setdefault(str(file.header.SeriesInstanceUID), []).append(file)
        for files_of_one in series.values():
            files_of_one.sort(key=lambda file: (int(file.header.get("InstanceNumber", 0) or 0), file.path))
        self._series = series


def _may_be_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True
    return format_of_suffix(path) is None and path.suffix.lower() not in _OTHER_SUFFIXES and is_dicom(path)


def _read(path: Path) -> DicomFile | None:
    header = read_header(path)
    needed = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    if header is None or any(not header.get(name) for name in needed):
        logger.warning("%s is no complete DICOM file and is not shown", path.name)
        return None
    return DicomFile(path, header)
