"""Who may do what when users log in, with tokens of an identity provider; and which web pages may ask at all.

The provider is a small HTTP server that publishes a key as Keycloak's realms do. Tokens are signed with it; everything
that reads them is the real server.
"""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import nibabel
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from imos.server.grids import Grid
from imos.server.label_files import decode_nrrd, encode_nrrd
from tests.server.conftest import start, stop

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

PAINTED = 8
VIEWER = "https://viewer.example"
ROLES = ["user", "annotator", "reviewer", "admin"]
"""Of MONAI Label, ascending; in Keycloak, as its documentation sets it up, each holds those before."""


class Provider(ThreadingHTTPServer):
    """An identity provider: one realm with one key."""

    daemon_threads = True

    def __init__(self) -> None:
        self.key = self.new_key()
        self.is_down = False
        super().__init__(("127.0.0.1", 0), _Realm)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @staticmethod
    def new_key() -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/realms/hospital"

    @property
    def public(self) -> bytes:
        """What the realm publishes, in DER."""
        kind, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(kind, form)

    def token(self, role: str | None = "user", key: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        """A token as Keycloak makes it; a claim that is None is left out."""
        roles = [f"monailabel-{one}" for one in ROLES[: ROLES.index(role) + 1]] if role else []
        said = {
            "iss": self.url,
            "exp": int(time.time()) + 300,
            "preferred_username": role or "nobody",
            "realm_access": {"roles": [*roles, "offline_access"]},
        } | claims
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, key or self.key, algorithm=algorithm)


class _Realm(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        is_there = self.path == "/realms/hospital" and not self.server.is_down
        self.send_response(200 if is_there else 500)
        self.end_headers()
        if is_there:
            key = base64.b64encode(self.server.public).decode()
            self.wfile.write(json.dumps({"realm": "hospital", "public_key": key}).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Hospital:
    """A server on which users log in.

    Attributes:
        url: Its address.
        provider: Whose tokens it takes.
        studies: The folder it serves.
    """

    url: str
    provider: Provider
    studies: Path

    def ask(self, what: str, role: str | None = "user", token: str | None = None, **more: Any) -> httpx.Response:
        """One request, such as `GET /info/`, with the token of a role."""
        method, path = what.split(" ")
        headers = {"Authorization": f"Bearer {token or self.provider.token(role)}"} | more.pop("headers", {})
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **more)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, root: Path, scan: Any) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("login")
    studies = folder / "studies"
    studies.mkdir()
    shutil.copyfile(scan.image, studies / "case.nii.gz")
    provider = Provider()
    settings = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": provider.url}
    conf = ("--conf", "origins", VIEWER, "--conf", "auto_train", "0")
    process, url = start(studies, folder / "server.log", root, *conf, ready="/openapi.json", **settings)
    yield Hospital(url, provider, studies)
    stop(process)
    provider.shutdown()
    provider.server_close()


@pytest.fixture
def painted(scan: Any) -> bytes:
    """One painted slice, as the viewer sends it."""
    affine = nibabel.load(scan.image).affine
    return encode_nrrd(scan.painted(PAINTED), Grid(scan.labels.shape, affine))


CLOSED = {
    # By the guard, whoever asks.
    *(("PUT", "/model/{model}"), ("DELETE", "/model/{model}"), ("POST", "/infer/wsi/{model}")),
    *(("POST", "/infer/wsi_v2/{model}"),),
}
OPEN = {("GET", "/auth/"), ("POST", "/auth/token")}
"""How a client learns where to log in, and does."""


def test_login_is_asked_for_everywhere(hospital):
    paths = httpx.get(f"{hospital.url}/openapi.json", timeout=30).json()["paths"]
    asked = {(method.upper(), path) for path, methods in paths.items() for method in methods} - CLOSED - OPEN
    assert len([path for _, path in asked if path.startswith("/imos/")]) >= 10
    assert {"/infer/{model}", "/datastore/label", "/train/{model}", "/session/"} <= {path for _, path in asked}
    names = {"image": "case", "run": "x", "model": "imos", "strategy": "random", "method": "dice", "session_id": "x"}
    for method, path in sorted(asked):
        answer = httpx.request(method, hospital.url + path.format(**names), params={"client": "x"}, timeout=30)
        assert answer.status_code == 401, (method, path, answer.text)


@pytest.mark.parametrize(
    "place",
    [
        *("GET /imos/dicomweb/studies", "POST /imos/dicomweb/studies", "GET /proxy/dicom/qido/studies"),
        *("GET /proxy/dicom/wado/studies", "POST /proxy/dicom/stow/studies", "GET /imos/project", "POST /train/"),
        *("PUT /datastore/", "DELETE /datastore/", "PUT /datastore/updatelabelinfo", "POST /scoring/"),
    ],
)
def test_login_is_asked_for_where_no_description_says_so(hospital, place):
    method, path = place.split()
    assert httpx.request(method, hospital.url + path, timeout=30).status_code == 401


@pytest.mark.parametrize(
    ("least", "what"),
    [
        ("user", "GET /info/"),
        ("user", "GET /imos/v1/info"),
        ("user", "GET /imos/v1/images/case/state?client=x"),
        ("user", "POST /imos/v1/images/case/runs?client=x"),
        ("user", "POST /imos/v1/images/case/undo?client=x"),
        ("user", "GET /imos/v1/project"),
        ("user", "POST /infer/imos?image=nobody"),
        ("user", "POST /activelearning/random"),
        ("user", "PUT /session/"),
        ("user", "GET /datastore/"),
        ("user", "GET /proxy/dicom/qido/studies"),
        ("annotator", "POST /imos/v1/images/case/accept?client=x"),
        ("annotator", "PUT /datastore/label?image=case"),
        ("annotator", "PUT /datastore/image?image=x"),
        ("annotator", "POST /imos/dicomweb/studies"),
        ("annotator", "PUT /datastore/label/info?label=nobody&tag=final"),
        ("admin", "POST /imos/v1/models/activate"),
        ("admin", "DELETE /datastore/image?id=nobody"),
        ("admin", "DELETE /datastore/label?id=nobody&tag=final"),
        ("admin", "DELETE /train/"),
        ("admin", "GET /model/imos"),
        ("admin", "GET /logs/?lines=1"),
    ],
)
def test_each_role_may_do_what_it_is_for_and_no_more(hospital, least, what):
    """Nothing is sent with the requests: who may make them is told what is missing, or gets an answer."""
    for role in (None, *ROLES):
        answer = hospital.ask(what, role)
        if role is None or ROLES.index(role) < ROLES.index(least):
            assert answer.status_code == 403, (role, answer.status_code, answer.text)
            assert "monailabel-" in answer.json()["detail"]
        else:
            assert answer.status_code not in (401, 403), (role, answer.text)
            assert answer.status_code < 500, answer.text


def test_a_user_runs_an_annotator_accepts_and_each_has_a_state_of_its_own(hospital, scan, painted):
    place = "/imos/v1/images/case"
    edits = json.dumps({"edits": [{"axis": 2, "index": PAINTED, "values": [1, 2]}]})
    sent = {"params": {"client": "same"}, "data": {"params": edits}, "files": {"label": ("x.nrrd", painted)}}
    answer = hospital.ask(f"POST {place}/runs", **sent)
    assert answer.status_code == 202, answer.text
    run = f"/imos/v1/runs/{answer.json()['run']}"
    for stranger in ("annotator", "admin"):
        assert hospital.ask(f"GET {run}/events", stranger).status_code == 404
        assert hospital.ask(f"DELETE {run}", stranger).status_code == 404
    assert "event: done" in hospital.ask(f"GET {run}/events").text

    def seen(role: str) -> Any:
        return decode_nrrd(hospital.ask(f"GET {place}/labels", role, params={"client": "same"}).content)[0]

    assert np.array_equal(seen("user")[:, :, PAINTED], scan.labels[:, :, PAINTED])
    assert not seen("annotator").any()
    assert hospital.ask(f"POST {place}/accept", **sent).status_code == 403
    assert not (hospital.studies / "labels" / "final" / "case.nii.gz").exists()
    assert hospital.ask(f"POST {place}/accept", "annotator", **sent).status_code == 200
    stored = nibabel.load(hospital.studies / "labels" / "final" / "case.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj), scan.painted(PAINTED))


def bad_tokens(provider: Provider) -> dict[str, str]:
    """What is no token of a user, by what is wrong with it."""
    good = provider.token()
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["realm_access"]["roles"].append("monailabel-admin")
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    # The published key as a secret: what a server takes that lets the token say how it is signed.
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(provider.public) + b"\n-----END PUBLIC KEY-----"
    confused = jwt.api_jws.PyJWS(options={"enforce_minimum_key_length": False})
    confused._algorithms["HS256"].prepare_key = lambda key: key
    return {
        "expired": provider.token(exp=int(time.time()) - 1),
        "without an end": provider.token(exp=None),
        "not yet valid": provider.token(nbf=int(time.time()) + 300),
        "of another key": provider.token(key=Provider.new_key()),
        "changed": f"{head}.{changed}.{signature}",
        "not signed": f"{base64.urlsafe_b64encode(json.dumps({'alg': 'none'}).encode()).decode().rstrip('=')}.{body}.",
        "signed with what is public": confused.encode(json.dumps(claims).encode(), pem, "HS256"),
        "of nobody": provider.token(preferred_username=None),
        "no token": "x",
    }


def test_bad_tokens_are_refused_on_every_kind_of_route(hospital):
    places = ("GET /info/", "GET /imos/v1/info", "POST /infer/imos?image=case", "GET /datastore/")
    places += ("GET /proxy/dicom/qido/studies", "GET /imos/dicomweb/studies", "GET /auth/token/valid")
    for what in places:
        assert hospital.ask(what).status_code not in (401, 403, 500), what
    for wrong, token in bad_tokens(hospital.provider).items():
        for what in places:
            answer = hospital.ask(what, token=token)
            assert answer.status_code == 401, (wrong, what, answer.text)
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("roles", [None, {}, {"roles": None}, {"roles": "monailabel-user"}, "monailabel-user", 7])
def test_who_has_no_roles_may_do_nothing(hospital, roles):
    token = hospital.provider.token(realm_access=roles)
    assert hospital.ask("GET /imos/v1/info", token=token).status_code == 403
    assert hospital.ask("GET /auth/token/valid", token=token).json()["roles"] in ([], ["monailabel-user"])


def test_a_new_key_is_taken_and_a_provider_that_is_down_is_named(hospital):
    provider = hospital.provider
    old, before = provider.token(), provider.key
    assert hospital.ask("GET /info/", token=old).status_code == 200
    provider.key, provider.is_down = provider.new_key(), True
    try:
        time.sleep(5.1)  # it is not asked more often
        answer = hospital.ask("GET /info/")
        assert answer.status_code == 503
        assert "log-in service does not answer" in answer.json()["detail"]
        assert hospital.ask("GET /info/", token=old).status_code == 200, "whose key is known is not kept waiting"
        provider.is_down = False
        assert hospital.ask("GET /info/").status_code == 200
        assert hospital.ask("GET /info/", token=old).status_code == 401, "signed with the key of before"
    finally:
        provider.is_down, provider.key = False, before
        time.sleep(5.1)
        assert hospital.ask("GET /info/").status_code == 200


def test_a_page_that_was_named_may_use_the_server_and_no_other(hospital):
    change = "POST /imos/v1/images/case/undo?client=x"
    for origin, may in ((VIEWER, True), ("https://elsewhere.example", False), (f"{VIEWER}.evil.example", False)):
        ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        ask["Access-Control-Request-Headers"] = "authorization"
        asked = httpx.options(hospital.url + change.split()[1], headers=ask, timeout=30)
        assert asked.status_code == (200 if may else 400), asked.text
        answers = [asked, hospital.ask("GET /info/", headers={"Origin": origin})]
        answers += [httpx.get(f"{hospital.url}/info/", headers={"Origin": origin}, timeout=30)]
        answers += [hospital.ask(change, headers={"Origin": origin})]
        assert [one.status_code for one in answers[1:]] == [200, 401, 200 if may else 403]
        for answer in answers:
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if may else None), "refusals too: the page must see why"
