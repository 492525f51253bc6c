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
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore

from imos.errors import UserError
from imos.imaging import Image, read_image
from imos.imaging.dicom import is_segmentation
from imos.imaging.writing import replacing
from imos.server.conf import is_task_process
from imos.server.dicomweb.folder import DicomFile, DicomFolder
from imos.server.dicomweb.synthesis import uid
from imos.server.found_segmentations import NewestSegmentation, Segmentation, newest_first
from imos.server.missing_images import MissingImages
from imos.server.places import STATE_FOLDER
from imos.server.security import is_image_id, is_tag
from imos.server.series_files import convert, grid_of
from imos.server.upload_checks import check_file

logger = logging.getLogger(__name__)

FINAL = "final"

_LARGEST_INFO = 16 * 2**20
_LONGEST_ID = 200
"""Bytes: with a suffix and the name of a temporary file it is the name of a file still."""


def no_image(image_id: object) -> HTTPException:
    """What is raised where there is no such image: 404."""
    shown = str(image_id)[:80]
    return HTTPException(404, f"There is no image {shown!r} here. GET /datastore/ lists the images by their id.")


def checked_tag(tag: object) -> str:
    """A tag that may be part of a path; 422 for any other."""
    if not is_tag(tag):
        raise HTTPException(422, "The tag of a label consists of letters, digits, dot, dash and underscore.")
    return str(tag)


def checked_info(said: object) -> dict[str, Any]:
    """What is kept with an image or a label: a JSON object in the strict sense; 422 for any other.

    The table of all images is written with it: half a character or an infinite number would make all of it unreadable.
    """
    if not isinstance(said, Mapping):
        raise HTTPException(422, "What is stored with an image or a label is a JSON object, such as {}.")
    try:
        size = len(json.dumps(said, allow_nan=False, default=str, ensure_ascii=False).encode())
    except (ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        msg = "What is stored with an image or a label holds half a character, or a number that is none. Send it anew."
        raise HTTPException(422, msg) from error
    if size > _LARGEST_INFO:
        raise HTTPException(422, f"What is stored with an image or a label has {_LARGEST_INFO // 2**20} MB at most.")
    return dict(said)


def _check_file(file: str) -> None:
    try:
        check_file(Path(file))
    except UserError as error:
        raise HTTPException(422, str(error)) from error


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class SafeDatastore(LocalDatastore):
    """What a folder and an archive need. Its table may be read and changed by several threads."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._mutex = threading.RLock()
        super().__init__(*arguments, **more)

    def _known(self, image_id: object) -> ImageLabelModel:
        found = self._datastore.objects.get(image_id) if is_image_id(image_id) else None
        if found is None:
            raise no_image(image_id)
        return found

    def _known_label(self, label_id: object, tag: object) -> DataModel:
        found = self._known(label_id).labels.get(checked_tag(tag))
        if found is None:
            raise HTTPException(404, "There is no such label.")
        return found

    # Reading

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of an image; nothing where there is none."""
        with self._mutex:
            return dict(super().get_image_info(image_id)) if is_image_id(image_id) else {}

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Where a label lies; 404 where there is none."""
        with self._mutex:
            self._known_label(label_id, label_tag)
            return str(super().get_label_uri(label_id, label_tag))

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What was stored with a label; 404 where there is none."""
        with self._mutex:
            return dict(self._known_label(label_id, label_tag).info)

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Tag → id of every label of an image."""
        with self._mutex:
            return dict(super().get_labels_by_image_id(image_id))

    def list_images(self) -> list[str]:
        """Ids of all images."""
        with self._mutex:
            return list(super().list_images())

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the images with a final label."""
        with self._mutex:
            return list(super().get_labeled_images(label_tag, labels))

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the images without a final label."""
        with self._mutex:
            return list(super().get_unlabeled_images(label_tag, labels))

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Files of images and final labels, for the trainers of MONAI Label."""
        with self._mutex:
            return list(super().datalist(full_path))

    def status(self) -> dict[str, Any]:
        """How many images and labels there are."""
        with self._mutex:
            return dict(super().status())

    def json(self) -> dict[str, Any]:
        """The table."""
        with self._mutex:
            return dict(super().json())

    def look_for_label(self, image_id: str) -> None:
        """Take in the label of an image where it is elsewhere only; in a folder there is no elsewhere."""

    def notices(self, image_id: str) -> list[str]:
        """What a user should know who does not see a label that is elsewhere."""
        return []

    # Changing

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in a file; its labels stay where there was such an image."""
        name, suffix = self._to_id(os.path.basename(image_filename))
        image_id = image_id or name
        if not is_image_id(image_id):
            raise HTTPException(422, "The id of an image consists of letters, digits, dot, dash and underscore.")
        if suffix not in [pattern.lstrip("*") for pattern in self._extensions]:
            raise HTTPException(422, f"An image is one of {', '.join(self._extensions)}.")
        if len(image_id.encode()) > _LONGEST_ID:
            raise HTTPException(422, f"The id of an image has {_LONGEST_ID} bytes at most.")
        _check_file(image_filename)
        info = checked_info(image_info or {})
        with self._mutex, FileLock(self._lock_file):
            target = Path(self._datastore.image_path()) / self._filename(image_id, suffix)
            with replacing(target) as beside:
                shutil.copyfile(image_filename, beside)
            info |= {"ts": int(time.time()), "name": target.name}
            old = self._datastore.objects.get(image_id)
            made = ImageLabelModel(image=DataModel(info=info, ext=suffix))
            if old is not None:
                made.labels.update(old.labels)
            self._datastore.objects[image_id] = made
            self._update_datastore_file(lock=False)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Forget an image; 404 where there is none."""
        with self._mutex:
            self._known(image_id)
            super().remove_image(image_id)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label; the one that it replaces is kept aside."""
        checked_tag(label_tag)
        _name, suffix = self._to_id(os.path.basename(label_filename))
        if suffix not in [pattern.lstrip("*") for pattern in self._extensions]:
            raise HTTPException(422, f"A label is one of {', '.join(self._extensions)}.")
        _check_file(label_filename)
        info = checked_info(label_info or {})
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
            info |= {"ts": int(time.time()), "name": target.name}
            known.labels[label_tag] = DataModel(info=info, ext=suffix)
            self._update_datastore_file(lock=False)
            if before is not None and before.ext != suffix:
                (folder / self._filename(image_id, before.ext)).unlink(missing_ok=True)
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Forget a label; its file is kept aside."""
        with self._mutex:
            label = self._known_label(label_id, label_tag)
            self._keep(Path(self._datastore.label_path(label_tag)) / self._filename(label_id, label.ext), label_tag)
            super().remove_label(label_id, label_tag)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known of an image."""
        info = checked_info(info)
        with self._mutex:
            self._known(image_id)
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to what was stored with a label."""
        info = checked_info(info) | ({} if _is_time(info.get("ts", 0)) else {"ts": int(time.time())})
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
        # Hidden: files that are being written. And names in another encoding than the system's can be said to nobody.
        found = super()._list_files(path, patterns)
        return {name: file for name, file in found.items() if not name.startswith(".") and _is_text(name)}

    def _reconcile_datastore(self) -> None:
        with self._mutex:
            super()._reconcile_datastore()

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._mutex:
            try:
                super()._init_from_datastore_file(throw_exception)
            except ValueError as error:
                self._put_table_aside(error)

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._mutex:
            if lock:
                with FileLock(self._lock_file):
                    self._write_table()
            else:
                self._write_table()

    def _put_table_aside(self, error: ValueError) -> None:
        """Begin with the files that are there: a table that cannot be read must not keep the server from starting."""
        table = Path(self._datastore_config_path)
        aside = table.with_name(f"{table.stem}.unreadable-{time.strftime('%Y%m%d-%H%M%S')}{table.suffix}")
        table.replace(aside)
        reason = str(error).splitlines()[0]
        logger.error("%s cannot be read (%s). It is kept as %s; names of objects are in it.", table, reason, aside.name)

    def _write_table(self) -> None:
        text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        with replacing(Path(self._datastore_config_path)) as beside:
            beside.write_text(text, encoding="utf-8")
        self._config_ts = os.stat(self._datastore_config_path).st_mtime


class FolderDatastore(SafeDatastore):
    """A folder of images: files, and series of DICOM files anywhere in it, whose id is the UID of the series.

    Attributes:
        dicom: The DICOM files.
    """

    def __init__(self, datastore_path: str, **more: Any) -> None:
        self.dicom = DicomFolder(Path(datastore_path))
        self._converting = threading.Lock()
        self._looking = threading.Lock()
        self._newest = NewestSegmentation("folder", self._keep_segmentation)
        self._missing = MissingImages(Path(datastore_path) / STATE_FOLDER / "missing_images.json")
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

    # Segmentations that other programs stored

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the images with a final label, or a DICOM SEG in the folder."""
        done = set(super().get_labeled_images(label_tag, labels))
        there = frozenset().union(*(one.of for one in self._segmentations()))
        return [image for image in self.list_images() if image in done or self._series_of(image) in there]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the others."""
        done = set(self.get_labeled_images(label_tag, labels))
        return [image for image in self.list_images() if image not in done]

    def look_for_label(self, image_id: str) -> None:
        """Make the newest DICOM SEG of an image its final label, if that is newer than what is stored."""
        with self._mutex:
            known = self._datastore.objects.get(image_id)
            stored = None if known is None else known.labels.get(FINAL)
            info = None if stored is None else dict(stored.info)
        if known is None:
            return
        there = newest_first(self._segmentations(), self._series_of(image_id))
        if there:
            with self._looking:
                self._newest.look(image_id, info, there, lambda: self._grid(image_id))

    def notices(self, image_id: str) -> list[str]:
        """What a user should know who does not see a segmentation of the folder."""
        return self._newest.notices(image_id)

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Files of images and final labels."""
        for image in self.get_labeled_images():
            try:
                self.look_for_label(image)
            except (UserError, HTTPException) as error:
                logger.warning("%s is not learned from: %s", image, getattr(error, "detail", error))
        return super().datalist(full_path)

    def _segmentations(self) -> list[Segmentation]:
        files = [file for series in self.dicom.series().values() for file in series]
        return [Segmentation.of_header(one.path, one.header) for one in files if is_segmentation(one.header)]

    def _series_of(self, image_id: str) -> str:
        """The series that a DICOM SEG of an image refers to."""
        known = self._datastore.objects.get(image_id)
        return image_id if known is not None and not known.image.ext else uid("series", image_id)

    def _grid(self, image_id: str) -> Image:
        file = Path(self.get_image_uri(image_id))
        return grid_of(file) if file.name.endswith(".nii.gz") else read_image(file)

    def _keep_segmentation(self, image_id: str, file: Path, info: dict[str, Any]) -> None:
        self.save_label(image_id, str(file), FINAL, info)

    # Inside

    def _converted(self, series: str, links: Path) -> Path:
        """A DICOM series as one NIfTI file, which clients can download."""
        file = links.with_name(f"{series}.nii.gz")
        with self._converting:
            newest = max(part.path.stat().st_mtime for part in self.dicom.images()[series])
            if not file.exists() or file.stat().st_mtime < newest:
                convert(links, series, file)
        return file

    def _filename(self, id: str, ext: str) -> str:  # noqa: A002  MONAI Label's own name
        return str(super()._filename(id, ext)) if ext else f"{STATE_FOLDER}/series/{id}"

    def _add_non_existing_images(self) -> int:
        known = set(self._datastore.objects)
        added = int(super()._add_non_existing_images())
        for name, one in self._datastore.objects.items():
            if name not in known:
                one.image.info = self._missing.recall_image(name) | one.image.info
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
        before = {name: one.model_copy(deep=True) for name, one in self._datastore.objects.items()}
        removed = int(super()._remove_non_existing())
        gone = {name: one for name, one in before.items() if name not in self._datastore.objects and one.labels}
        if gone:
            files = {name: {tag: self._label_file(name, tag, one) for tag in one.labels} for name, one in gone.items()}
            self._missing.remember(gone, files)
        return removed

    def _reconcile_datastore(self) -> None:
        with self._mutex:
            super()._reconcile_datastore()
            self._missing.forget(self._datastore.objects)

    def _add_non_existing_labels(self, tag: str) -> int:
        known = {name for name, one in self._datastore.objects.items() if tag in one.labels}
        added = int(super()._add_non_existing_labels(tag))
        for name, one in self._datastore.objects.items() if added else ():
            if tag in one.labels and name not in known:
                info = self._missing.recall(name, tag, self._label_file(name, tag, one))
                one.labels[tag].info = info or one.labels[tag].info
        return added

    def _label_file(self, image_id: str, tag: str, known: ImageLabelModel) -> Path:
        return Path(self._datastore.label_path(tag)) / self._filename(image_id, known.labels[tag].ext)

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


def open_datastore(studies: str) -> LocalDatastore | None:
    """The datastore that `--studies` names.

    Args:
        studies: A folder, or the address of a DICOMweb archive.

    Returns:
        None for the kinds of archive that MONAI Label knows beside DICOMweb.

    Raises:
        UserError: It is a file.
    """
    if not studies.startswith(("http://", "https://")):
        if Path(studies).is_file():
            raise UserError(f"--studies {studies} is a file. Give the folder that it lies in, or a DICOMweb address.")
        return FolderDatastore(
            studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            # Beside the server, which alone changes the table: what it adds meanwhile would be overwritten.
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY or is_task_process(),
        )
    if settings.MONAI_LABEL_DATASTORE.lower() in ("xnat", "dsa"):
        return None
    from imos.server.archive import open_archive

    return open_archive(studies)
