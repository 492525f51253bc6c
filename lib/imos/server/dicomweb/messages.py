"""Messages: the JSON and multipart forms of DICOMweb."""

from __future__ import annotations

import fnmatch
import io
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydicom import datadict
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from imos.errors import UserError

_MOST_INLINE = 4096
_NOT_FILTERS = ("limit", "offset", "includefield", "fuzzymatching", "accept")


def to_json(dataset: Dataset) -> dict[str, Any]:
    """A data set as DICOM JSON, without pixels and other large values."""
    small = Dataset()
    for element in dataset:
        is_large = isinstance(element.value, bytes) and len(element.value) > _MOST_INLINE
        if not is_large and element.tag.group not in (0x0002, 0x7FE0):
            small[element.tag] = element
    found: dict[str, Any] = small.to_json_dict(suppress_invalid_tags=True)
    return found


def to_file(dataset: Dataset) -> bytes:
    """A data set as a DICOM file."""
    target = io.BytesIO()
    dcmwrite(target, dataset, write_like_original=False)
    return target.getvalue()


def matches(dataset: Dataset, filters: Mapping[str, str]) -> bool:
    """Whether a data set answers a search.

    Args:
        dataset: What is listed.
        filters: Keyword or tag → value, with `*` and `?`, several UIDs by comma, a range of dates by dash.
    """
    for name, wanted in filters.items():
        keyword = _keyword(name)
        if not wanted or keyword is None:
            continue
        value = dataset.get(keyword)
        values = [value] if value is None or isinstance(value, str) or not isinstance(value, Sequence) else list(value)
        texts = ["" if one is None else str(one) for one in values]
        if keyword.endswith("Date") and "-" in wanted:
            first, _, last = wanted.partition("-")
            if not any((not first or text >= first) and (not last or text <= last) for text in texts if text):
                return False
            continue
        choices = [choice.lower() for choice in re.split(r"[,\\]", wanted)] if keyword.endswith("UID") else [wanted]
        if not any(fnmatch.fnmatchcase(text.lower(), choice.lower()) for text in texts for choice in choices):
            return False
    return True


def page(found: list[dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
    """The part of a list that `limit` and `offset` ask for."""
    offset = int(query["offset"]) if query.get("offset", "").isdecimal() else 0
    limit = int(query["limit"]) if query.get("limit", "").isdecimal() else len(found)
    return found[offset : offset + limit]


def filters_of(query: Mapping[str, str]) -> dict[str, str]:
    """What a query searches for."""
    return {name: value for name, value in query.items() if name.lower() not in _NOT_FILTERS}


def multipart(parts: Iterable[tuple[bytes, str]], kind: str) -> tuple[Iterator[bytes], str]:
    """A multipart message.

    Args:
        parts: Content and content type of each part.
        kind: Content type of all.

    Returns:
        The message, piece by piece, and its content type.
    """
    boundary = secrets.token_hex(16)

    def pieces() -> Iterator[bytes]:
        for content, content_type in parts:
            yield f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            yield content
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    return pieces(), f'multipart/related; type="{kind}"; boundary={boundary}'


def split_multipart(body: bytes, content_type: str) -> list[bytes]:
    """The contents of the parts of a multipart message.

    Raises:
        UserError: It is none.
    """
    found = re.search(r'boundary="?([^";,]{1,200})"?', content_type)
    if not content_type.lower().startswith("multipart/related") or found is None:
        msg = "Send the instances as multipart/related with a boundary."
        raise UserError(msg)
    mark = b"--" + found[1].strip().encode("latin-1")
    parts = []
    for piece in (b"\r\n" + body).split(b"\r\n" + mark)[1:]:
        if piece.startswith(b"--"):
            break
        _head, gap, content = piece.partition(b"\r\n\r\n")
        if gap:
            parts.append(content)
    if not parts:
        msg = "The message has no part."
        raise UserError(msg)
    return parts


def _keyword(name: str) -> str | None:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return datadict.keyword_for_tag(int(name, 16)) or None
    return name if datadict.tag_for_keyword(name) is not None else None
