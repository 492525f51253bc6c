"""`/imos/v1`: paint, run, look, correct, accept, as a viewer asks for it.

What the plug-in for OHIF uses, and any other client may. A run is a job: it is started, followed by events, and may be
cancelled. Everything but the events runs in worker threads, so that other requests are answered meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Header, HTTPException, Path, Query, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User

from imos.server import label_store, painting, stored
from imos.server.answers import (
    Accepted,
    AcceptParams,
    Info,
    Label,
    NextImage,
    ObjectSaid,
    Refusal,
    RunParams,
    RunStarted,
    State,
    read_params,
)
from imos.server.effort import made_of
from imos.server.label_files import decode_nrrd, encode_nrrd
from imos.server.painting import Painted, Wish
from imos.server.propagating import propagate
from imos.server.runs import Run
from imos.server.security import CLIENT_ID, IMAGE_ID, RUN_KEY
from imos.server.sentences import SentenceRoute
from imos.server.snapshots import Edit, ImageObject, Snapshot
from imos.server.workbench import Workbench

if TYPE_CHECKING:
    from imos.server.workspaces import Workspace

API = 1
_NONE_LEFT = "Every image has a label, or somebody else has it open."
_RUNNING = "A run is going on here. Wait until it has ended, or cancel it."


def workbench(request: Request) -> Workbench:
    """What the routes work with."""
    found: Workbench = request.app.state.imos
    return found


def reader(user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]) -> str:
    """Who asks; "" when nobody has to log in."""
    return str(user.username) if settings.MONAI_LABEL_AUTH_ENABLE else ""


def annotator(user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]) -> str:
    """Who stores; "" when nobody has to log in."""
    return str(user.username) if settings.MONAI_LABEL_AUTH_ENABLE else ""


Bench = Annotated[Workbench, Depends(workbench)]
Reader = Annotated[str, Depends(reader)]
Annotator = Annotated[str, Depends(annotator)]
ImageId = Annotated[str, Path(pattern=IMAGE_ID, description="Id of an image, or UID of its series")]
ClientId = Annotated[str, Query(pattern=CLIENT_ID, description="Who works; the state is kept for each")]
RunKey = Annotated[str, Path(pattern=RUN_KEY, description="What starting the run answered")]
LabelFile = Annotated[UploadFile, File(description="NRRD label map: everything as the user sees it now")]

refusals: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": description}
    for status, description in {
        400: "The request is no proper multipart form",
        401: "Log in first",
        403: "Not allowed for this role, or from this origin",
        404: "No such image or run",
        409: "A run is going on",
        413: "The upload is too large",
        422: "What is wrong with the request",
    }.items()
}

router = APIRouter(prefix="/imos/v1", tags=["iMOS"], route_class=SentenceRoute, responses=refusals)


@router.get("/info", summary="What this server is")
def info(bench: Bench, _reader: Reader) -> Info:
    """Version of server and API, the labels it was started with, and whether one has to log in."""
    from imos.server.version import version

    labels = [Label(value=value, name=name) for name, value in bench.labels.items()]
    return Info(version=version(), api=API, labels=labels, auth=bool(settings.MONAI_LABEL_AUTH_ENABLE))


@router.get("/images/{image}/state", summary="What is known about an image")
def state(image: ImageId, client: ClientId, bench: Bench, owner: Reader) -> State:
    """STATE; for who has not worked on the image yet, that of the label stored with it, or an empty one."""
    with bench.opened(image, _client(owner, client)) as workspace:
        return State.model_validate(workspace.describe())


@router.get(
    "/images/{image}/labels",
    summary="The label map as it is now",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "NRRD, gzip, on the client's grid"}},
)
def labels(image: ImageId, client: ClientId, bench: Bench, owner: Reader) -> Response:
    """The label map, uint8 or uint16, with the revision in `X-Imos-Revision`."""
    with bench.opened(image, _client(owner, client)) as workspace:
        view = workspace.view
        found, revision = view.from_image(workspace.shown.labels), workspace.record.revision
    headers = {"X-Imos-Revision": str(revision), "Cache-Control": "no-store"}
    return Response(encode_nrrd(found, view.grid), media_type="application/octet-stream", headers=headers)


@router.post("/images/{image}/runs", status_code=202, summary="Propagate what is painted")
def start_run(
    image: ImageId,
    client: ClientId,
    bench: Bench,
    owner: Reader,
    label: LabelFile,
    params: Annotated[str, Form(description="JSON: RunParams")] = "{}",
) -> RunStarted:
    """Take the touched slices as prompts, keep them, and start a run."""
    said = read_params(RunParams, params)
    voxels, grid = decode_nrrd(_content(label))
    wish = Wish(
        edits=[Edit(edit.axis, edit.index, tuple(edit.values)) for edit in said.edits],
        selected=said.selected,
        direction=said.direction,
        first=said.first,
        last=said.last,
    )
    with _changing(bench, image, _client(owner, client)) as workspace:
        plan = painting.take_painting(workspace, Painted(voxels, grid, _objects(said.objects)), wish)
        run = workspace.run = Run(owner)
    bench.runs.start(run, lambda run: propagate(workspace, plan, run))
    return RunStarted(run=run.key)


@router.get(
    "/runs/{run}/events",
    summary="Follow a run",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "progress, slice, then done, failed or cancelled"},
        204: {"description": "Nothing more will come"},
    },
)
async def events(
    run: RunKey,
    bench: Bench,
    owner: Reader,
    last_event_id: Annotated[str | None, Header(description="Goes on behind this event")] = None,
) -> Response:
    """Server-sent events, from the first one or behind `Last-Event-ID`."""
    log = _run(bench, run, owner).log
    number = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 10 else 0
    if log.is_finished and not log.after(number):
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(log.stream(number), media_type="text/event-stream", headers=headers)


@router.delete("/runs/{run}", status_code=202, summary="Cancel a run")
def cancel(run: RunKey, bench: Bench, owner: Reader) -> RunStarted:
    """Stop within one slice. The state is as before the run; what was painted for it stays."""
    found = _run(bench, run, owner)
    found.cancelled.set()
    return RunStarted(run=found.key)


@router.post("/images/{image}/undo", summary="One step back")
def undo(image: ImageId, client: ClientId, bench: Bench, owner: Reader) -> State:
    """Take back the last step; nothing happens when there is none."""
    with _changing(bench, image, _client(owner, client)) as workspace:
        _go_to(workspace, workspace.record.timeline.undo())
        return State.model_validate(workspace.describe())


@router.post("/images/{image}/redo", summary="One step forth")
def redo(image: ImageId, client: ClientId, bench: Bench, owner: Reader) -> State:
    """Do the step undone last again; nothing happens when there is none."""
    with _changing(bench, image, _client(owner, client)) as workspace:
        _go_to(workspace, workspace.record.timeline.redo())
        return State.model_validate(workspace.describe())


@router.post("/images/{image}/reset", summary="Start again with nothing")
def reset(image: ImageId, client: ClientId, bench: Bench, owner: Reader) -> State:
    """Forget everything that was painted; a step that can be undone."""
    with _changing(bench, image, _client(owner, client)) as workspace:
        if not workspace.present.is_empty:
            _go_to(workspace, workspace.record.timeline.do("Reset", Snapshot()))
        return State.model_validate(workspace.describe())


@router.post("/images/{image}/accept", summary="Store what is shown as the image's label")
def accept(
    image: ImageId,
    client: ClientId,
    bench: Bench,
    owner: Annotator,
    label: LabelFile,
    params: Annotated[str, Form(description="JSON: AcceptParams")] = "{}",
) -> Accepted:
    """Keep objects as they are shown, and store all accepted ones under the tag `final`."""
    said = read_params(AcceptParams, params)
    voxels, grid = decode_nrrd(_content(label))
    with _changing(bench, image, _client(owner, client)) as workspace:
        seen = Painted(voxels, grid, _objects(said.objects))
        final = painting.accept(workspace, seen, said.objects_accepted)
        values = {int(value) for value in np.unique(final) if value}
        if said.objects_accepted is None:
            values |= painting.empty_objects(workspace, except_named=set(bench.labels))
        else:
            before = stored.label_of(bench.datastore, workspace.record.image)
            values |= painting.empty_objects(workspace) & stored.empty_values(before)
        known = workspace.record.objects
        named = [known.get(value) or ImageObject(value, workspace.name_of(value)) for value in sorted(values)]
        made = made_of(workspace, final)
        label_id = label_store.store(bench, workspace.record.image, final, workspace.image, named, client, made)
        workspace.write(workspace.record.timeline, is_saved=True)
        said_of_it = dict(bench.on_save_label(workspace.record.image, label_id) or {})
        training = str(said_of_it.get("training", "off"))
        return Accepted.model_validate(workspace.describe() | {"label": label_id, "training": training})


@router.get("/next", summary="The next image without a label")
def next_image(
    client: ClientId,
    bench: Bench,
    _owner: Reader,
    after: Annotated[str | None, Query(pattern=IMAGE_ID, description="The image that is done now")] = None,
    strategy: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9_]{1,64}$", description="One of /activelearning, instead of the order")
    ] = None,
) -> NextImage:
    """The first image without a final label behind `after`, starting again at the first one; or a strategy's choice."""
    found = label_store.next_unlabelled(bench, after) if strategy is None else bench.choose(strategy, client)
    if found is None:
        raise HTTPException(404, "Every image has a label." if strategy is None else _NONE_LEFT)
    study, series = label_store.uids(bench, found)
    return NextImage(image=found, study=study, series=series)


@contextmanager
def _changing(bench: Workbench, image: str, client: str) -> Iterator[Workspace]:
    """A workspace that may be changed now.

    Raises:
        HTTPException: 409, a run is going on.
    """
    with bench.workspace(image, client) as workspace:
        if workspace.run is not None:
            raise HTTPException(409, _RUNNING)
        yield workspace


def _go_to(workspace: Workspace, timeline: Any) -> None:
    if timeline is not workspace.record.timeline:
        workspace.write(timeline)


def _run(bench: Workbench, key: str, owner: str) -> Run:
    found = bench.runs.get(key)
    if found is None or found.owner != owner:
        raise HTTPException(404, "There is no such run. It ended long ago, or the server was started anew.")
    return found


def _client(owner: str, client: str) -> str:
    return f"{owner}/{client}" if owner else client


def _objects(said: list[ObjectSaid] | None) -> list[ImageObject] | None:
    if said is None:
        return None
    return [ImageObject(one.value, one.name, one.color, one.locked) for one in said]


def _content(label: UploadFile) -> bytes:
    content: bytes = label.file.read()
    return content
