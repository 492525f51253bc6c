"""The floor that training corrects is the floor that propagation makes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from imos.propagation import flow as propagation_flow
from imos.propagation.floor import FLOOR, logit
from imos.training.unroll import floor_logits

SIZE = 64


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability on the previous slice, backward flow, score; objects touch the picture's edge, flow leaves it."""
    random = np.random.default_rng(3)

    def smooth(sigma: float) -> np.ndarray:
        field = cv2.GaussianBlur(random.standard_normal((SIZE, SIZE)).astype(np.float32), (0, 0), sigma)
        return field / field.std()

    probability = 1 / (1 + np.exp(-3 * smooth(6)))
    move = np.stack([4 * smooth(9) + 1, 4 * smooth(9)], -1)
    # OpenCV's remap knows 1/32 of a pixel: on that raster both must say the same
    return probability, np.round(move * 32) / 32, 4 * smooth(4)


def test_floor_of_training_equals_that_of_propagation(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    probability, move, score = scene
    prior = propagation_flow.warp((probability > 0.5).astype(np.float32), move)
    prior = cv2.GaussianBlur(prior, (0, 0), FLOOR.prior_blur)
    expected_prior = logit(prior, FLOOR.prior_limit)
    expected = expected_prior + FLOOR.score_weight * score
    batch = (torch.from_numpy(array)[None] for array in (probability, move, score))
    found_prior, found = floor_logits(*batch)
    np.testing.assert_allclose(found_prior[0].numpy(), expected_prior, atol=1e-3)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-3)


def test_without_motion_the_mask_stays(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    probability = torch.from_numpy(scene[0])[None]
    still, nothing = torch.zeros(1, SIZE, SIZE, 2), torch.zeros(1, SIZE, SIZE)
    prior, floor = floor_logits(probability, still, nothing)
    assert torch.equal(prior, floor)
    inside = cv2.erode((probability[0].numpy() > 0.5).astype(np.uint8), np.ones((5, 5)), borderValue=1) > 0
    assert (prior[0].numpy()[inside] > 0).all()
