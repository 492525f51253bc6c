"""`PUT /session`, in place of MONAI Label's own route: what was refused leaves nothing among the temporary files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, HTTPException, UploadFile
from monailabel.config import RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from imos.errors import UserError
from imos.server.sentences import SentenceRoute
from imos.server.temporary import temporary_folder

router = APIRouter(prefix=f"{settings.MONAI_LABEL_API_STR}/session", tags=["Session"], route_class=SentenceRoute)

_LONGEST_NAME = 200
"""Bytes."""


@router.put("/", summary=f"{RBAC_USER}Create new session with Image")
def create_session(
    files: Annotated[list[UploadFile], File(description="An image, or the files of one series")],
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    uncompress: bool = False,
    expiry: int = 0,
) -> dict[str, Any]:
    """Keep an image for `expiry` seconds after its last use (0: as long as the server keeps any)."""
    sessions = app_instance().sessions()
    if sessions is None:
        raise HTTPException(406, "This server keeps no uploaded images. Start it without MONAI_LABEL_SESSIONS=false.")
    names = [_name(part) for part in files]
    if len(set(names)) < len(names):
        raise UserError("Two of the files have one name. Give each file of an image a name of its own.")
    with temporary_folder() as folder:
        image = Path(folder) / "image"
        image.mkdir()
        for name, part in zip(names, files, strict=True):
            with (image / name).open("wb") as file:
                shutil.copyfileobj(part.file, file)
        kept = image / names[0] if len(names) == 1 else image
        session, info = sessions.add_session(str(kept), expiry, uncompress)
    return {"session_id": session, "session_info": info.to_json()}


def _name(part: UploadFile) -> str:
    name = Path((part.filename or "image").replace("\\", "/")).name
    if name in ("", "..") or "\0" in name or len(name.encode(errors="replace")) > _LONGEST_NAME:
        raise UserError("A file of the request has a name that no file can have. Rename it.")
    return name
