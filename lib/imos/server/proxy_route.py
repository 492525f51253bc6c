"""`/proxy/dicom`, in place of MONAI Label's own: the way to a DICOMweb archive, and to nothing else of it.

MONAI Label's proxy follows `..` up to the archive's administration, drops the query (so that OHIF's search finds
everything), and blocks all other requests while the archive answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import requests
from fastapi import APIRouter, Body, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

_PATH = re.compile(r"(studies|series|instances|bulkdata)(/[A-Za-z0-9._,:=-]+)*/?")
_STORE = re.compile(r"studies(/[0-9.]+)?/?")
_TIMEOUT = (10, 300)
_KEPT = ("content-type", "content-length", "content-encoding", "etag", "last-modified")

router = APIRouter(
    prefix="/proxy/dicom",
    include_in_schema=False,
    dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
)


@router.get("/{service}/{path:path}")
def read(service: str, path: str, request: Request) -> Response:
    """A search or retrieval."""
    return _forward("GET", service, path, request, b"")


@router.post("/{service}/{path:path}")
def store(
    service: str, path: str, request: Request, body: Annotated[bytes, Body(media_type="application/octet-stream")] = b""
) -> Response:
    """Storing, which is the only thing that is posted to DICOMweb."""
    if not _STORE.fullmatch(path):
        raise HTTPException(404, "There is nothing here.")
    return _forward("POST", service, path, request, body)


def _forward(method: str, service: str, path: str, request: Request, body: bytes) -> Response:
    prefixes = {
        "qido": settings.MONAI_LABEL_QIDO_PREFIX,
        "wado": settings.MONAI_LABEL_WADO_PREFIX,
        "stow": settings.MONAI_LABEL_STOW_PREFIX,
    }
    if service not in prefixes:
        service, path = "", f"{service}/{path}"
    if not _PATH.fullmatch(path) or any(set(part) <= {"."} for part in path.rstrip("/").split("/")):
        raise HTTPException(404, "There is nothing here.")
    if path.endswith("metadata") and service == "qido":
        service = "wado"  # some versions of OHIF ask for it there
    prefix = prefixes.get(service)
    root = settings.MONAI_LABEL_STUDIES.rstrip("/")
    login = (settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD)
    said = {name: request.headers[name] for name in ("accept", "content-type") if name in request.headers}
    try:
        found = requests.request(
            method,
            f"{root}/{prefix}/{path}" if prefix else f"{root}/{path}",
            params=request.query_params.multi_items(),
            headers=said | _token(),
            auth=login if all(login) and "googleapis.com" not in root else None,
            data=body or None,
            stream=True,
            timeout=_TIMEOUT,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise HTTPException(502, "The archive does not answer. Try again later.") from error

    def parts() -> Iterator[bytes]:
        try:
            yield from found.raw.stream(2**18, decode_content=False)
        finally:
            found.close()

    headers = {name: found.headers[name] for name in _KEPT if name in found.headers}
    return StreamingResponse(parts(), status_code=found.status_code, headers=headers)


def _token() -> dict[str, str]:
    if "googleapis.com" not in settings.MONAI_LABEL_STUDIES:
        return {}
    import google.auth
    import google.auth.transport.requests

    credentials, _project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    credentials.refresh(google.auth.transport.requests.Request())  # type: ignore[no-untyped-call]
    return {"Authorization": f"Bearer {credentials.token}"}
