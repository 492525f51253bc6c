"""Sentences: what a client did wrong, as 4xx with one line in `detail`."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from monailabel.interfaces.exception import MONAILabelException

from imos.errors import UserError
from imos.server.starting import UNWRITABLE

logger = logging.getLogger(__name__)

_NO_NAMES = (errno.ENAMETOOLONG, errno.EISDIR)


class SentenceRoute(APIRoute):
    """A route whose every refusal is one sentence, as 4xx, in `detail`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, with what it raises put in words."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                found: Response = await handle(request)
            except RequestValidationError as error:
                raise HTTPException(422, sentence(error.errors()[0])) from error
            except UserError as error:
                raise HTTPException(422, str(error)) from error
            return found

        return answer


def answer_with_sentences(server: FastAPI) -> None:
    """The same for all other routes of a server, MONAI Label's own among them.

    To be called before the server builds its middleware: handlers that come later are not heard of.
    """

    def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"detail": sentence(error.errors()[0])}, 422)

    def wrong(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    def unknown(_: Request, error: Exception) -> Response:
        assert isinstance(error, MONAILabelException)
        return JSONResponse({"detail": str(error.msg).partition("\n")[0]}, 422)

    def unwritten(_: Request, error: Exception) -> Response:
        if isinstance(error, OSError) and error.errno in _NO_NAMES:
            return JSONResponse({"detail": "A file of the request has a name that no file can have. Rename it."}, 422)
        if not isinstance(error, OSError) or error.errno not in UNWRITABLE:
            raise error
        logger.error("%s", error)
        return JSONResponse({"detail": f"The server cannot write: {error.strerror}. Tell whoever runs it."}, 422)

    server.add_exception_handler(RequestValidationError, invalid)
    server.add_exception_handler(UserError, wrong)
    server.add_exception_handler(MONAILabelException, unknown)
    server.add_exception_handler(OSError, unwritten)


def sentence(problem: Any) -> str:
    """One line about the first thing that is wrong with a request.

    Args:
        problem: What pydantic says: a mapping with `loc` and `msg`.
    """
    where = ".".join(str(part) for part in problem.get("loc", ()) if part not in ("body", "query", "path"))
    what = str(problem.get("msg", "is not valid")).replace("\n", " ")
    return f"{where}: {what}." if where else f"{what}."
