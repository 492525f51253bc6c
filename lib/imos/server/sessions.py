"""Sessions of MONAI Label (images that a client uploads for a while), with the holes closed."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.utils.sessions import Sessions

from imos.server.security import is_session_id


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
        """Keep an uploaded image."""
        if uncompress:
            raise HTTPException(422, "Archives are not unpacked. Upload the image itself, or the files of the series.")
        return super().add_session(data_file, expiry, uncompress, session_id)


def open_sessions() -> SafeSessions:
    """The sessions of this server."""
    return SafeSessions(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY)
