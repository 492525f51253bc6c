"""What names may look like, and what no request may do, whichever route it asks for.

Ids, tags and names come from clients and end up in paths and look-ups. They are checked here by pattern, before
anything looks for them; whether a thing of that name exists is asked afterwards.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from fastapi import FastAPI

# Image ids are file names without their suffix, or UIDs: anything but separators, control characters and a leading dot.
IMAGE_ID = r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}$"
CLIENT_ID = r"^[A-Za-z0-9._-]{1,64}$"
RUN_KEY = r"^[A-Za-z0-9_-]{1,64}$"
TAG = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
SESSION_ID = r"^[0-9A-Za-z][0-9A-Za-z-]{0,63}$"


def is_image_id(text: object) -> bool:
    """Whether something may be the id of an image."""
    return isinstance(text, str) and re.fullmatch(IMAGE_ID, text) is not None and ".." not in text.split("/")


def is_tag(text: object) -> bool:
    """Whether something may be the tag of a label."""
    return isinstance(text, str) and re.fullmatch(TAG, text) is not None


def is_model_name(text: object) -> bool:
    """Whether something may be the name of a model, a trainer, a strategy or a scoring method."""
    return isinstance(text, str) and re.fullmatch(MODEL_NAME, text) is not None


def is_session_id(text: object) -> bool:
    """Whether something may be the id of a MONAI Label session."""
    return isinstance(text, str) and re.fullmatch(SESSION_ID, text) is not None


_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class _TooLargeError(Exception):
    """A request brought more than allowed."""


class Guard:
    """Turns requests away before anything of them is read or stored.

    Args:
        app: What answers the others.
        origins: Web pages of other servers that may use this one, such as `https://viewer.hospital.org`.
        has_login: Whether users log in; without, what is meant for administrators is closed.
        most_bytes: Size of a request at most.
        prefix: What the paths of MONAI Label's own routes begin with.
        names: Beginning of a path to the names that may follow it. MONAI Label starts a process for any name, which
            then fails.
    """

    def __init__(
        self,
        app: _App,
        *,
        origins: Sequence[str] = (),
        has_login: bool = False,
        most_bytes: int = 2**31,
        prefix: str = "",
        names: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._app = app
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._has_login = has_login
        self._most_bytes = most_bytes
        self._prefix = prefix
        self._names = dict(names or {})

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        received, answered, refused = 0, False, False

        async def count() -> _Message:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                if not answered:
                    refused = True
                    await _refuse(send, *self._too_large())
                raise _TooLargeError
            return message

        async def pass_on(message: _Message) -> None:
            nonlocal answered
            if refused:  # FastAPI makes a broken form of whatever is raised while it reads one
                return
            answered = True
            await send(message)

        with contextlib.suppress(_TooLargeError):
            await self._app(scope, count, pass_on)

    def _refusal(self, method: str, path: str, headers: dict[bytes, str]) -> tuple[int, str] | None:
        if method not in _SAFE_METHODS and not self._is_from_here(headers):
            return 403, "Requests that change something are taken from this server's own pages and from known origins."
        length = headers.get(b"content-length", "")
        if length.isdecimal() and int(length) > self._most_bytes:
            return self._too_large()
        segments = path.split("/")
        if ".." in segments or "\\" in path or "\0" in path:
            return 404, "There is nothing here."
        return self._stock_refusal(method, path.removeprefix(self._prefix))

    def _stock_refusal(self, method: str, path: str) -> tuple[int, str] | None:
        """What MONAI Label's own routes must not be asked for."""
        if path.startswith("/infer/wsi"):
            return 404, "Whole-slide images are not supported."
        if path.rstrip("/") == "/reload":
            return 404, "Stop and start the server instead."
        if path.startswith("/model/") and method not in _SAFE_METHODS:
            return 403, "Weights are not taken over the network."
        if path.split("/")[1:2] == ["logs"] and not self._has_login:
            return 403, "The log is for administrators, and this server has no log-in to tell who is one."
        place = max((one for one in self._names if path.startswith(one)), key=len, default="")
        name = path.removeprefix(place).rstrip("/")
        if not place or not name:
            return None
        if not is_model_name(name):
            return 404, "There is nothing of such a name. GET /info/ lists all names."
        if name not in self._names[place]:
            return 404, f"There is no {name!r} here. GET /info/ lists all names."
        return None

    def _is_from_here(self, headers: dict[bytes, str]) -> bool:
        """Whether no web page sent a request, or one of this server's, or one of a known origin."""
        origin = headers.get(b"origin")
        if origin is None:
            return headers.get(b"sec-fetch-site", "none") in ("none", "same-origin")
        if origin.rstrip("/").lower() in self._origins:
            return True
        return urlsplit(origin).netloc.lower() == headers.get(b"host", "").lower() != ""

    def _too_large(self) -> tuple[int, str]:
        return 413, f"The request is larger than {self._most_bytes // 2**20} MB, which is the most this server takes."


def protect(
    server: FastAPI,
    origins: Sequence[str],
    *,
    has_login: bool,
    most_bytes: int,
    prefix: str,
    names: Mapping[str, Collection[str]],
) -> None:
    """Put the guard in front of a server that runs already, and let only known origins read answers.

    MONAI Label lets every web page in the world read them. Same-origin pages need no permission.

    Args:
        server: What answers.
        origins: As for `Guard`, as is the rest.
        has_login: Whether users log in.
        most_bytes: Size of a request at most.
        prefix: What the paths of MONAI Label's own routes begin with.
        names: Beginning of a path to the names that may follow it.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware

    permission = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_credentials=bool(origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["X-Imos-Revision"],
    )
    guard = Middleware(Guard, origins=origins, has_login=has_login, most_bytes=most_bytes, prefix=prefix, names=names)
    others = [one for one in server.user_middleware if getattr(one.cls, "__name__", "") != "CORSMiddleware"]
    # The order of requests: permission, so that refusals can be read by known origins; guard; everything else.
    server.user_middleware[:] = [permission, guard, *others]
    server.middleware_stack = server.build_middleware_stack()


async def _refuse(send: _Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
