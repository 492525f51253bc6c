"""Login: who sends a request, from the token that an identity provider such as Keycloak has signed.

Takes the place of MONAI Label's own check, which refuses every token: it names no signature algorithm, and PyJWT has
asked for one since version 2. It also waits for the provider on the event loop, and keeps the first key for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import jwt
import requests
from fastapi import Depends, HTTPException
from monailabel.config import settings
from monailabel.endpoints.user.auth import User, get_current_user, oauth2_scheme

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger(__name__)

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
"""Those of the kind of key that a realm publishes. Never HS…: that would take the published key for a secret."""

_KEY_SECONDS = 600.0
_REFRESH_SECONDS = 5.0
"""A signature that does not fit may be that of a new key; nobody can make us ask for it more often than this."""


class Realm:
    """The identity provider's key.

    Args:
        uri: Where a JSON object with `public_key` is (base64 of its DER form).
        timeout: Seconds to wait for it.
    """

    def __init__(self, uri: str, timeout: float) -> None:
        self._uri = uri
        self._timeout = timeout
        self._lock = threading.Lock()
        self._key = ""
        self._when = 0.0

    def key(self, seconds: float = _KEY_SECONDS) -> str:
        """The key, as PEM, asked for again if it is older than some seconds.

        Raises:
            HTTPException: 503, the provider does not answer.
        """
        with self._lock:
            if not self._key or time.monotonic() - self._when > seconds:
                try:
                    answer = requests.get(self._uri, timeout=self._timeout)
                    answer.raise_for_status()
                    found = str(answer.json()["public_key"])
                except (requests.RequestException, ValueError, LookupError, TypeError) as error:
                    logger.warning("The identity provider %s: %s", self._uri, error)
                    raise HTTPException(503, "The log-in service does not answer. Try again later.") from error
                self._key = f"-----BEGIN PUBLIC KEY-----\n{found}\n-----END PUBLIC KEY-----"
                self._when = time.monotonic()
            return self._key

    def claims(self, token: str) -> Mapping[str, Any]:
        """What a token says, if the provider has signed it and it has not expired.

        Raises:
            jwt.PyJWTError: It has not, or it has.
            HTTPException: 503, the provider does not answer.
        """
        try:
            return _decode(token, self.key())
        except jwt.InvalidSignatureError:
            return _decode(token, self.key(_REFRESH_SECONDS))


def _decode(token: str, key: str) -> Mapping[str, Any]:
    # The audience differs between clients; MONAI Label does not ask for it either.
    options: Any = {"require": ["exp"], "verify_aud": False}
    claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=list(_ALGORITHMS), options=options)
    return claims


def user_of(claims: Mapping[str, Any]) -> User | None:
    """Who a token was made for; None where it names nobody.

    Args:
        claims: What the token says, under the names that MONAI Label's settings give.
    """
    name = claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
    if not isinstance(name, str) or not name:
        return None
    found: Any = claims
    for part in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return User(
        username=name,
        email=_text(claims.get(settings.MONAI_LABEL_AUTH_TOKEN_EMAIL)),
        name=_text(claims.get(settings.MONAI_LABEL_AUTH_TOKEN_NAME)),
        roles=[str(role) for role in found] if isinstance(found, list) else [],
    )


def install(server: FastAPI) -> None:
    """Ask for tokens on every route that asks MONAI Label who the user is; only when users log in."""
    realm = Realm(settings.MONAI_LABEL_AUTH_REALM_URI, settings.MONAI_LABEL_AUTH_TIMEOUT)

    def current_user(token: Annotated[str, Depends(oauth2_scheme)]) -> User:
        refusal = HTTPException(401, "Log in again.", headers={"WWW-Authenticate": "Bearer"})
        try:
            user = user_of(realm.claims(token))
        except jwt.PyJWTError as error:
            logger.warning("A token was refused: %s", error)
            raise refusal from error
        if user is None:
            raise refusal
        return user

    server.dependency_overrides[get_current_user] = current_user


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
