"""Sessions of MONAI Label (images that a client uploads for a while), with the holes closed."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.utils.sessions import SessionInfo, Sessions

from imos.errors import UserError
from imos.imaging.writing import replacing
from imos.server.security import is_session_id
from imos.server.upload_checks import check_upload

logger = logging.getLogger(__name__)

_INFO = "meta.info"

_OWN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Ids of uploaded images; whatever else lies beside them is not ours."""


class SafeSessions(Sessions):
    """Only ids that this server can have made are looked up, and archives are not unpacked.

    What is over is removed also after a restart, and whatever a killed server has left of a session.
    """

    def __bool__(self) -> bool:
        # MONAI Label removes what is over if this holds. By the length of the dictionary it would not after a restart:
        # the sessions are on the disk, and none has been asked for yet.
        return True

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """A session; None where there is none."""
        if not is_session_id(session_id):
            return None
        try:
            return super().get_session(session_id, update_ts, fetch_cache)
        except (ValueError, AttributeError):  # half a file; goes when its time is over
            return None

    def remove_session(self, session_id: str) -> None:
        """Forget a session."""
        if is_session_id(session_id):
            super().remove_session(session_id)

    def remove_expired(self) -> int:
        """Remove what nobody has used for as long as it was to be kept; how many there were."""
        now = time.time()
        over = [
            folder.name
            for folder in Path(self.store_path).glob("*")
            if _OWN.fullmatch(folder.name) and folder.is_dir() and self._end(folder) < now
        ]
        for session_id in over:
            self.remove_session(session_id)
        if over:
            logger.info("Removed %d uploaded images that nobody has used for long.", len(over))
        return len(over)

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> Any:
        """Keep an uploaded image, which may be a folder of the files of one; 422 if it must not be read."""
        try:
            if uncompress:
                msg = "Archives are not unpacked. Upload the image itself, or the files of the series."
                raise UserError(msg)
            check_upload(Path(data_file))
        except UserError as error:
            raise HTTPException(422, str(error)) from error
        return super().add_session(data_file, expiry, uncompress, session_id)

    def _end(self, folder: Path) -> float:
        """When a session is over, seconds since 1970."""
        try:
            said = json.loads((folder / _INFO).read_text(encoding="utf-8"))
            return float(said["last_access_ts"]) + float(said["expiry"])
        except (OSError, ValueError, LookupError, TypeError):
            pass
        try:  # being written, or left by a killed server
            return folder.stat().st_mtime + float(self.expiry)
        except FileNotFoundError:
            return math.inf

    def _write_meta_info(self, session_id: str, session_info: SessionInfo) -> None:
        with replacing(Path(self.store_path) / session_id / _INFO) as beside:
            beside.write_text(session_info.to_str(), encoding="utf-8")


def open_sessions() -> SafeSessions:
    """The sessions of this server."""
    return SafeSessions(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY)
