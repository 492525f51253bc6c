"""Install: puts our routes in front of MONAI Label's own, once the server has started."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from monailabel.config import settings

from imos.server import (
    datastore_routes,
    infer_route,
    learning_routes,
    login,
    proxy_route,
    routes,
    security,
    sentences,
    session_routes,
    training_routes,
    viewer_files,
)
from imos.server.conf import AppConf
from imos.server.datastores import FolderDatastore, SafeDatastore
from imos.server.dicomweb import routes as dicomweb_routes
from imos.server.dicomweb.catalog import Catalog
from imos.server.events import end_streams_with_the_server
from imos.server.infer_task import PropagateTask
from imos.server.places import STATE_FOLDER
from imos.server.project import Project
from imos.server.temporary import remove_left
from imos.server.upload_checks import limit_unpacked
from imos.server.workbench import Workbench

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI
    from monailabel.interfaces.app import MONAILabelApp

_ARCHIVE_PLACES = ("/proxy/dicom/qido", "/proxy/dicom/wado", "/proxy/dicom/stow")
"""Where MONAI Label has an archive; a folder is answered there too, so that any OHIF configuration finds it."""


def install(app: MONAILabelApp, task: PropagateTask) -> None:
    """Add everything that the app offers over HTTP.

    Args:
        app: The MONAI Label app.
        task: Its model.
    """
    from monailabel.app import app as server  # only exists once the server runs, and imports all its routes

    remove_left()
    infer_route.remove_stock()
    _put_in_front(server, infer_route.router)
    if settings.MONAI_LABEL_AUTH_ENABLE:
        login.install(server)
    conf = AppConf.parse(app.conf)
    datastore = app.datastore()
    catalog = Catalog(datastore, task.images) if isinstance(datastore, FolderDatastore) else None
    server.state.imos = Workbench(
        datastore=datastore,
        folder=Path(datastore._datastore_path) / STATE_FOLDER,
        labels=conf.labels,
        images=task.images,
        models=task.models,
        on_save_label=app.on_save_label,
        project=Project.of(conf, datastore),
        strategies=app._strategies,
        catalog=catalog,
    )
    _put_in_front(server, viewer_files.router)
    if catalog is None:
        _put_in_front(server, proxy_route.router)
    else:
        for prefix in ("/imos/dicomweb", *_ARCHIVE_PLACES):
            _put_in_front(server, dicomweb_routes.router, prefix)
        catalog.read_ahead()
    if isinstance(datastore, SafeDatastore):
        _put_in_front(server, datastore_routes.router)
    _put_in_front(server, session_routes.router)
    _put_in_front(server, routes.router)
    _put_in_front(server, learning_routes.router)
    _put_in_front(server, training_routes.router)
    origins = [str(origin).rstrip("/") for origin in (*conf.origins, *settings.MONAI_LABEL_CORS_ORIGINS)]
    most_bytes = conf.upload_mb * 2**20
    limit_unpacked(conf.unpacked_mb * 2**20)
    sentences.answer_with_sentences(server)
    security.protect(
        server,
        origins,
        has_login=settings.MONAI_LABEL_AUTH_ENABLE,
        most_bytes=most_bytes,
        prefix=settings.MONAI_LABEL_API_STR,
        names=_names(app),
    )
    server.openapi_schema = None
    end_streams_with_the_server()


def _names(app: MONAILabelApp) -> dict[str, Collection[str]]:
    """What may follow the beginnings of paths that end in a name."""
    models = {*app._infers, *app._trainers}
    return {
        "/infer/": set(app._infers),
        "/batch/infer/": set(app._infers),
        "/train/": set(app._trainers),
        "/model/": models,
        "/model/info/": models,
        "/activelearning/": set(app._strategies),
        "/scoring/": set(app._scoring_methods),
    }


def _put_in_front(server: FastAPI, router: APIRouter, prefix: str = "") -> None:
    """Add routes before all others: MONAI Label's `/ohif/{path}` and `/proxy/dicom/{path}` answer everything there."""
    server.include_router(router, prefix=prefix)
    server.router.routes.insert(0, server.router.routes.pop())
