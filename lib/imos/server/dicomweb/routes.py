"""DICOMweb: search, retrieve, and store segmentations.

Answered under `/imos/dicomweb`, and where OHIF's own configuration and MONAI Label look for an archive,
`/proxy/dicom/{qido,wado}`.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Annotated, Any

import pydicom
from fastapi import APIRouter, Body, Depends, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from pydicom.dataset import Dataset

from imos.errors import UserError
from imos.imaging.dicom import DAMAGE, is_segmentation
from imos.imaging.writing import replacing
from imos.server.dicomweb.catalog import Catalog, Series
from imos.server.dicomweb.messages import filters_of, matches, multipart, page, split_multipart, to_file, to_json
from imos.server.sentences import SentenceRoute
from imos.server.temporary import temporary_prefix
from imos.server.upload_checks import check_file

STORED_FOLDER = "segmentations"
"""Where segmentations that a viewer stores are put, inside the folder of studies."""

_MOST_STORED = 2**29
_JSON = "application/dicom+json"
_UID = r"^[0-9.]{1,64}$"
_OUT_OF_RESOURCES, _NOT_TAKEN, _NOT_READ = 0xA700, 0x0122, 0xC000

Uid = Annotated[str, PathParameter(pattern=_UID)]


def _catalog(request: Request) -> Catalog:
    found: Catalog | None = request.app.state.imos.catalog
    if found is None:
        raise HTTPException(404, "The studies of this server are in an archive.")
    return found


Studies = Annotated[Catalog, Depends(_catalog)]

router = APIRouter(
    include_in_schema=False,
    route_class=SentenceRoute,
    dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
)


@router.get("/studies")
def studies(request: Request, catalog: Studies) -> Response:
    """Search for studies."""
    by_study: dict[str, list[Series]] = {}
    for one in catalog.series():
        by_study.setdefault(str(one.listed.StudyInstanceUID), []).append(one)
    found = []
    for group in by_study.values():
        dataset = Dataset()
        for element in group[0].listed:
            if element.keyword != "Modality" and not element.keyword.startswith("Series"):
                dataset[element.tag] = element
        dataset.ModalitiesInStudy = sorted({str(one.listed.get("Modality", "OT")) for one in group})
        dataset.NumberOfStudyRelatedSeries = len(group)
        dataset.NumberOfStudyRelatedInstances = sum(one.count for one in group)
        found.append(dataset)
    found.sort(key=lambda dataset: str(dataset.get("PatientID", "")))
    return _listed(found, request)


@router.get("/series")
def all_series(request: Request, catalog: Studies) -> Response:
    """Search for series."""
    return _listed([_series_entry(one) for one in catalog.series()], request)


@router.get("/studies/{study}/series")
def series(study: Uid, request: Request, catalog: Studies) -> Response:
    """Search for the series of a study."""
    return _listed([_series_entry(one) for one in catalog.find(study)], request)


@router.get("/studies/{study}/instances")
def instances_of_study(study: Uid, request: Request, catalog: Studies) -> Response:
    """Search for the instances of a study."""
    return _listed([header for one in catalog.find(study) for header in one.headers()], request)


@router.get("/studies/{study}/series/{series_uid}/instances")
def instances(study: Uid, series_uid: Uid, request: Request, catalog: Studies) -> Response:
    """Search for the instances of a series."""
    return _listed([header for one in catalog.find(study, series_uid) for header in one.headers()], request)


@router.get("/studies/{study}/metadata")
def study_metadata(study: Uid, catalog: Studies) -> Response:
    """Headers of a study."""
    return _json([to_json(header) for one in catalog.find(study) for header in one.headers()])


@router.get("/studies/{study}/series/{series_uid}/metadata")
def series_metadata(study: Uid, series_uid: Uid, catalog: Studies) -> Response:
    """Headers of a series."""
    return _json([to_json(header) for one in catalog.find(study, series_uid) for header in one.headers()])


@router.get("/studies/{study}/series/{series_uid}/instances/{instance}/metadata")
def instance_metadata(study: Uid, series_uid: Uid, instance: Uid, catalog: Studies) -> Response:
    """Header of an instance."""
    (one,) = catalog.find(study, series_uid)
    found = [to_json(header) for header in one.headers() if str(header.SOPInstanceUID) == instance]
    if not found:
        raise HTTPException(404, "There is no such instance.")
    return _json(found)


@router.get("/studies/{study}")
def study_files(study: Uid, catalog: Studies) -> Response:
    """All files of a study."""
    return _files(catalog.find(study))


@router.get("/studies/{study}/series/{series_uid}")
def series_files(study: Uid, series_uid: Uid, catalog: Studies) -> Response:
    """All files of a series."""
    return _files(catalog.find(study, series_uid))


@router.get("/studies/{study}/series/{series_uid}/instances/{instance}")
def instance_file(study: Uid, series_uid: Uid, instance: Uid, request: Request, catalog: Studies) -> Response:
    """One file."""
    (one,) = catalog.find(study, series_uid)
    content = to_file(one.instance(instance))
    accepted = request.headers.get("accept", "")
    if "application/dicom" in accepted and "multipart" not in accepted:
        return Response(content, media_type="application/dicom")
    pieces, kind = multipart([(content, "application/dicom")], "application/dicom")
    return StreamingResponse(pieces, media_type=kind)


@router.get("/studies/{study}/series/{series_uid}/instances/{instance}/frames/{numbers}")
def frames(
    study: Uid,
    series_uid: Uid,
    instance: Uid,
    numbers: Annotated[str, PathParameter(pattern=r"^[0-9]{1,6}(,[0-9]{1,6}){0,999}$")],
    catalog: Studies,
) -> Response:
    """Pixels of frames, as they are stored."""
    (one,) = catalog.find(study, series_uid)
    parts = []
    for number in numbers.split(","):
        pixels, syntax = one.frame(instance, int(number))
        parts.append((pixels, f"application/octet-stream; transfer-syntax={syntax}"))
    pieces, kind = multipart(parts, "application/octet-stream")
    return StreamingResponse(pieces, media_type=kind)


@router.post("/studies", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))])
@router.post("/studies/{study}", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))])
def store(
    request: Request,
    catalog: Studies,
    body: Annotated[bytes, Body(media_type="application/octet-stream")] = b"",
    study: str = "",
) -> Response:
    """Put segmentations into the folder; 200 when all were taken, 202 when some were, 409 when none was."""
    if len(body) > _MOST_STORED:
        raise HTTPException(413, "The segmentation is larger than this server takes.")
    try:
        parts = split_multipart(body, request.headers.get("content-type", ""))
    except UserError as error:
        raise HTTPException(415, str(error)) from error
    root = catalog.folder.root / STORED_FOLDER
    known = {str(one.listed.StudyInstanceUID) for one in catalog.series()}
    taken, failed = [], []
    for part in parts:
        item = Dataset()
        try:
            dataset = _opened(part)
            item.ReferencedSOPClassUID = dataset.SOPClassUID
            item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
            names = [str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)]
            of_study = str(dataset.StudyInstanceUID)
        except (UserError, pydicom.errors.InvalidDicomError, *DAMAGE):
            item.FailureReason = _NOT_READ
            failed.append(item)
            continue
        fits = of_study in known and study in ("", of_study) and is_segmentation(dataset)
        if not fits or not all(_is_uid(name) for name in names):
            item.FailureReason = _NOT_TAKEN
            failed.append(item)
            continue
        folder = root / names[0]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(folder / f"{names[1]}.dcm") as beside:
                beside.write_bytes(to_file(dataset))
        except UserError:
            item.FailureReason = _OUT_OF_RESOURCES
            failed.append(item)
            continue
        item.RetrieveURL = f"{_base(request)}/studies/{of_study}/series/{names[0]}/instances/{names[1]}"
        taken.append(item)
    catalog.folder.series(now=True)
    answer = Dataset()
    if taken:
        answer.ReferencedSOPSequence = taken
    if failed:
        answer.FailedSOPSequence = failed
    return JSONResponse(
        answer.to_json_dict(), status_code=409 if not taken else 202 if failed else 200, media_type=_JSON
    )


def _opened(part: bytes) -> Dataset:
    """One file of a request; reading it must not unpack more than the server takes."""
    with tempfile.NamedTemporaryFile(prefix=temporary_prefix(), suffix=".dcm") as file:
        file.write(part)
        file.flush()
        check_file(Path(file.name))
    return pydicom.dcmread(io.BytesIO(part))


def _listed(found: list[Dataset], request: Request) -> Response:
    filters = filters_of(request.query_params)
    base = _base(request)
    answers = []
    for dataset in found:
        if not matches(dataset, filters):
            continue
        url = f"{base}/studies/{dataset.StudyInstanceUID}"
        if "SeriesInstanceUID" in dataset:
            url += f"/series/{dataset.SeriesInstanceUID}"
        if "SOPInstanceUID" in dataset:
            url += f"/instances/{dataset.SOPInstanceUID}"
        answers.append(to_json(dataset) | {"00081190": {"vr": "UR", "Value": [url]}})
    return _json(page(answers, request.query_params))


def _series_entry(one: Series) -> Dataset:
    dataset = Dataset()
    dataset.update(one.listed)
    dataset.NumberOfSeriesRelatedInstances = one.count
    return dataset


def _files(found: list[Series]) -> Response:
    parts = (
        (to_file(one.instance(str(header.SOPInstanceUID))), "application/dicom")
        for one in found
        for header in one.headers()
    )
    pieces, kind = multipart(parts, "application/dicom")
    return StreamingResponse(pieces, media_type=kind)


def _json(found: list[dict[str, Any]]) -> Response:
    return JSONResponse(found, media_type=_JSON)


def _base(request: Request) -> str:
    return f"{request.base_url}imos/dicomweb"


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and set(text) <= set("0123456789.") and not text.startswith(".")
