"""Missing images: what is known of the labels of an image that is away, until it is back.

MONAI Label forgets an image whose file is gone, and with it what was stored with its labels: names, colours, which
slices were accepted. The files of the labels stay where they are. Images in a folder that is synchronised, or that are
copied anew, are away for a moment only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.datastore.local import ImageLabelModel

from imos.imaging.writing import replacing

logger = logging.getLogger(__name__)


class MissingImages:
    """The file of what was known.

    Args:
        path: The file; made when the first image goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def remember(self, gone: Mapping[str, ImageLabelModel], files: Mapping[str, Mapping[str, Path]]) -> None:
        """Keep what is known of the labels of images that are away.

        Args:
            gone: The images, by id.
            files: Of each image its labels' files, by tag; those that are not there count for nothing.
        """
        said = self._read()
        for image, one in gone.items():
            labels = {
                tag: {"info": one.labels[tag].info, "state": _state(file)}
                for tag, file in files.get(image, {}).items()
                if file.is_file()
            }
            if labels:
                said[image] = {"info": one.image.info, "labels": labels}
        self._write(said)

    def recall(self, image: str, tag: str, file: Path) -> dict[str, Any] | None:
        """What was stored with a label; None where nothing is known, or the file is another one by now."""
        known = self._read().get(image, {}).get("labels", {}).get(tag)
        return dict(known["info"]) if known is not None and known["state"] == _state(file) else None

    def recall_image(self, image: str) -> dict[str, Any]:
        """What was known of an image itself."""
        return dict(self._read().get(image, {}).get("info", {}))

    def forget(self, there: Mapping[str, ImageLabelModel]) -> None:
        """Forget what is there again with all its labels.

        Args:
            there: All images.
        """
        said = self._read()
        left = {
            image: one
            for image, one in said.items()
            if image not in there or not there[image].labels.keys() >= one.get("labels", {}).keys()
        }
        if left != said:
            self._write(left)

    def _read(self) -> dict[str, Any]:
        try:
            said = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read: %s", self._path, error)
            return {}
        return said if isinstance(said, dict) else {}

    def _write(self, said: Mapping[str, Any]) -> None:
        if not said and not self._path.exists():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path) as beside:
            beside.write_text(json.dumps(said, default=str), "utf-8")


def _state(file: Path) -> list[int]:
    state = file.stat()
    return [state.st_size, state.st_mtime_ns]
