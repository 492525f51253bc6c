"""One inference, whoever asks: our own route, MONAI Label's batch inference, or its command line.

Replaces `MONAILabelApp.infer`, which opens any path that `image` or `label` names. Here an image is the id of one in
the datastore or an uploaded file, and a mask is an uploaded file or nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException

from imos.errors import UserError
from imos.server.grids import Grid
from imos.server.model_task import PropagationRequest
from imos.server.parameters import Parameters
from imos.server.uploads import Upload

if TYPE_CHECKING:
    from monailabel.interfaces.app import MONAILabelApp
    from monailabel.interfaces.datastore import Datastore
    from monailabel.interfaces.tasks.infer_v2 import InferTask

logger = logging.getLogger(__name__)


def infer(
    app: MONAILabelApp, tasks: Mapping[str, InferTask], request: Mapping[str, Any], datastore: Datastore
) -> dict[str, Any]:
    """Run one model.

    Args:
        app: Only for its name in messages.
        tasks: The registered models by name.
        request: `model`, `image` (an id, or an `Upload`), perhaps `label` (an `Upload`; anything else is ignored) and
            `parameters` (else they are read from the request itself). `session_id` where the image is that of a
            session, `grid` (a `Grid`) where the client sees the image on another one.
        datastore: Where images and stored labels lie.

    Returns:
        What MONAI Label's callers read: `file` (result on disk; the caller removes it; None: there is none), `label`,
        `tag`, `params`.

    Raises:
        HTTPException: 404, no such model or image.
        UserError: The request cannot be carried out as it is.
    """
    name = str(request.get("model", ""))
    task = tasks.get(name)
    if task is None:
        raise HTTPException(404, f"{app.name} has no model {name!r}; it has {', '.join(tasks)}.")
    parameters = request.get("parameters")
    if not isinstance(parameters, Parameters):
        parameters = Parameters.parse(request)
    image, label, grid = request.get("image"), request.get("label"), request.get("grid")
    image_id = None if isinstance(image, Upload) else str(image or "")
    path = image.path if isinstance(image, Upload) else image_path(datastore, image_id or "")
    file, answer = task(
        PropagationRequest(
            image=path,
            image_id=image_id,
            mask=label if isinstance(label, Upload) else None,
            parameters=parameters,
            session_id=str(request["session_id"]) if isinstance(image, Upload) and "session_id" in request else None,
            grid=grid if isinstance(grid, Grid) else None,
        )
    )
    tag = parameters.save_tag
    if tag is not None and image_id is not None and file is not None:
        label_id = datastore.save_label(image_id, file, tag, {"model": name, "params": answer})
    else:
        label_id = file
    return {"label": label_id, "tag": tag or "original", "file": file, "params": answer}


def image_path(datastore: Datastore, image_id: str) -> Path:
    """Where the datastore keeps an image.

    Args:
        datastore: Folder or DICOMweb store.
        image_id: The id as the store lists it; never a path.

    Raises:
        HTTPException: 404, the store has no such image.
    """
    missing = HTTPException(404, f"There is no image {image_id!r} here. GET /datastore/ lists the images by their id.")
    if not image_id or image_id in (".", "..") or any(mark in image_id for mark in "/\\\0"):
        raise missing
    try:
        found = datastore.get_image_uri(image_id)
    except (HTTPException, UserError):
        raise
    except Exception as error:  # whatever the store's own client raises: it could not give us the image
        logger.warning("Image %r: %s", image_id, error)
        raise missing from error
    if not found or not Path(found).exists():
        raise missing
    return Path(found)
