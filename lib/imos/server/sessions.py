"""Sessions of MONAI Label (images that a client uploads for a while), with the holes closed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.utils.sessions import Sessions

from imos.errors import UserError
from imos.server.security import is_session_id
from imos.server.upload_checks import check_upload


class SafeSessions(Sessions):
    """Only ids that this server can have made are looked up, and archives are not unpacked."""

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """A session; None where there is none."""
        if not is_session_id(session_id):
            return None
        return super().get_session(session_id, update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        """Forget a session."""
        if is_session_id(session_id):
            super().remove_session(session_id)

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
            _forget(Path(data_file))
            raise HTTPException(422, str(error)) from error
        return super().add_session(data_file, expiry, uncompress, session_id)


def _forget(upload: Path) -> None:
    """Remove what was refused: MONAI Label removes it after good answers only."""
    if upload.is_dir():
        shutil.rmtree(upload, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        upload.unlink()
        upload.parent.rmdir()  # made for this one file, else it is not empty


def open_sessions() -> SafeSessions:
    """The sessions of this server."""
    return SafeSessions(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY)
