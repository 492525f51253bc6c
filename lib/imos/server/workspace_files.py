"""Workspace files: everything that one client has said about one image, as one file.

A file is a page of JSON and the packed pictures that it refers to by number. What several steps of the history share is
written once. Files are replaced as a whole, so that a killed server leaves the old one or the new one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imos.imaging.writing import replacing
from imos.propagation.blending import Layer
from imos.propagation.composition import Outcome, SessionState
from imos.propagation.crops import Crop
from imos.propagation.prompts import Prompt
from imos.server.grids import Grid
from imos.server.snapshots import ImageObject, Snapshot, Timeline, Voxels

_MAGIC = b"iMOS workspace 1\n"
_LENGTH = struct.Struct("<Q")


class DamagedFileError(Exception):
    """A workspace file that cannot be read as one."""


@dataclass(frozen=True)
class Record:
    """What a workspace file holds.

    Attributes:
        image: Id of the image.
        client: Who works.
        revision: Counts every change.
        saved: Revision that was stored as the image's label, or None.
        objects: All that the client ever named, by label value.
        listed: Those that it lists now, in its order.
        grid: The client's grid, or None for the image's own.
        shape: `(I, J, K)` of the image; the state fits no other one.
        timeline: Present, past and future.
    """

    image: str
    client: str
    revision: int = 0
    saved: int | None = None
    objects: Mapping[int, ImageObject] = field(default_factory=dict)
    listed: tuple[int, ...] = ()
    grid: Grid | None = None
    shape: tuple[int, int, int] = (0, 0, 0)
    timeline: Timeline = field(default_factory=Timeline)


def write_record(path: Path, record: Record) -> None:
    """Write a workspace; the old file or the new one is there, whenever the process ends.

    Raises:
        UserError: The disk is full or refuses.
    """
    pool = _Pool()
    page = {
        "image": record.image,
        "client": record.client,
        "revision": record.revision,
        "saved": record.saved,
        "shape": list(record.shape),
        "objects": [
            [one.value, one.name, None if one.color is None else list(one.color), one.locked]
            for one in record.objects.values()
        ],
        "listed": list(record.listed),
        "grid": None if record.grid is None else [list(record.grid.size), record.grid.affine.tolist()],
        "present": pool.snapshot(record.timeline.present),
        "past": [[name, pool.snapshot(snapshot)] for name, snapshot in record.timeline.past],
        "future": [[name, pool.snapshot(snapshot)] for name, snapshot in record.timeline.future],
        "tables": pool.tables,
        "blobs": [len(blob) for blob in pool.blobs],
    }
    text = json.dumps(page, separators=(",", ":")).encode()
    body = b"".join((_LENGTH.pack(len(text)), text, *pool.blobs))
    with replacing(path) as temporary:
        temporary.write_bytes(_MAGIC + hashlib.sha256(body).digest() + body)


def read_record(path: Path) -> Record:
    """Read a workspace.

    Raises:
        DamagedFileError: The file is not what `write_record` wrote.
        OSError: It cannot be opened.
    """
    content = path.read_bytes()
    start = len(_MAGIC) + 32
    body = content[start:]
    if not content.startswith(_MAGIC) or hashlib.sha256(body).digest() != content[len(_MAGIC) : start]:
        raise DamagedFileError(path.name)
    (length,) = _LENGTH.unpack_from(body)
    page = json.loads(body[_LENGTH.size : _LENGTH.size + length])
    shelf = _Shelf(page["tables"], body, _LENGTH.size + length, page["blobs"])
    grid = page["grid"]
    objects = [
        ImageObject(value, name, None if color is None else (color[0], color[1], color[2]), locked)
        for value, name, color, locked in page["objects"]
    ]
    return Record(
        image=page["image"],
        client=page["client"],
        revision=page["revision"],
        saved=page["saved"],
        objects={one.value: one for one in objects},
        listed=tuple(page["listed"]),
        grid=None if grid is None else Grid((grid[0][0], grid[0][1], grid[0][2]), np.array(grid[1])),
        shape=tuple(page["shape"]),
        timeline=Timeline(
            shelf.snapshot(page["present"]),
            tuple((name, shelf.snapshot(number)) for name, number in page["past"]),
            tuple((name, shelf.snapshot(number)) for name, number in page["future"]),
        ),
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """What can be said of a workspace file without unpacking it.

    Attributes:
        image: Id of the image.
        client: Who works.
        is_saved: Whether it is stored as the image's label as it is.
        confidence: Mean expected J of all that was propagated; None where nothing was.
    """

    image: str
    client: str
    is_saved: bool
    confidence: float | None


def read_summary(path: Path) -> Summary:
    """Look at a workspace file.

    Raises:
        DamagedFileError: The file is not what `write_record` wrote.
        OSError: It cannot be opened.
    """
    start = len(_MAGIC) + 32
    with path.open("rb") as file:
        head = file.read(start + _LENGTH.size)
        if not head.startswith(_MAGIC) or len(head) < start + _LENGTH.size:
            raise DamagedFileError(path.name)
        try:
            page = json.loads(file.read(_LENGTH.unpack_from(head, start)[0]))
            tables = page["tables"]
            outcomes = [tables["outcomes"][number] for _, number in tables["snapshots"][page["present"]][1]]
            found = [tables["layers"][layer][2] for _, _, layers in outcomes for _, layer in layers]
            mean = sum(found) / len(found) if found else None
            return Summary(page["image"], page["client"], page["saved"] == page["revision"], mean)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DamagedFileError(path.name) from error


class _Pool:
    """Gives every distinct part of a workspace a number, and collects the parts in tables."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Any]] = {
            name: [] for name in ("crops", "layers", "voxels", "prompts", "outcomes", "snapshots")
        }
        self.blobs: list[bytes] = []
        self._numbers: dict[tuple[str, int], int] = {}
        self._alive: list[object] = []  # an id names an object only as long as it lives

    def _number(self, table: str, part: object, describe: Any) -> int:
        key = (table, id(part))
        if key not in self._numbers:
            described = describe(part)
            self._alive.append(part)
            self._numbers[key] = len(self.tables[table])
            self.tables[table].append(described)
        return self._numbers[key]

    def _blob(self, content: bytes) -> int:
        self.blobs.append(content)
        return len(self.blobs) - 1

    def _crop(self, crop: Crop) -> int:
        return self._number(
            "crops",
            crop,
            lambda part: [part.top, part.left, part.height, part.width, part.area, self._blob(part.packed)],
        )

    def _layer(self, layer: Layer) -> int:
        return self._number(
            "layers", layer, lambda part: [self._crop(part.crop), float(part.existence), float(part.confidence)]
        )

    def _prompt(self, prompt: Prompt) -> int:
        return self._number(
            "prompts",
            prompt,
            lambda part: [
                *(part.label, part.axis, part.index, *part.shape, self._crop(part.crop)),
                *(part.painted, part.accepted),
            ],
        )

    def _outcome(self, outcome: Outcome) -> int:
        return self._number(
            "outcomes",
            outcome,
            lambda part: [
                part.axis,
                sorted(part.ended),
                [[index, self._layer(layer)] for index, layer in part.layers.items()],
            ],
        )

    def _voxels(self, voxels: Voxels | None) -> int | None:
        if voxels is None:
            return None
        return self._number(
            "voxels", voxels, lambda part: [list(part.corner), list(part.size), self._blob(part.packed)]
        )

    def snapshot(self, snapshot: Snapshot) -> int:
        """Number of a snapshot, with all its parts in the tables."""
        state = snapshot.session
        return self._number(
            "snapshots",
            snapshot,
            lambda part: [
                [self._prompt(prompt) for prompt in state.prompts.values()],
                [[value, self._outcome(outcome)] for value, outcome in state.outcomes.items()],
                [state.first, state.last],
                self._voxels(part.brought),
                self._voxels(part.locked),
                sorted(part.finished),
            ],
        )


class _Shelf:
    """The parts of a workspace by their numbers."""

    def __init__(self, tables: Mapping[str, list[Any]], body: bytes, start: int, lengths: list[int]) -> None:
        ends = np.cumsum([start, *lengths]).tolist()
        blobs = [body[ends[number] : ends[number + 1]] for number in range(len(lengths))]
        crops = [
            Crop(top, left, height, width, area, blobs[blob])
            for top, left, height, width, area, blob in tables["crops"]
        ]
        layers = [Layer(crops[crop], existence, confidence) for crop, existence, confidence in tables["layers"]]
        voxels = [Voxels(tuple(corner), tuple(size), blobs[blob]) for corner, size, blob in tables["voxels"]]
        prompts = [
            Prompt(label, axis, index, (height, width), crops[crop], painted, accepted)
            for label, axis, index, height, width, crop, painted, accepted in tables["prompts"]
        ]
        outcomes = [
            Outcome(axis, {index: layers[layer] for index, layer in found}, frozenset(ended))
            for axis, ended, found in tables["outcomes"]
        ]
        self._snapshots = [
            Snapshot(
                SessionState(
                    {prompts[number].place: prompts[number] for number in said},
                    {value: outcomes[number] for value, number in found},
                    *limits,
                ),
                None if brought is None else voxels[brought],
                None if locked is None else voxels[locked],
                frozenset(finished),
            )
            for said, found, limits, brought, locked, finished in tables["snapshots"]
        ]

    def snapshot(self, number: int) -> Snapshot:
        """The snapshot of a number."""
        return self._snapshots[number]
