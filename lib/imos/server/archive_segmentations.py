"""Segmentations of an archive: which DICOM SEG of a series is the newest, whoever made it.

An archive is asked for the segmentations of one study, which is quick; what each refers to and when it was made stands
in the file. Each is retrieved once and kept.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imos.imaging.dicom import is_segmentation, read_header
from imos.imaging.writing import replacing
from imos.server.found_segmentations import Segmentation, newest_first

if TYPE_CHECKING:
    from dicomweb_client.api import DICOMwebClient

logger = logging.getLogger(__name__)

_FRESH_SECONDS = 3.0
"""Who opens a study asks several times at once."""


class ArchiveSegmentations:
    """The segmentations of an archive.

    Args:
        client: Of the archive.
        folder: Where retrieved files are kept.
    """

    def __init__(self, client: DICOMwebClient, folder: Path) -> None:
        # Who opens a study must not wait half a minute for an archive that is down.
        self._client = copy(client)
        self._client.set_http_retry_params(retry=False)
        self._folder = folder
        self._locks: dict[str, threading.Lock] = {}
        self._asked: dict[str, tuple[float, list[Segmentation]]] = {}
        self._read: dict[Path, Segmentation | None] = {}

    def of_series(self, study: str, series: str) -> list[Segmentation]:
        """The segmentations of a series, the newest first; those known already where the archive does not answer.

        Args:
            study: UID of its study.
            series: Its UID.
        """
        with self._locks.setdefault(study, threading.Lock()):
            when, found = self._asked.get(study, (-_FRESH_SECONDS, []))
            if time.monotonic() - when >= _FRESH_SECONDS:
                try:
                    found = self._look(study)
                except Exception:  # whatever the archive's client raises: the study can be painted on all the same
                    logger.exception("The archive did not list the segmentations of %s", study)
                self._asked[study] = time.monotonic(), found
        return newest_first(found, series)

    def _look(self, study: str) -> list[Segmentation]:
        found: list[Segmentation] = []
        for listed in self._client.search_for_series(study, search_filters={"Modality": "SEG"}):
            series, count = value(listed, "0020000E"), value(listed, "00201209")
            if value(listed, "00080060") != "SEG" or not set(series) <= set("0123456789."):
                continue  # an archive that does not filter, or worse
            try:
                found += filter(None, (self._described(file) for file in self._files(study, series, count)))
            except Exception:  # one that cannot be had must not hide the others
                logger.exception("The archive did not give the segmentation %s", series)
        return found

    def _files(self, study: str, series: str, count: str) -> Sequence[Path]:
        """The files of a series; retrieved where that was not done before, or their number is another one now."""
        folder = self._folder / series
        known = sorted(folder.glob("*.dcm")) if folder.is_dir() else []
        if known and count in ("", str(len(known))):
            return known
        instances = self._client.retrieve_series(study, series)
        for file in known:
            self._read.pop(file, None)
        shutil.rmtree(folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as beside:
            beside.mkdir()
            for number, instance in enumerate(instances):
                instance.save_as(beside / f"{number:04}.dcm", write_like_original=False)
        return sorted(folder.glob("*.dcm"))

    def _described(self, file: Path) -> Segmentation | None:
        if file not in self._read:
            header = read_header(file)
            is_one = header is not None and is_segmentation(header)
            self._read[file] = Segmentation.of_header(file, header) if is_one else None
        return self._read[file]


def value(listed: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute in DICOM JSON; empty where there is none."""
    values = listed.get(tag, {}).get("Value") or [""]
    return str(values[0])
