"""Datastores: MONAI Label's own, with the holes closed.

MONAI Label's datastores take any id and tag as part of a path, copy labels in place, and rewrite their table in place,
so that a killed server can leave half a label or no table. Here every name is checked, files are replaced as a whole,
and a label that is replaced by another one is kept beside the server's own files.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
from fastapi import HTTPException
from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore

from imos.errors import UserError
from imos.imaging import Image, read_image, read_label_map
from imos.imaging.writing import replacing
from imos.server.conf import is_task_process
from imos.server.dicomweb.folder import IMAGE_MODALITIES, DicomFile, DicomFolder
from imos.server.places import STATE_FOLDER
from imos.server.security import is_image_id, is_tag
from imos.server.upload_checks import check_file

logger = logging.getLogger(__name__)

FINAL = "final"
_LIST_SECONDS = 30.0


def _no_image(image_id: object) -> HTTPException:
    shown = str(image_id)[:80]
    return HTTPException(404, f"There is no image {shown!r} here. GET /datastore/ lists the images by their id.")


def _check_tag(tag: object) -> str:
    if not is_tag(tag):
        raise HTTPException(422, "The tag of a label consists of letters, digits, dot, dash and underscore.")
    return str(tag)


def _check_file(file: str) -> None:
    try:
        check_file(Path(file))
    except UserError as error:
        raise HTTPException(422, str(error)) from error


class _Safe(LocalDatastore):
    """What both datastores need. Its table may be read and changed by several threads."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._mutex = threading.RLock()
        super().__init__(*arguments, **more)

    def _known(self, image_id: object) -> ImageLabelModel:
        found = self._datastore.objects.get(image_id) if is_image_id(image_id) else None
        if found is None:
            raise _no_image(image_id)
        return found

    def _known_label(self, label_id: object, tag: object) -> DataModel:
        found = self._known(label_id).labels.get(_check_tag(tag))
        if found is None:
            raise HTTPException(404, "There is no such label.")
        return found

    # Reading

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        with self._mutex:
            return dict(super().get_image_info(image_id)) if is_image_id(image_id) else {}

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        with self._mutex:
            self._known_label(label_id, label_tag)
            return str(super().get_label_uri(label_id, label_tag))

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        with self._mutex:
            return dict(self._known_label(label_id, label_tag).info)

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        with self._mutex:
            return dict(super().get_labels_by_image_id(image_id))

    def list_images(self) -> list[str]:
        with self._mutex:
            return list(super().list_images())

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        with self._mutex:
            return list(super().get_labeled_images(label_tag, labels))

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        with self._mutex:
            return list(super().get_unlabeled_images(label_tag, labels))

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        with self._mutex:
            return list(super().datalist(full_path))

    def status(self) -> dict[str, Any]:
        with self._mutex:
            return dict(super().status())

    def json(self) -> dict[str, Any]:
        with self._mutex:
            return dict(super().json())

    # Changing

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        name, suffix = self._to_id(os.path.basename(image_filename))
        image_id = image_id or name
        if not is_image_id(image_id):
            raise HTTPException(422, "The id of an image consists of letters, digits, dot, dash and underscore.")
        if suffix not in [pattern.lstrip("*") for pattern in self._extensions]:
            raise HTTPException(422, f"An image is one of {', '.join(self._extensions)}.")
        _check_file(image_filename)
        with self._mutex, FileLock(self._lock_file):
            target = Path(self._datastore.image_path()) / self._filename(image_id, suffix)
            with replacing(target) as beside:
                shutil.copyfile(image_filename, beside)
            info = dict(image_info or {}) | {"ts": int(time.time()), "name": target.name}
            old = self._datastore.objects.get(image_id)
            made = ImageLabelModel(image=DataModel(info=info, ext=suffix))
            if old is not None:
                made.labels.update(old.labels)
            self._datastore.objects[image_id] = made
            self._update_datastore_file(lock=False)
        return image_id

    def remove_image(self, image_id: str) -> None:
        with self._mutex:
            self._known(image_id)
            super().remove_image(image_id)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        _check_tag(label_tag)
        _name, suffix = self._to_id(os.path.basename(label_filename))
        if suffix not in [pattern.lstrip("*") for pattern in self._extensions]:
            raise HTTPException(422, f"A label is one of {', '.join(self._extensions)}.")
        _check_file(label_filename)
        with self._mutex, FileLock(self._lock_file):
            known = self._known(image_id)
            folder = Path(self._datastore.label_path(label_tag))
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / self._filename(image_id, suffix)
            before = known.labels.get(label_tag)
            if before is not None:
                self._keep(folder / self._filename(image_id, before.ext), label_tag)
            with replacing(target) as beside:
                shutil.copyfile(label_filename, beside)
            info = dict(label_info or {}) | {"ts": int(time.time()), "name": target.name}
            known.labels[label_tag] = DataModel(info=info, ext=suffix)
            self._update_datastore_file(lock=False)
            if before is not None and before.ext != suffix:
                (folder / self._filename(image_id, before.ext)).unlink(missing_ok=True)
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        with self._mutex:
            label = self._known_label(label_id, label_tag)
            self._keep(Path(self._datastore.label_path(label_tag)) / self._filename(label_id, label.ext), label_tag)
            super().remove_label(label_id, label_tag)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._mutex:
            self._known(image_id)
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._mutex:
            self._known_label(label_id, label_tag)
            super().update_label_info(label_id, label_tag, info)

    # Inside

    def _keep(self, label: Path, tag: str) -> None:
        """Put a label that will be replaced aside: what was accepted once is never lost."""
        if not label.is_file():
            return
        folder = Path(self._datastore_path) / STATE_FOLDER / "replaced" / tag
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09}-{label.name}") as beside:
            shutil.copyfile(label, beside)

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        # Hidden: files that are being written.
        return {name: file for name, file in super()._list_files(path, patterns).items() if not name.startswith(".")}

    def _reconcile_datastore(self) -> None:
        with self._mutex:
            super()._reconcile_datastore()

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._mutex:
            super()._init_from_datastore_file(throw_exception)

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._mutex:
            if lock:
                with FileLock(self._lock_file):
                    self._write_table()
            else:
                self._write_table()

    def _write_table(self) -> None:
        text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        with replacing(Path(self._datastore_config_path)) as beside:
            beside.write_text(text, encoding="utf-8")
        self._config_ts = os.stat(self._datastore_config_path).st_mtime


class FolderDatastore(_Safe):
    """A folder of images: files, and series of DICOM files anywhere in it, whose id is the UID of the series.

    Attributes:
        dicom: The DICOM files.
    """

    def __init__(self, datastore_path: str, **more: Any) -> None:
        self.dicom = DicomFolder(Path(datastore_path))
        self._converting = threading.Lock()
        super().__init__(datastore_path, **more)

    def look(self) -> Mapping[str, list[DicomFile]]:
        """All DICOM series; those that came or went since the last look are images from now on, or no more."""
        found = self.dicom.series()
        with self._mutex:
            known = {name for name, one in self._datastore.objects.items() if one.image.ext == ""}
            if known != self.dicom.images().keys():
                self._reconcile_datastore()
        return found

    def get_image_uri(self, image_id: str) -> str:
        """Where an image lies, as one file; 404 where there is none, 422 where a series is no volume."""
        with self._mutex:
            known = self._known(image_id)
            path = str(super().get_image_uri(image_id))
        return path if known.image.ext else str(self._converted(image_id, Path(path)))

    def _converted(self, series: str, links: Path) -> Path:
        """A DICOM series as one NIfTI file, which clients can download."""
        file = links.with_name(f"{series}.nii.gz")
        with self._converting:
            newest = max(part.path.stat().st_mtime for part in self.dicom.images()[series])
            if not file.exists() or file.stat().st_mtime < newest:
                image = read_image(links)
                with replacing(file) as beside:
                    nibabel.save(nibabel.Nifti1Image(image.voxels, image.affine), beside)
        return file

    def _filename(self, id: str, ext: str) -> str:  # noqa: A002  MONAI Label's own name
        return str(super()._filename(id, ext)) if ext else f"{STATE_FOLDER}/series/{id}"

    def _add_non_existing_images(self) -> int:
        added = int(super()._add_non_existing_images())
        for series, files in self.dicom.images().items():
            if not is_image_id(series):
                continue
            self._link(series, files)
            if series not in self._datastore.objects:
                header = files[0].header
                info: dict[str, Any] = {
                    name: str(header.get(name, "")) for name in ("StudyInstanceUID", "Modality", "PatientID")
                }
                info |= {"SeriesInstanceUID": series, "ts": int(time.time()), "name": series}
                self._datastore.objects[series] = ImageLabelModel(image=DataModel(info=info, ext=""))
                added += 1
        return added

    def _remove_non_existing(self) -> int:
        folder = Path(self._datastore_path) / STATE_FOLDER / "series"
        there = self.dicom.images()
        for links in folder.iterdir() if folder.is_dir() else []:
            if links.is_dir() and links.name not in there:
                shutil.rmtree(links)
        return int(super()._remove_non_existing())

    def _link(self, series: str, files: Sequence[DicomFile]) -> None:
        """Give a series a folder of its own, wherever its files lie."""
        folder = Path(self._datastore_path) / STATE_FOLDER / "series" / series
        wanted = {f"{number:05}.dcm": file.path for number, file in enumerate(files)}
        if folder.is_dir() and {link.name: Path(os.readlink(link)) for link in folder.iterdir()} == wanted:
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, path in wanted.items():
            (folder / name).symlink_to(path)


class ArchiveDatastore(_Safe, DICOMWebDatastore):
    """A DICOMweb archive.

    Final labels go to the archive as DICOM SEG, with the user's names, colours and label values.
    """

    is_filtered = False
    """Whether the person who started the server said which series to show."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._images_there = _Refreshed(self._ask_for_images)
        self._labelled_there = _Refreshed(self._ask_for_labelled)
        super().__init__(*arguments, **more)

    def list_images(self) -> list[str]:
        """Series that may be images."""
        return list(self._images_there.get())

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series with a segmentation, in the archive or stored just now."""
        with self._mutex:
            here = {name for name, one in self._datastore.objects.items() if FINAL in one.labels}
        return sorted((here | set(self._labelled_there.get())) & set(self.list_images()))

    def _ask_for_images(self) -> list[str]:
        filters = self._search_filter if self.is_filtered else {}
        return [
            _value(one, "0020000E")
            for one in self._client.search_for_series(search_filters=filters)
            if self.is_filtered or _value(one, "00080060") in IMAGE_MODALITIES
        ]

    def _ask_for_labelled(self) -> list[str]:
        # Past MONAI Label's own cache, which is two hours old at worst.
        return list(DICOMWebDatastore.get_labeled_images.__wrapped__(self))

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series without a segmentation."""
        done = set(self.get_labeled_images())
        return [image for image in self.list_images() if image not in done]

    def get_image_uri(self, image_id: str) -> str:
        """Where the downloaded series lies; 404 where the archive has none, 502 where it does not answer."""
        if not is_image_id(image_id) or not set(image_id) <= set("0123456789."):
            raise _no_image(image_id)
        try:
            return str(DICOMWebDatastore.get_image_uri(self, image_id))
        except (IndexError, KeyError) as error:
            raise _no_image(image_id) from error
        except OSError as error:  # what requests raises
            logger.exception("The archive did not give %s", image_id)
            raise HTTPException(502, "The archive does not answer. Try again later.") from error

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What the archive says about a series."""
        info = super().get_image_info(image_id)
        if "StudyInstanceUID" not in info and is_image_id(image_id):
            info |= self._dicom_info(image_id)
        return info

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Where a label lies: the one stored here, else the one downloaded from the archive."""
        _check_tag(label_tag)
        here = self._datastore.label(label_id, label_tag)
        if here is not None and not image_id:
            return str(Path(self._datastore.label_path(label_tag)) / self._filename(label_id, here.ext))
        return str(DICOMWebDatastore.get_label_uri(self, label_id, label_tag, image_id))

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Store a label here, and a final one in the archive first."""
        _check_tag(label_tag)
        info = dict(label_info or {})
        self.get_image_uri(image_id)
        if label_tag == FINAL:
            folder = Path(self._datastore.image_path()) / image_id
            image = read_image(folder.resolve())
            info |= {"SeriesInstanceUID": self._store(Path(label_filename), image, info)}
            info |= {name: self.get_image_info(image_id).get(name) for name in ("PatientID", "StudyInstanceUID")}
        return _Safe.save_label(self, image_id, label_filename, label_tag, info)

    def _store(self, label: Path, image: Image, info: Mapping[str, Any]) -> str:
        """Send a label to the archive as DICOM SEG; returns the UID of its series."""
        import pydicom

        from imos.server.segmentations import write_segmentation

        with tempfile.TemporaryDirectory(prefix="imos-") as folder:
            file = Path(folder) / "label.dcm"
            write_segmentation(file, read_label_map(label, image), image, info.get("label_info"))
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


def _value(dataset: Mapping[str, Any], tag: str) -> str:
    values = dataset.get(tag, {}).get("Value") or [""]
    return str(values[0])


def open_datastore(studies: str) -> LocalDatastore | None:
    """The datastore that `--studies` names.

    Args:
        studies: A folder, or the address of a DICOMweb archive.

    Returns:
        None for the kinds of archive that MONAI Label knows beside DICOMweb.
    """
    if not studies.startswith(("http://", "https://")):
        return FolderDatastore(
            studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            # Beside the server, which alone changes the table: what it adds meanwhile would be overwritten.
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY or is_task_process(),
        )
    if settings.MONAI_LABEL_DATASTORE.lower() in ("xnat", "dsa"):
        return None
    from monailabel.datastore.dicom import DICOMwebClientX

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
    store = ArchiveDatastore(
        client=client,
        search_filter=settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
        cache_path=(settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or "").strip() or None,
        fetch_by_frame=settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        convert_to_nifti=settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
    )
    # MONAI Label shows CT alone unless told otherwise.
    store.is_filtered = settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER != {"Modality": "CT"}
    return store
