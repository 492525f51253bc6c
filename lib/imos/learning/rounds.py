"""A round: accepted labels in, a judged version out.

    prepare    the labels as training stacks, in one file
    train      in a process of its own; one that was cut off goes on if it is for the same labels, weights and code
    judge      candidate, champion and base on the held-out volumes
    publish    always; put to use only if the gate lets it pass

Everything before `publish` lies in the folder `round` of the registry and may vanish at any moment: the champion is not
touched before the last line.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

import imos
from imos.errors import UserError
from imos.imaging.writing import replacing
from imos.learning import instrument
from imos.learning.doubts import warning_of
from imos.learning.finetuning import LOOK_EVERY, Recipe, Step, fine_tune, read_step
from imos.learning.gate import Verdict, decide
from imos.learning.judging import measure_all
from imos.learning.scores import ScoreBook
from imos.learning.stacks import stacks_of
from imos.learning.volumes import VolumeRef
from imos.registry.adapter_files import digest
from imos.registry.records import Draft, LabelRef, Record
from imos.registry.store import Registry
from imos.training.packing import write_pack
from imos.training.progress import write_figures

if TYPE_CHECKING:
    from imos.propagation.model import Model
    from imos.training.volumes import Stack

logger = logging.getLogger(__name__)

_PLAN, _PACK = "plan.json", "pack.npz"

Scored = dict[LabelRef, float]


class Stage(StrEnum):
    """What a round does."""

    PREPARING = "preparing"
    TRAINING = "training"
    JUDGING = "judging"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a round is.

    Attributes:
        stage: What it does.
        step: Optimiser steps done.
        steps: In all; 0 while that is not known.
        loss: Of the latest step, or None.
        judged: Held-out volumes judged, over all versions.
        record: What came of it.
    """

    stage: Stage
    step: int = 0
    steps: int = 0
    loss: float | None = None
    judged: int = 0
    record: Record | None = None


MOST_VOLUMES = 24
"""That a round learns from."""

Pupil = TypeVar("Pupil")


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a round is given.

    Attributes:
        new: Labels that no version has learned from.
        replay: Older ones, to be repeated.
        held_out: Labels that only judge.
    """

    new: Sequence[VolumeRef]
    replay: Sequence[VolumeRef] = ()
    held_out: Sequence[VolumeRef] = ()


def divided(pupils: Sequence[Pupil], is_known: Callable[[Pupil], bool]) -> tuple[list[Pupil], list[Pupil]]:
    """What a round learns anew, and what it repeats: a third of it at most, where there is more than enough.

    Args:
        pupils: Everything that may teach, the latest first.
        is_known: Whether an ancestor of the champion has learned from it.
    """
    new = [one for one in pupils if not is_known(one)]
    old = [one for one in pupils if is_known(one)]
    new = new[: MOST_VOLUMES - min(len(old), MOST_VOLUMES // 3)]
    return new, old[: MOST_VOLUMES - len(new)]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a project.

    Attributes:
        registry: Where versions are.
        recipe: How to train; its `adapter` is what the base consists of beside its weights.
        tell: Called when it has come further.
        is_busy: Whether somebody waits for a propagation.
    """

    registry: Registry
    recipe: Recipe
    tell: Callable[[Standing], None] = field(default=lambda _: None)
    is_busy: Callable[[], bool] = field(default=lambda: False)

    @property
    def folder(self) -> Path:
        """Where an unfinished round lies."""
        return self.registry.folder / "round"

    def run(self, lessons: Lessons) -> Record:
        """Learn, judge, publish.

        Args:
            lessons: What to learn from, and who judges.

        Returns:
            The new version.

        Raises:
            UserError: Nothing can be learned, or a round is going on.
            FineTuningError: The training itself failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.registry.folder / ".round.lock", timeout=0):
                return self._run(lessons)
        except Timeout as error:
            raise UserError("A round is going on in this project. Wait until it has ended, or stop it.") from error

    def _run(self, lessons: Lessons) -> Record:
        parent = self.registry.champion
        adapter = self.registry.adapter(parent) or self.recipe.adapter
        recipe = replace(self.recipe, adapter=adapter)
        self.tell(Standing(Stage.PREPARING))
        plan = self._plan(parent, recipe, lessons)
        learned = self._left(plan)
        tried = None if learned is None else self._go_on(parent, recipe, lessons.held_out)
        if learned is None or tried is None:
            learned = self._prepare(plan, lessons)
            tried = self._try(parent, recipe, lessons.held_out)
        scores, verdict = tried
        taught = [one for one in lessons.new if one.label in learned]  # older ones were looked at when they were new
        reason = " ".join(filter(None, (verdict.reason, self._doubts([*taught, *lessons.held_out]))))
        draft = Draft(
            parent,
            new=tuple(one.label for one in lessons.new if one.label in learned),
            replay=tuple(one.label for one in lessons.replay if one.label in learned),
            figures=verdict.figures,
            promoted=verdict.promoted,
            reason=reason,
        )
        record = self.registry.publish(self._candidate, draft)
        self._book.write(self._weights(record.sha256), scores)
        if verdict.promoted and not self.registry.activate(record.name, reason, instead_of=parent):
            logger.warning("%s is not used: %s was replaced while it was judged", record.name, parent)
        self._clear_up(record)
        logger.info("%s: %s", record.name, record.reason)
        self.tell(Standing(Stage.DONE, record=record))
        return record

    @property
    def _candidate(self) -> Path:
        return self.folder / "candidate.safetensors"

    def _go_on(self, parent: str, recipe: Recipe, held_out: Sequence[VolumeRef]) -> tuple[Scored, Verdict] | None:
        """Try with what a round left; None where that is of no use."""
        logger.info("A round that was cut off goes on")
        try:
            return self._try(parent, recipe, held_out)
        except Exception as error:  # whatever it is: it would come back in every run until the labels change
            logger.warning("It cannot go on, and begins anew: %s", error)
            return None

    def _try(self, parent: str, recipe: Recipe, held_out: Sequence[VolumeRef]) -> tuple[Scored, Verdict]:
        """Train where there is no candidate yet, and judge it."""
        if not self._candidate.is_file():
            pack, folder = self.folder / _PACK, self.folder / "run"
            fine_tune(pack, self._candidate, folder, recipe, self._tell_step, self.is_busy)
        return self._judge(parent, held_out)

    # What is learned from

    def _plan(self, parent: str, recipe: Recipe, lessons: Lessons) -> dict[str, Any]:
        """What decides the candidate; a run that was begun for the same one goes on."""
        adapter = "" if recipe.adapter is None else digest(recipe.adapter)
        words = replace(recipe, adapter=None).words(Path(), Path(), Path())
        return {
            "parent": parent,
            "code": instrument.training(),
            "weights": digest(recipe.weights),  # their path, among the words, may hold others by now
            "adapter": adapter,
            "words": words,
            "new": [[one.label.image, one.label.digest] for one in lessons.new],
            "replay": [[one.label.image, one.label.digest] for one in lessons.replay],
        }

    def _left(self, plan: dict[str, Any]) -> set[LabelRef] | None:
        """The labels that the round on disk learns from, if it is this one."""
        try:
            begun = json.loads((self.folder / _PLAN).read_text("utf-8"))
            if begun["plan"] == plan:
                return {LabelRef(image, label) for image, label in begun["learned"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _prepare(self, plan: dict[str, Any], lessons: Lessons) -> set[LabelRef]:
        """Begin anew; the labels that are learned from."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        learned: dict[LabelRef, bool] = {}
        write_pack(self._stacks([*lessons.new, *lessons.replay], learned), self.folder / _PACK, quickly=True)
        if not any(learned.values()):
            raise UserError("There is no label to learn from: none shows an object of 12 pixels or more on two slices.")
        said = {"plan": plan, "learned": [[one.image, one.digest] for one in sorted(learned)]}
        with replacing(self.folder / _PLAN) as beside:  # last: without it the folder is begun anew
            beside.write_text(json.dumps(said), "utf-8")
        return set(learned)

    def _stacks(self, volumes: Sequence[VolumeRef], learned: dict[LabelRef, bool]) -> Iterator[Stack]:
        """The stacks of volumes, one volume in memory at a time.

        Those that give one are added to `learned`, with whether one of their objects can be walked through.
        """
        numbers: dict[str, int] = {}
        for volume in volumes:
            self._wait()
            try:
                stacks = stacks_of(volume.load())
            except UserError as error:  # one broken file does not keep a project from learning
                logger.warning("%s is left out: %s", volume.label.image, error)
                continue
            if stacks:
                learned[volume.label] = any(stack.can_be_walked() for stack in stacks)
            number = numbers.setdefault(volume.label.image, len(numbers))  # an older label is of the same volume
            yield from (replace(stack, volume=number) for stack in stacks)

    # Who is better

    @property
    def _book(self) -> ScoreBook:
        return ScoreBook(self.registry.folder / "scores")

    def _weights(self, adapter: str) -> str:
        """Names a set of weights by its digests, and what measures them."""
        return f"{digest(self.recipe.weights)} {adapter} {instrument.measuring(self.recipe.device)}"

    def _judge(self, parent: str, held_out: Sequence[VolumeRef]) -> tuple[Scored, Verdict]:
        """What the candidate scores, and what follows from it."""
        adapters = (self._candidate, self.registry.adapter(parent) or self.recipe.adapter, self.recipe.adapter)
        judged = 0

        def before_each() -> None:
            nonlocal judged
            judged += 1
            self.tell(Standing(Stage.JUDGING, judged=judged))
            self._wait()

        found = []
        for adapter in adapters:
            weights = self._weights("" if adapter is None else digest(adapter))
            known = self._book.read(weights)
            found.append(measure_all(self._loader(adapter), held_out, known, before_each, self._wait))
            if adapter != self._candidate:
                self._book.write(weights, known)
        patients = {one.label: one.patient for one in held_out}
        return found[0], decide(found[0], found[1], found[2], parent, patients)

    def _doubts(self, volumes: Sequence[VolumeRef]) -> str:
        """A sentence about labels that look wrong, by what the base makes of them; empty where none does."""
        adapter = self.recipe.adapter
        weights = self._weights("" if adapter is None else digest(adapter))
        known = self._book.read(weights)
        found = measure_all(self._loader(adapter), volumes, known, self._wait, self._wait)
        self._book.write(weights, known)
        return warning_of(found)

    def _loader(self, adapter: Path | None) -> Callable[[], Model]:
        return partial(imos.load, self.recipe.weights, adapter=adapter, device=self.recipe.device)

    # Around it

    def _wait(self) -> None:
        """As long as somebody waits for a propagation."""
        while self.is_busy():
            time.sleep(LOOK_EVERY)

    def _tell_step(self, step: Step) -> None:
        self.tell(Standing(Stage.TRAINING, step.done, step.total, step.loss))

    def _clear_up(self, record: Record) -> None:
        """Keep the curves of TensorBoard, with what the version was found to do, and forget the rest."""
        traces = self.registry.folder / "logs" / record.name
        traces.mkdir(parents=True, exist_ok=True)
        last = read_step(self.folder / "run")
        figures = {name: getattr(record.figures, name) for name in ("candidate", "champion", "base")}
        found = {f"j_and_f/{name}": value for name, value in figures.items() if value is not None}
        write_figures(traces, 0 if last is None else last.done, found)
        for file in (self.folder / "run").glob("events.out.tfevents.*"):
            file.replace(traces / file.name)
        shutil.rmtree(self.folder, ignore_errors=True)
