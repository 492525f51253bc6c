"""What our own routes take and answer, as OpenAPI shows it."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from imos.errors import UserError
from imos.propagation.plan import Direction
from imos.propagation.prompts import LARGEST_LABEL
from imos.server.sentences import sentence
from imos.server.snapshots import LONGEST_NAME

Value = Annotated[int, Field(ge=1, le=LARGEST_LABEL)]
Channel = Annotated[int, Field(ge=0, le=255)]
Index = Annotated[int, Field(ge=0, le=2**20)]


class Refusal(BaseModel):
    """Why a request was not carried out."""

    detail: str


class Label(BaseModel):
    """One of the labels that the server was started with."""

    value: int
    name: str


class Info(BaseModel):
    """What the server is."""

    version: str
    api: int
    labels: list[Label]
    auth: bool


class ObjectSaid(BaseModel):
    """One object of the client."""

    value: Value
    name: Annotated[str, Field(max_length=LONGEST_NAME)] = ""
    color: tuple[Channel, Channel, Channel] | None = None
    locked: bool = False


class EditSaid(BaseModel):
    """One slice touched by hand; axis and index of the label map that is sent with it."""

    axis: Annotated[int, Field(ge=0, le=2)]
    index: Index
    values: Annotated[list[Value], Field(max_length=4096)] = []


class _Params(BaseModel):
    model_config = ConfigDict(extra="ignore")

    objects: Annotated[list[ObjectSaid], Field(max_length=4096)] | None = None

    @model_validator(mode="after")
    def _once(self) -> _Params:
        values = [one.value for one in self.objects or []]
        if len(values) != len(set(values)):
            msg = "two objects have the same value"
            raise ValueError(msg)
        return self


class RunParams(_Params):
    """`params` of a run."""

    edits: Annotated[list[EditSaid], Field(max_length=65536)] = []
    selected: Annotated[list[Value], Field(max_length=4096)] | None = None
    direction: Direction = Direction.BOTH
    first: Index | None = None
    last: Index | None = None


class AcceptParams(_Params):
    """`params` of an acceptance."""

    objects_accepted: Annotated[list[Value], Field(max_length=4096)] | None = None


class RunStarted(BaseModel):
    """A run that was taken on."""

    run: str


class GridSaid(BaseModel):
    """Where voxels lie: sizes, mm between voxels, centre of voxel (0, 0, 0), and a unit vector an axis, in LPS."""

    size: list[int]
    spacing: list[float]
    origin: list[float]
    directions: list[list[float]]


class ObjectSlices(BaseModel):
    """What is known about an object on which slices, along which axis."""

    axis: int
    painted: list[int]
    propagated: list[int]
    accepted: list[int]
    absent: list[int]


class State(BaseModel):
    """STATE: everything but voxels. Axes and slices are those of the grid."""

    image: str
    client: str
    revision: int
    running: str | None
    grid: GridSaid
    objects: list[ObjectSaid]
    slices: dict[str, ObjectSlices]
    confidence: dict[str, dict[str, float]]
    suggested: dict[str, int]
    undo: list[str]
    redo: list[str]
    notices: list[str]
    accepted: bool
    unsaved: bool


class Accepted(State):
    """STATE, and what was stored."""

    label: str
    training: str


class NextImage(BaseModel):
    """An image without a label."""

    image: str
    study: str
    series: str


_Said = TypeVar("_Said", bound=BaseModel)


def read_params(kind: type[_Said], text: str) -> _Said:
    """The JSON of a multipart request.

    Raises:
        UserError: It is no JSON, or a value in it cannot be meant.
    """
    try:
        return kind.model_validate_json(text or "{}")
    except ValidationError as error:
        raise UserError(f"`params`: {sentence(error.errors()[0])}") from error
