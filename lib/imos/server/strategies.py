"""Strategies: which volume to annotate next, so that a label teaches most.

    least_certain   whose latest propagation is trusted least
    least_like      which looks least like everything that is labelled
    diverse         a mix of both
    random          any

All skip what somebody else has open: a volume that another client was sent to, or worked on, within the last hour:
with our own routes (its workspaces) or with the stock tools of 3D Slicer and OHIF (its drafts). A client that does not
say who it is cannot be told from others like it, so what it works on counts as somebody else's.
"""

from __future__ import annotations

import logging
import random
import re
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.strategy import Strategy

from imos.errors import UserError
from imos.server.features import FeatureStore
from imos.server.inference import image_path
from imos.server.models import ModelCache
from imos.server.places import STATE_FOLDER
from imos.server.stored import when
from imos.server.workspace_files import DamagedFileError, Summary, read_summary

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore

logger = logging.getLogger(__name__)

OPEN_SECONDS = 3600.0
COMPARED = 64
"""Unlabelled images that are compared at most: any sample of so many holds a good one."""

_DRAFT = re.compile(r"(.*?)/(?:scribbles/|clicks(?:/|$))", re.DOTALL)
"""How the work of stock clients is named: the client, then the tool and mostly the object (`model_task.Drafts`)."""

LOOK_SECONDS = 5.0
"""For images that nobody looked at yet; the next request looks at further ones."""


def strategies(datastore: Datastore, models: ModelCache) -> dict[str, Strategy]:
    """All strategies by the name under which clients ask for them; the first one is what they show first."""
    survey = Survey(datastore, models)
    made: list[_Choice] = [Diverse(survey), LeastCertain(survey), LeastLike(survey), AnyOne(survey)]
    return {one.name: one for one in made}


@dataclass(frozen=True, slots=True)
class Work:
    """Somebody's work on an image.

    Attributes:
        summary: What it says.
        client: Whose it is; "" where he did not say.
        time: When it was changed last, seconds since 1970.
    """

    summary: Summary
    client: str
    time: float


def stamps_of(datastore: Datastore, image: str) -> dict[str, dict[str, Any]]:
    """Who was sent to an image by which strategy; what clients have put in its place counts as nothing."""
    said = datastore.get_image_info(image).get("strategy")
    return {name: one for name, one in said.items() if isinstance(one, dict)} if isinstance(said, dict) else {}


class Survey:
    """What is known about the images that wait for a label.

    Args:
        datastore: Where they lie.
        models: Gives the model whose encoder compares them.
    """

    def __init__(self, datastore: Datastore, models: ModelCache) -> None:
        self._datastore = datastore
        self._folder = Path(datastore._datastore_path) / STATE_FOLDER
        self._features = FeatureStore(self._folder / "features", models.get)
        self._seen: dict[Path, Work] = {}

    def waiting(self, client: str) -> list[str]:
        """Images without a final label that nobody but this client has open."""
        now = time.time()
        taken = {
            work.summary.image
            for work in self._works()
            if now - work.time < OPEN_SECONDS and (not work.client or work.client != client)
        }
        waiting = []
        for image in sorted(self._datastore.get_unlabeled_images()):
            stamps = stamps_of(self._datastore, image).values()
            sent = any(now - when(one) < OPEN_SECONDS and one.get("client_id") != client for one in stamps)
            if image not in taken and not sent:
                waiting.append(image)
        return waiting

    def confidence(self, images: Sequence[str]) -> dict[str, float]:
        """Mean expected J of the latest propagation of each image that was propagated."""
        found: dict[str, tuple[float, float]] = {}
        for work in self._works():
            if work.summary.confidence is not None:
                found[work.summary.image] = max(
                    found.get(work.summary.image, (0.0, 0.0)), (work.time, work.summary.confidence)
                )
        for image in images:
            for tag, label in self._datastore.get_labels_by_image_id(image).items():
                info = self._datastore.get_label_info(label, tag)
                mean = _mean_confidence(info.get("params"))
                if mean is not None:
                    found[image] = max(found.get(image, (0.0, 0.0)), (float(info.get("ts") or 0), mean))
        return {image: found[image][1] for image in images if image in found}

    def novelty(self, images: Sequence[str]) -> dict[str, float]:
        """How far each image is from the nearest labelled one; where none is labelled, from the middle of all."""
        chosen = random.sample(list(images), min(COMPARED, len(images)))
        labelled = list(self._datastore.get_labeled_images())[-COMPARED:]
        known = self._features.of(labelled, self._path, LOOK_SECONDS)
        found = self._features.of(chosen, self._path, LOOK_SECONDS)
        if not found:
            return {}
        if not known:
            # Nothing to differ from: begin with what most others are like.
            middle = np.mean(list(found.values()), axis=0)
            return {image: -float(np.linalg.norm(one - middle)) for image, one in found.items()}
        others = np.stack(list(known.values()))
        return {image: float(np.linalg.norm(others - one, axis=1).min()) for image, one in found.items()}

    def _path(self, image: str) -> Path:
        try:
            return image_path(self._datastore, image)
        except HTTPException as error:
            raise UserError(str(error.detail)) from error

    def _works(self) -> Iterator[Work]:
        """All that anybody has worked on; a file is read again only when it has changed."""
        for folder, client_of in (
            (self._folder / "workspaces", _client_of_workspace),
            (self._folder / "drafts", _client_of_draft),
        ):
            for path in folder.glob("*.imos") if folder.is_dir() else ():
                try:
                    changed = path.stat().st_mtime
                    work = self._seen.get(path)
                    if work is None or work.time != changed:
                        summary = read_summary(path)
                        self._seen[path] = work = Work(summary, client_of(summary.client), changed)
                except (OSError, DamagedFileError):
                    continue
                yield work


class _Choice(Strategy):
    """One strategy: a figure for each waiting image, the highest wins.

    Args:
        survey: What is known about images.
    """

    name = ""

    def __init__(self, survey: Survey) -> None:
        super().__init__((self.__doc__ or "").splitlines()[0])
        self._survey = survey

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The next image for a client; None where there is none left."""
        waiting = self._survey.waiting(str(request.get("client_id") or ""))
        if not waiting:
            return None
        worth = self.worth(waiting)
        if not worth:
            return {"id": random.choice(waiting), "strategy_used": AnyOne.name}
        best = max(worth.values())
        image = random.choice([name for name, value in worth.items() if value == best])
        return {"id": image, "worth": round(best, 4), "strategy_used": self.name}

    @abstractmethod
    def worth(self, waiting: Sequence[str]) -> dict[str, float]:
        """How much each image is worth, for those of which anything is known."""


class LeastCertain(_Choice):
    """The volume whose latest propagation is trusted least; any where nothing was propagated."""

    name = "least_certain"

    def worth(self, waiting: Sequence[str]) -> dict[str, float]:
        """One minus the mean expected J."""
        return {image: 1 - value for image, value in self._survey.confidence(waiting).items()}


class LeastLike(_Choice):
    """The volume that looks least like those that are labelled."""

    name = "least_like"

    def worth(self, waiting: Sequence[str]) -> dict[str, float]:
        """Distance to the nearest labelled image."""
        return self._survey.novelty(waiting)


class Diverse(_Choice):
    """A mix: volumes that look unlike the labelled ones, and whose propagation is not trusted."""

    name = "diverse"

    def worth(self, waiting: Sequence[str]) -> dict[str, float]:
        """Mean of both ranks; what is not known counts as the middle."""
        parts = [_ranks(part(waiting)) for part in (self._uncertainty, self._survey.novelty)]
        known = set().union(*parts)
        return {image: sum(part.get(image, 0.5) for part in parts) / 2 for image in known}

    def _uncertainty(self, waiting: Sequence[str]) -> dict[str, float]:
        return {image: 1 - value for image, value in self._survey.confidence(waiting).items()}


class AnyOne(_Choice):
    """Any volume that waits for a label."""

    name = "random"

    def worth(self, waiting: Sequence[str]) -> dict[str, float]:
        """All the same."""
        return dict.fromkeys(waiting, 0.0)


def _client_of_workspace(name: str) -> str:
    return name.rpartition("/")[2]  # behind who is logged in, if anybody is


def _client_of_draft(name: str) -> str:
    found = _DRAFT.match(name)
    return found[1] if found else ""


def _ranks(worth: Mapping[str, float]) -> dict[str, float]:
    """Values by their order: 0 the lowest, 1 the highest."""
    order = sorted(worth, key=lambda image: worth[image])
    return {image: place / max(1, len(order) - 1) for place, image in enumerate(order)} if len(order) > 1 else {}


def _mean_confidence(params: Any) -> float | None:
    """Of what `/infer` answered, as it is kept with a label."""
    said = params.get("confidence") if isinstance(params, dict) else None
    values = [float(value) for slices in said.values() for value in slices.values()] if isinstance(said, dict) else []
    return sum(values) / len(values) if values else None
