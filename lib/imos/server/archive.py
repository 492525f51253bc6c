"""Archive: the datastore over DICOMweb.

Series are downloaded when they are opened. Final labels go to the archive as DICOM SEG, with the user's names, colours
and label values; and the newest DICOM SEG of a series, whoever made it, is its final label here.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.dicom import dicom_web_download_series

from imos.errors import UserError
from imos.imaging import Image, read_image, read_label_map
from imos.server.archive_segmentations import ArchiveSegmentations, value
from imos.server.datastores import FINAL, SafeDatastore, checked_tag, no_image
from imos.server.dicomweb.modalities import is_image
from imos.server.found_segmentations import NewestSegmentation
from imos.server.places import STATE_FOLDER
from imos.server.security import is_image_id
from imos.server.segmentations import write_segmentation
from imos.server.series_files import convert, grid_of
from imos.server.temporary import temporary_folder

logger = logging.getLogger(__name__)

_FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"
_LIST_SECONDS = 30.0


class ArchiveDatastore(SafeDatastore, DICOMWebDatastore):
    """A DICOMweb archive."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._images_there = _Refreshed(self._ask_for_images)
        self._labelled_there = _Refreshed(self._ask_for_labelled)
        self._locks: dict[str, threading.Lock] = {}
        self._looking: dict[str, threading.Lock] = {}
        self._newest = NewestSegmentation("archive", self._keep_segmentation)
        super().__init__(*arguments, **more)
        folder = Path(self._datastore_path) / STATE_FOLDER / "segmentations"
        self._segmentations = ArchiveSegmentations(self._client, folder)

    # Which images there are

    def list_images(self) -> list[str]:
        """Series that may be images."""
        return list(self._images_there.get())

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series with a segmentation, in the archive or stored just now."""
        with self._mutex:
            here = {name for name, one in self._datastore.objects.items() if FINAL in one.labels}
        return sorted((here | set(self._labelled_there.get())) & set(self.list_images()))

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series without a segmentation."""
        done = set(self.get_labeled_images())
        return [image for image in self.list_images() if image not in done]

    def _ask_for_images(self) -> list[str]:
        found = self._client.search_for_series(search_filters=self._search_filter)
        return [value(one, "0020000E") for one in found if is_image(value(one, "00080060"))]

    def _ask_for_labelled(self) -> list[str]:
        # Past MONAI Label's own cache, which is two hours old at worst.
        return list(DICOMWebDatastore.get_labeled_images.__wrapped__(self))

    # Images

    def get_image_uri(self, image_id: str) -> str:
        """Where the downloaded series lies, as one file.

        Raises:
            HTTPException: 404 where the archive has none, 422 where it is no volume, 502 where it does not answer.
        """
        if not is_image_id(image_id) or not set(image_id) <= set("0123456789."):
            raise no_image(image_id)
        try:
            with self._locks.setdefault(image_id, threading.Lock()):
                path, is_new = self._downloaded(image_id)
        except (IndexError, KeyError) as error:
            raise no_image(image_id) from error
        except UserError:
            raise
        except OSError as error:  # what requests raises
            logger.exception("The archive did not give %s", image_id)
            raise HTTPException(502, "The archive does not answer. Try again later.") from error
        if is_new:
            self.look_for_label(image_id)
        return str(path)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What the archive says about a series."""
        info = super().get_image_info(image_id)
        if "StudyInstanceUID" not in info and is_image_id(image_id):
            info |= self._dicom_info(image_id)
        return info

    def _downloaded(self, series: str) -> tuple[Path, bool]:
        """The file of a series, and whether it was made just now."""
        folder = self._series_folder(series)
        if not folder.is_dir() or not any(folder.iterdir()):
            # As a whole: of half a series nobody would see that slices are missing.
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as temporary:
                beside = Path(temporary) / series
                dicom_web_download_series(None, series, str(beside), self._client, self._fetch_by_frame)
                os.replace(beside, folder)
        if not self._convert_to_nifti:
            return folder, False
        file = self._file(series)
        with self._mutex:
            known = self._datastore.objects.get(series)
        # What MONAI Label itself has converted may be a volume of uneven or sheared slices.
        if known is not None and file.exists() and known.image.info.get("checked"):
            return file, False
        with temporary_folder() as temporary:
            made = Path(temporary) / file.name
            convert(folder, series, made, must_be_placed=True)
            self.add_image(series, str(made), self._dicom_info(series) | {"checked": True})
        return file, True

    def _series_folder(self, series: str) -> Path:
        return Path(self._datastore.image_path()).resolve() / series

    def _file(self, series: str) -> Path:
        return self._series_folder(series).with_name(f"{series}.nii.gz")

    # Labels

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Where a label lies; what only the archive has is taken in before."""
        image = image_id or label_id
        checked_tag(label_tag)
        if label_tag == FINAL and is_image_id(image) and self._datastore.label(image, label_tag) is None:
            self.look_for_label(image)
        with self._mutex:
            self._known_label(image, label_tag)
            return str(LocalDatastore.get_label_uri(self, image, label_tag))

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Files of images and final labels. MONAI Label's own removes labels here that the archive lacks."""
        for image in self.get_labeled_images():
            try:
                self.get_image_uri(image)
                self.look_for_label(image)
            except (UserError, HTTPException) as error:
                logger.warning("%s is not learned from: %s", image, getattr(error, "detail", error))
        with self._mutex:
            return list(LocalDatastore.datalist(self, full_path))

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Store a label here, and a final one in the archive first."""
        checked_tag(label_tag)
        info = dict(label_info or {})
        self.get_image_uri(image_id)
        if label_tag == FINAL:
            image = read_image(self._series_folder(image_id))
            info |= {"SeriesInstanceUID": self._store(Path(label_filename), image, info), "made": time.time()}
            info |= {name: self.get_image_info(image_id).get(name) for name in ("PatientID", "StudyInstanceUID")}
        return SafeDatastore.save_label(self, image_id, label_filename, label_tag, info)

    def look_for_label(self, image_id: str) -> None:
        """Make the newest DICOM SEG of a series its final label here, if that is newer than what is stored."""
        if not is_image_id(image_id):
            return
        with self._looking.setdefault(image_id, threading.Lock()):
            with self._mutex:
                image = self._datastore.objects.get(image_id)
                stored = None if image is None else image.labels.get(FINAL)
                study = "" if image is None else str(image.image.info.get("StudyInstanceUID", ""))
            if not study:
                return  # not opened yet
            there = self._segmentations.of_series(study, image_id)
            info = None if stored is None else dict(stored.info)
            self._newest.look(image_id, info, there, lambda: grid_of(self._file(image_id)))

    def notices(self, image_id: str) -> list[str]:
        """What a user should know who does not see a segmentation of the archive."""
        return self._newest.notices(image_id)

    def _keep_segmentation(self, image_id: str, file: Path, info: dict[str, Any]) -> None:
        # Past this class's own way of storing: the archive has it.
        SafeDatastore.save_label(self, image_id, str(file), FINAL, info)

    def _store(self, label: Path, image: Image, info: Mapping[str, Any]) -> str:
        """Send a label to the archive as DICOM SEG; returns the UID of its series."""
        import pydicom

        with temporary_folder() as folder:
            file = Path(folder) / "label.dcm"
            labels = read_label_map(label, image)
            write_segmentation(file, labels, image, info.get("label_info"), info.get("empty") or ())
            dataset = pydicom.dcmread(file)
            self._client.store_instances([dataset])
        return str(dataset.SeriesInstanceUID)


class _Refreshed:
    """An answer of the archive that may be half a minute old: who asks does not wait for the next one.

    Args:
        ask: Asks the archive.
    """

    def __init__(self, ask: Callable[[], list[str]]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._found: list[str] | None = None
        self._when = 0.0

    def get(self) -> list[str]:
        """What the archive answered; only the first one waits."""
        with self._lock:
            if self._found is None:
                self._found, self._when = self._ask(), time.monotonic()
            elif time.monotonic() - self._when > _LIST_SECONDS:
                self._when = time.monotonic()
                threading.Thread(target=self._refresh, name="ask-archive", daemon=True).start()
            return self._found

    def _refresh(self) -> None:
        try:
            found = self._ask()
        except Exception:  # whatever the archive's client raises; the old answer stays
            logger.exception("The archive did not list its series")
        else:
            with self._lock:
                self._found = found


def open_archive(studies: str) -> ArchiveDatastore:
    """The datastore of an archive.

    Args:
        studies: Its DICOMweb address.
    """
    url = studies.rstrip("/").strip()
    session = None
    if "googleapis.com" in url:
        from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials

        session = create_session_from_gcp_credentials()
    elif settings.MONAI_LABEL_DICOMWEB_USERNAME and settings.MONAI_LABEL_DICOMWEB_PASSWORD:
        from dicomweb_client.session_utils import create_session_from_user_pass

        session = create_session_from_user_pass(
            settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        )
    client = DICOMwebClientX(
        url=url,
        session=session,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    return ArchiveDatastore(
        client=client,
        search_filter=_search_filter(),
        cache_path=(settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or "").strip() or None,
        fetch_by_frame=settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        convert_to_nifti=settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
    )


def _search_filter() -> dict[str, Any]:
    """Which series the person who started the server wants to see; all where nobody said: MONAI Label shows CT alone.

    MONAI Label puts all settings into the environment, also those that nobody gave, before it starts further
    processes; what is not given is therefore said there, too.
    """
    if _FILTER not in settings.model_fields_set:
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = {}
        os.environ[_FILTER] = "{}"
    return dict(settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER)
