"""Series of a DICOMweb archive: fetched whole, and segmentations stored (DICOM PS3.18, 10.4 and 10.5).

Names and passwords come from `~/.netrc`, as for curl; `IMOS_DICOMWEB_TOKEN` is sent as a bearer token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from imos.errors import UserError

if TYPE_CHECKING:
    from dicomweb_client.api import DICOMwebClient

TOKEN = "IMOS_DICOMWEB_TOKEN"
_SERIES = re.compile(r"(?P<root>https?://.+?)/studies/(?P<study>[\d.]{1,64})/series/(?P<series>[\d.]{1,64})/?")


def is_address(place: str) -> bool:
    """Whether an image is in an archive, not on disk."""
    return place.startswith(("http://", "https://"))


def fetch_series(address: str, folder: Path) -> None:
    """Write all instances of a series into a folder.

    Args:
        address: `http(s)://…/studies/UID/series/UID`.
        folder: An empty one.

    Raises:
        UserError: The address is none, or the archive does not give the series.
    """
    from pydicom import dcmwrite

    root, study, series = _parts(address)
    with _told(address):
        count = 0
        for dataset in _client(root).iter_series(study, series):
            dcmwrite(folder / f"{count:06}.dcm", dataset, write_like_original=False)
            count += 1
    if not count:
        raise UserError(f"{address}: the archive has no such series.")


def store(file: Path, address: str) -> None:
    """Store an instance in the archive that a series came from. Storing the same one again changes nothing there.

    Args:
        file: DICOM.
        address: Of any series of that archive.

    Raises:
        UserError: The archive does not take it.
    """
    from pydicom import dcmread

    root, _, _ = _parts(address)
    dataset = dcmread(file)
    with _told(root):
        answer = _client(root).store_instances([dataset], study_instance_uid=dataset.StudyInstanceUID)
    if answer.get("FailedSOPSequence"):
        raise UserError(f"{root} does not store {file.name}. Does it accept segmentations?")


def _parts(address: str) -> tuple[str, str, str]:
    match = _SERIES.fullmatch(address)
    if match is None:
        raise UserError(f"{address} is no series: write http://ARCHIVE/dicom-web/studies/UID/series/UID.")
    return match["root"], match["study"], match["series"]


def _client(root: str) -> DICOMwebClient:
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError as error:
        raise UserError("series of an archive need dicomweb-client: pip install dicomweb-client") from error
    token = os.environ.get(TOKEN)
    client = DICOMwebClient(root, headers={"Authorization": f"Bearer {token}"} if token else None)
    client.set_http_retry_params(max_attempts=3)  # a busy archive; the study is asked for again by the next run
    return client


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Says in one line what an archive answered."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        if error.response is None:
            raise
        code, reason = error.response.status_code, error.response.reason
        raise UserError(f"{address}: the archive answers {code} {reason}.") from error
    except requests.RequestException as error:
        raise UserError(f"{address}: the archive cannot be reached. Is the address right?") from error
