"""Training on the network's own passes: walk, learn, walk with what was learned.

The states of earlier walks are kept for a while: those of a better network alone would make it forget why it is better.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from imos.network.small import SmallNetwork
from imos.propagation.model import Model
from imos.training.losses import sequence_loss
from imos.training.progress import Progress
from imos.training.rollouts import Course, State, StateBatch, collect
from imos.training.run import Machine, Run
from imos.training.sharing import in_any, processes, rank
from imos.training.unroll import Step

STEPS_A_ROUND = 40
"""Optimiser steps between two walks; fewer where there are fewer than three times as many in all."""
STATES_A_STEP = 6
"""States that are walked for a step."""
KEPT = 1500
"""States that are drawn from: .5 MB each."""


def train_on_policy(current: Run, model: Model, courses: Sequence[Course], machine: Machine) -> None:
    """Train, or go on training, until all steps are done or the time is up.

    A run that is taken up walks anew; its weights are not bit for bit those of an unbroken one.

    Args:
        current: The run; its averaged network walks.
        model: What its network belongs to.
        courses: What to walk through.
        machine: How much of the machine it takes.
    """
    settings = current.settings
    steps_a_round = min(STEPS_A_ROUND, max(1, -(-settings.steps // 3)))
    progress = Progress(current.folder, current.step, settings.steps)
    pool: list[State] = []
    try:
        while current.step < settings.steps:
            acting = model.decoding_with(_walking(current.averaged, model.device))
            after = min(current.step + steps_a_round, settings.steps)
            least = STATES_A_STEP * (after - current.step)
            with progress.waiting():
                found = collect(acting, courses, (settings.seed, 4, current.step, rank()), least)
            pool = [*pool, *found][-KEPT:]
            if in_any(not pool, current.device):
                break  # nothing is carried by the network here
            ended = False
            while current.step < after and not ended:
                random = np.random.default_rng([settings.seed, 5, current.step, rank()])
                drawn = random.choice(len(pool), settings.batch)
                parts = _learn(current, StateBatch.of([pool[number] for number in drawn], current.device))
                progress.show(current.step, "walks", settings.batch * processes(), parts)
                late = machine.minutes is not None and progress.elapsed > 60 * machine.minutes
                ended = in_any(late, current.device)
            if rank() == 0:
                current.save()
            if ended:
                return
    finally:
        progress.close()


def _walking(network: SmallNetwork, device: torch.device) -> SmallNetwork:
    return copy.deepcopy(network).to(device).eval()


def _learn(current: Run, batch: StateBatch) -> dict[str, float]:
    decoded = current.network.decode(batch.maps, batch.readout, batch.hidden, batch.cues)
    floor = batch.floor
    logits = floor + batch.share[:, None, None] * decoded.residual[:, 0]
    # the heads stay: the judge was fitted to them
    step = Step(floor, logits, decoded.existence.detach(), decoded.quality.detach())
    loss, parts = sequence_loss([step], torch.stack([batch.truth, batch.truth], 1))
    current.descend(loss)
    return {"loss": float(loss.detach())} | parts
