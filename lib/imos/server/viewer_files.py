"""OHIF: the plug-in's files, the configuration that loads it, and what MONAI Label serves wrongly.

OHIF comes inside MONAI Label. It reads `/ohif/app-config.js` first; ours names the plug-in, which OHIF then imports at
run time. MONAI Label answers its index page for every file in a sub-folder; here such files are answered. OHIF's page
and style sheet ask Google for a font: that is left out, so that the browser of a reading room asks this server alone.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

_FILE = r"^[A-Za-z0-9_-][A-Za-z0-9_./-]{0,199}$"
_KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".map": "application/json",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
}
_PLUGIN_KINDS = (".js", ".css", ".svg")
_FRESH = {"Cache-Control": "no-cache"}
_INDEX = "index.html"
_ELSEWHERE = re.compile(r"""<link\b[^>]*\bhref=["']?https?://[^>]*>|@import\s+url\(\s*["']?https?://[^)]*\)[^;]*;""")
"""What a page or style sheet loads from other servers. OHIF's font is one of them; without it the system's is shown."""

router = APIRouter(include_in_schema=False)


@router.get("/imos/viewer/{path:path}")
def plugin_file(path: Annotated[str, PathParameter(pattern=_FILE)]) -> Response:
    """One file of the plug-in."""
    return _file(Path(str(importlib.resources.files("imos"))) / "viewer", path, _PLUGIN_KINDS)


@router.get("/ohif/app-config.js")
def app_config(request: Request) -> Response:
    """OHIF's configuration, with the plug-in."""
    found = configuration(has_folder=request.app.state.imos.catalog is not None)
    text = f"window.config = {json.dumps(found, indent=2)};\n"
    return Response(text, media_type="text/javascript", headers=_FRESH)


@router.get("/ohif/{folder}/{path:path}")
def ohif_file(folder: str, path: str) -> Response:
    """A file in a sub-folder of OHIF; its index page for what is no file, such as one of its modes."""
    name = f"{folder}/{path}"
    if re.fullmatch(_FILE, name) and Path(name).suffix in _KINDS:
        return _file(_ohif_folder(), name, tuple(_KINDS))
    return _without_others(_INDEX)


@router.get("/ohif/", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])
def ohif() -> Response:
    """OHIF's index page."""
    return _without_others(_INDEX)


@router.get("/ohif/{name}", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])
def ohif_top(name: str) -> Response:
    """A file of OHIF; its index page for what is no file, such as the list of studies or a mode."""
    path = _ohif_folder() / name
    is_file = re.fullmatch(_FILE, name) and path.suffix in _KINDS and path.is_file()
    if not is_file:
        return _without_others(_INDEX)
    if path.suffix in (".html", ".css"):
        return _without_others(name)
    # OHIF names its programs after their content: unlike ours, they may be kept by the browser.
    return FileResponse(path, media_type=_KINDS[path.suffix])


def configuration(*, has_folder: bool) -> dict[str, Any]:
    """OHIF's configuration: what MONAI Label ships, the plug-in, and where DICOMweb is answered.

    Args:
        has_folder: Whether the studies are in a folder, and this server answers DICOMweb itself.
    """
    if has_folder:
        root = dict.fromkeys(("wadoUriRoot", "qidoRoot", "wadoRoot"), "/imos/dicomweb")
    else:
        root = {"wadoUriRoot": "/proxy/dicom/wado", "qidoRoot": "/proxy/dicom/qido", "wadoRoot": "/proxy/dicom/wado"}
    return {
        "routerBasename": "/ohif/",
        "showStudyList": True,
        "extensions": ["/imos/viewer/imos.js"],
        "modes": [],
        "showWarningMessageForCrossOrigin": True,
        "showCPUFallbackMessage": True,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "investigationalUseDialog": {"option": "never"},
        "useSharedArrayBuffer": "FALSE",
        "defaultDataSourceName": "dicomweb",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "dicomweb",
                "configuration": {
                    "friendlyName": "Images of this server",
                    "name": "server",
                    **root,
                    "qidoSupportsIncludeField": True,
                    "supportsReject": False,
                    "imageRendering": "wadors",
                    "thumbnailRendering": "wadors",
                    "enableStudyLazyLoad": False,
                    "supportsFuzzyMatching": True,
                    "supportsWildcard": True,
                    "dicomUploadEnabled": False,
                    "bulkDataURI": {"enabled": True},
                },
            }
        ],
    }


def _ohif_folder() -> Path:
    import monailabel.endpoints.ohif as stock

    return Path(stock.__file__).resolve().parent / "static" / "ohif"


def _without_others(name: str) -> Response:
    """A page or style sheet of OHIF without what it loads from other servers."""
    return Response(_own_text(name), media_type=_KINDS[Path(name).suffix], headers=_FRESH)


@functools.cache
def _own_text(name: str) -> str:
    return _ELSEWHERE.sub("", (_ohif_folder() / name).read_text(encoding="utf-8"))


def _file(root: Path, name: str, suffixes: tuple[str, ...]) -> Response:
    root = root.resolve()
    path = (root / name).resolve()
    if path.suffix not in suffixes or root not in path.parents or not path.is_file():
        raise HTTPException(404, "There is no such file.")
    return FileResponse(path, media_type=_KINDS[path.suffix], headers=_FRESH)
