"""Routes of the learning loop: versions, the project's figures and page, and the next volume to annotate."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Response
from fastapi.responses import HTMLResponse
from monailabel.config import settings
from monailabel.endpoints import activelearning
from monailabel.endpoints.user.auth import RBAC, User
from pydantic import BaseModel, Field

from imos.registry.records import BASE
from imos.server.project import Project
from imos.server.project_page import page
from imos.server.project_report import Models, Report, models_of, report_of
from imos.server.routes import Bench, Reader, refusals
from imos.server.sentences import SentenceRoute

_VERSION = rf"^({BASE}|v[0-9]{{4,9}})$"
_UNLOADED = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store"}

router = APIRouter(tags=["iMOS"], route_class=SentenceRoute, responses=refusals)


class Wanted(BaseModel):
    """Which version shall be used, and why."""

    version: Annotated[str, Field(pattern=_VERSION)]
    reason: Annotated[str, Field(max_length=500)] = ""


class Why(BaseModel):
    """Why."""

    reason: Annotated[str, Field(max_length=500)] = ""


def administrator(user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]) -> str:
    """Who decides; a word where nobody has to log in."""
    return str(user.username) if settings.MONAI_LABEL_AUTH_ENABLE else "somebody"


Administrator = Annotated[str, Depends(administrator)]


def project_of(bench: Bench) -> Project:
    """The project that the server works for."""
    return bench.project


ProjectHere = Annotated[Project, Depends(project_of)]


@router.get("/imos/models", summary="All versions", include_in_schema=False)
@router.get("/imos/v1/models", summary="All versions")
def models(project: ProjectHere, _reader: Reader) -> Models:
    """Every version with its parent, what it learned from, its figures, where it stands and why; and all moves."""
    return models_of(project)


@router.post("/imos/v1/models/activate", summary="Use a version from now on")
def activate(wanted: Wanted, project: ProjectHere, who: Administrator) -> Models:
    """Runs that have begun end on the version they began with."""
    project.registry.activate(wanted.version, wanted.reason or f"Activated by {who}")
    return models_of(project)


@router.post("/imos/v1/models/rollback", summary="Use the version before again")
def rollback(project: ProjectHere, who: Administrator, why: Annotated[Why | None, Body()] = None) -> Models:
    """The next run is, bit for bit, what it was before the version that is in use now."""
    project.registry.rollback((why.reason if why else "") or f"Rolled back by {who}")
    return models_of(project)


@router.get("/imos/v1/project", summary="How the project stands")
def report(project: ProjectHere, _reader: Reader) -> Report:
    """Volumes done, what they cost, and the versions."""
    return report_of(project)


@router.get("/imos/project", summary="The same as a page", response_class=HTMLResponse)
def project_page(project: ProjectHere, _reader: Reader) -> Response:
    """One HTML file with plots; it loads nothing else."""
    return HTMLResponse(page(report_of(project)), headers=_UNLOADED)


@router.post("/activelearning/{strategy}", summary="The next volume to annotate", tags=["ActiveLearning"])
def next_sample(
    strategy: Annotated[str, Path(pattern=r"^[A-Za-z0-9_]{1,64}$")],
    bench: Bench,
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    params: Annotated[dict[str, Any] | None, Body()] = None,
) -> dict[str, Any]:
    """MONAI Label's own answer, in a thread of its own: comparing volumes takes seconds."""
    with bench.choosing:
        found: dict[str, Any] = activelearning.sample(strategy, params, user.username)
    return found
