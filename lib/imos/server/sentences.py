"""Sentences: what a client did wrong, as 4xx with one line in `detail`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from imos.errors import UserError


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


def sentence(problem: Any) -> str:
    """One line about the first thing that is wrong with a request.

    Args:
        problem: What pydantic says: a mapping with `loc` and `msg`.
    """
    where = ".".join(str(part) for part in problem.get("loc", ()) if part not in ("body", "query", "path"))
    what = str(problem.get("msg", "is not valid")).replace("\n", " ")
    return f"{where}: {what}." if where else f"{what}."
