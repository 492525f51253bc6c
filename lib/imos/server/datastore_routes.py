"""What stock clients send to `/datastore`, in place of MONAI Label's own routes for it.

Same requests, same answers; different in three things: a file that is no label of the image is refused before it takes
the place of one that is, what comes with a file is checked before anything is stored, and files of requests that were
refused do not stay among the temporary ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, Query, Request, UploadFile
from monailabel.config import RBAC_ANNOTATOR, settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from imos.imaging import read_label_map
from imos.server.datastores import FINAL, SafeDatastore
from imos.server.inference import image_path
from imos.server.sentences import SentenceRoute
from imos.server.temporary import temporary_folder
from imos.server.upload_checks import check_file
from imos.server.uploads import store
from imos.server.workbench import Workbench

router = APIRouter(prefix=f"{settings.MONAI_LABEL_API_STR}/datastore", tags=["Datastore"], route_class=SentenceRoute)

Annotator = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
Said = Annotated[str, Form(description="JSON object")]


@router.put("/label", summary=f"{RBAC_ANNOTATOR}Save Finished Label")
def save_label(
    http: Request,
    image: str,
    label: Annotated[UploadFile, File(description="The label map")],
    user: Annotator,
    params: Said = "{}",
    tag: Annotated[str, Query(description="`final` for what was accepted")] = FINAL,
) -> dict[str, Any]:
    """Store a label; the one that it replaces is kept aside."""
    bench: Workbench = http.app.state.imos
    info = _object(params, "params")
    with temporary_folder() as folder:
        file = store(label, Path(folder), "label", _suffixes(bench)).path
        check_file(file)
        read_label_map(file, bench.images.read(image_path(bench.datastore, image)), may_be_empty=True)
        label_id = bench.datastore.save_label(image, str(file), tag or FINAL, info)
    return dict(app_instance().on_save_label(image, label_id) or {}) | {"image": image, "label": label_id}


@router.put("/", include_in_schema=False, deprecated=True)
@router.put("/image", summary=f"{RBAC_ANNOTATOR}Upload new Image")
def add_image(
    http: Request,
    file: Annotated[UploadFile, File(description="The image")],
    user: Annotator,
    image: Annotated[str | None, Query(description="Its id; None: its file's name")] = None,
    params: Said = "{}",
) -> dict[str, Any]:
    """Store an image."""
    bench: Workbench = http.app.state.imos
    info = _object(params, "params") | ({"user": user.username} if user.username else {})
    with temporary_folder() as folder:
        upload = store(file, Path(folder), "image", _suffixes(bench))
        name = image or upload.name.removesuffix("".join(Path(upload.name).suffixes))
        return {"image": bench.datastore.add_image(name, str(upload.path), info)}


@router.put("/image/info", summary=f"{RBAC_ANNOTATOR}Update Image Info")
def update_image_info(http: Request, image: str, user: Annotator, info: Said = "{}") -> None:
    """Add to what is known of an image."""
    said = _object(info, "info") | ({"user": user.username} if user.username else {})
    http.app.state.imos.datastore.update_image_info(image, said)


@router.put("/label/info", summary=f"{RBAC_ANNOTATOR}Update Label Info")
def update_label_info(http: Request, label: str, tag: str, user: Annotator, info: Said = "{}") -> None:
    """Add to what was stored with a label."""
    said = _object(info, "info") | ({"user": user.username} if user.username else {})
    http.app.state.imos.datastore.update_label_info(label, tag, said)


@router.put("/updatelabelinfo", include_in_schema=False, deprecated=True)
def update_label_info_as_before(http: Request, label: str, tag: str, user: Annotator, params: Said = "{}") -> None:
    """The same, by the name that it had before."""
    update_label_info(http, label, tag, user, params)


def _suffixes(bench: Workbench) -> tuple[str, ...]:
    """Of the files that the datastore takes, the longest first."""
    datastore = bench.datastore
    assert isinstance(datastore, SafeDatastore)  # elsewhere these routes are not installed
    return tuple(sorted((pattern.lstrip("*") for pattern in datastore._extensions), key=len, reverse=True))


def _object(said: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(said or "{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"`{name}` is not JSON. Send an object such as {{}}.") from error
    if not isinstance(found, dict):
        raise HTTPException(422, f"`{name}` must be a JSON object such as {{}}, not a {type(found).__name__}.")
    return found
