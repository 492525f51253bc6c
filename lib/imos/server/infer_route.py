"""`POST /infer/{model}`, in place of MONAI Label's own.

Same request, same answer; different in four things: it runs in a worker thread (MONAI Label's own blocks every other
request meanwhile), `params` cannot override image or mask, nothing in the request is taken for a path, and the user's
mistakes are answered with 4xx and a sentence.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, Query, Request, Response, UploadFile
from monailabel.config import RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import get_mime_type
from requests_toolbelt import MultipartEncoder

from imos.errors import UserError
from imos.server.dicomweb.synthesis import series_grid
from imos.server.inference import image_path
from imos.server.parameters import Parameters
from imos.server.sentences import SentenceRoute
from imos.server.temporary import temporary_folder
from imos.server.upload_checks import check_file
from imos.server.uploads import IMAGE_SUFFIXES, LABEL_SUFFIXES, Upload, store
from imos.server.workbench import Workbench

_SESSION_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")


class Output(StrEnum):
    """What the answer consists of."""

    ALL = "all"
    JSON = "json"
    IMAGE = "image"
    DICOM_SEG = "dicom_seg"


router = APIRouter(prefix=f"{settings.MONAI_LABEL_API_STR}/infer", tags=["Infer"], route_class=SentenceRoute)


@router.post(
    "/{model}",
    summary=f"{RBAC_USER}Propagate painted slices through an image",
    dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    responses={404: {"description": "No such model or image"}, 422: {"description": "What is wrong with the request"}},
)
def infer(
    model: str,
    http: Request,
    image: Annotated[str, Query(description="Id of an image of the datastore, or UID of its series")] = "",
    session_id: Annotated[str, Query(description="Id of a session, for an image uploaded before")] = "",
    output: Annotated[Output | None, Query(description="What to answer; default all")] = None,
    params: Annotated[str, Form(description="JSON object")] = "{}",
    file: Annotated[UploadFile | None, File(description="An image, instead of the id of one")] = None,
    label: Annotated[UploadFile | None, File(description="The painted mask: .nii.gz, .nii, .nrrd, .mha, .bin")] = None,
) -> Response:
    """Answer one request. A plain `def`: Starlette runs it in a thread, so other requests are answered meanwhile."""
    app = app_instance()
    with temporary_folder() as temporary:
        folder = Path(temporary)
        try:
            if output is Output.DICOM_SEG:
                msg = "output=dicom_seg is not offered; use output=image and store it with PUT /datastore/label."
                raise UserError(msg)
            request: dict[str, Any] = {"model": model, "parameters": Parameters.parse(params)}
            if file is not None:
                request["image"] = store(file, folder, "image", IMAGE_SUFFIXES)
                check_file(request["image"].path)
            elif session_id:
                request |= {"image": session_image(app.sessions(), session_id), "session_id": session_id}
            else:
                request |= image_as_seen(http.app.state.imos, image)
            if label is not None:
                request["label"] = store(label, folder, "label", LABEL_SUFFIXES)
            result = app.infer(request)
        except UserError as error:
            raise HTTPException(422, str(error)) from error
        if result["file"] is None:
            # Multipart all the same: what MONAI Label's client class makes of plain JSON, 3D Slicer cannot read.
            said = MultipartEncoder({"params": (None, json.dumps(result["params"]), "application/json")})
            return Response(said.to_string(), media_type=said.content_type)
        written = Path(result["file"])
        try:
            return answer(result["params"], written, output or Output.ALL)
        finally:
            written.unlink(missing_ok=True)


def answer(params: dict[str, Any], result: Path, output: Output) -> Response:
    """The HTTP answer: JSON, the file, or both as multipart."""
    said = json.dumps(params)
    if output is Output.JSON:
        return Response(said, media_type="application/json")
    content, kind = result.read_bytes(), get_mime_type(str(result))
    if output is Output.IMAGE:
        return Response(
            content, media_type=kind, headers={"content-disposition": f'attachment; filename="{result.name}"'}
        )
    parts = MultipartEncoder({"params": (None, said, "application/json"), "image": (result.name, content, kind)})
    return Response(parts.to_string(), media_type=parts.content_type)


def image_as_seen(bench: Workbench, image: str) -> dict[str, Any]:
    """`image`, and `grid` where the client sees it on another one than the image's own.

    OHIF names an image by its series. For a file that is no DICOM, the series was made here and orders the voxels in
    its own way; OHIF's own panel speaks in indices of that series, and reads answers without looking where they lie.
    """
    found = bench.image_id(image)
    if found == image:
        return {"image": image}
    return {"image": found, "grid": series_grid(bench.images.read(image_path(bench.datastore, found)))}


def session_image(sessions: Any, session_id: str) -> Upload:
    """The image of a MONAI Label session (`PUT /session/`).

    Raises:
        HTTPException: 404, there is no such session, or it has expired.
    """
    found = sessions.get_session(session_id) if sessions and _SESSION_ID.fullmatch(session_id) else None
    if found is None:
        raise HTTPException(404, "There is no such session, or it has expired. Upload the image again.")
    return Upload(path=Path(found.image), name="session")


def remove_stock() -> None:
    """Remove MONAI Label's own route of the same path."""
    from monailabel.endpoints import infer as stock

    stock.router.routes[:] = [route for route in stock.router.routes if getattr(route, "path", "") != "/infer/{model}"]
