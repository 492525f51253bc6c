"""Images that were read lately: a user runs again and again on the same one, and several users work at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from imos.imaging import Image, read_image

_Key = tuple[Path, int, int]


class ImageCache:
    """Keeps the images used last.

    Args:
        capacity: How many.
    """

    def __init__(self, capacity: int = 3) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._images: OrderedDict[_Key, Image] = OrderedDict()
        self._reading: dict[_Key, threading.Lock] = {}

    def read(self, path: Path) -> Image:
        """The image of a file or folder, read again when the file has changed.

        Raises:
            UserError: It cannot be read.
        """
        state = path.stat()
        key = (path, state.st_mtime_ns, state.st_size)
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:  # two users who ask for the same image wait for one reading, others do not
            with self._lock:
                if key in self._images:
                    self._images.move_to_end(key)
                    return self._images[key]
            try:
                image = read_image(path)
            finally:
                with self._lock:
                    self._reading.pop(key, None)
            with self._lock:
                self._images[key] = image
                while len(self._images) > self._capacity:
                    self._images.popitem(last=False)
            return image
