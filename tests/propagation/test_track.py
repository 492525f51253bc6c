"""One pass: the floor, the network's correction on top of it, and the end of the object."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import imos
from imos.network.small import SmallNetwork
from imos.propagation.model import Share
from imos.propagation.track import track
from imos.propagation.trust import edge_density


class Ball:
    """A bright ball in noise, slices 5 to 19 of 30."""

    shape = (72, 64)
    count = 30

    def __init__(self):
        random = np.random.default_rng(3)
        z, y, x = np.ogrid[: self.count, : self.shape[0], : self.shape[1]]
        self.mask = ((z - 12) / 7.5) ** 2 + ((y - 36 - (z - 12)) / 13.0) ** 2 + ((x - 30) / 11.0) ** 2 <= 1
        self._slices = (80 + 100 * self.mask + random.normal(0, 6, self.mask.shape)).clip(0, 255).astype(np.uint8)

    def __getitem__(self, index):
        return self._slices[index]


@pytest.fixture(scope="module")
def model():
    return replace(imos.load(device="cpu"), network=None)


@pytest.fixture(scope="module")
def ball():
    return Ball()


def whole(estimate, shape):
    mask = np.zeros(shape, np.float32)
    height, width = estimate.probability.shape
    mask[estimate.top : estimate.top + height, estimate.left : estimate.left + width] = estimate.probability
    return mask


def test_the_object_is_followed_slice_by_slice(model, ball):
    found = {
        estimate.index: whole(estimate, ball.shape) > 0.5 for estimate in track(model, ball, ball.mask[12], 12, 18)
    }
    assert sorted(found) == list(range(13, 19))
    for index in range(13, 18):
        overlap = (found[index] & ball.mask[index]).sum() / (found[index] | ball.mask[index]).sum()
        assert overlap > 0.8, index


def test_a_pass_ends_soon_after_the_object_in_a_volume(model, ball):
    indices = [estimate.index for estimate in track(model, ball, ball.mask[12], 12, 29)]
    assert indices[-1] <= 23


def test_a_pass_goes_on_to_the_last_frame_in_a_video(model, ball):
    indices = [estimate.index for estimate in track(model, ball, ball.mask[12], 12, 29, patience=None)]
    assert indices == list(range(13, 30))


def test_an_untrained_network_changes_nothing(model, ball):
    torch.manual_seed(0)
    with_network = replace(model, network=SmallNetwork().eval(), judge=model.floor_judge)  # no heads to judge by yet
    one = list(track(model, ball, ball.mask[12], 12, 6))
    other = list(track(with_network, ball, ball.mask[12], 12, 6))
    assert [estimate.index for estimate in one] == [estimate.index for estimate in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.probability, b.probability, atol=1e-5)


def test_a_network_with_another_output_does_change_the_mask(model, ball):
    torch.manual_seed(0)
    network = SmallNetwork().eval()
    torch.nn.init.constant_(network.out.bias[:-2], -20.0)  # what is added; not the trust in the floor's parts
    with_network = replace(model, network=network, share=Share())
    estimates = list(track(with_network, ball, ball.mask[12], 12, 8, patience=None))
    assert all((estimate.probability < 0.5).all() for estimate in estimates)


def test_a_share_of_the_correction_is_taken_in_volumes_and_another_in_videos(model, ball):
    torch.manual_seed(0)
    network = SmallNetwork().eval()
    torch.nn.init.constant_(network.out.bias[:-2], -20.0)
    with_network = replace(model, network=network, share=Share(volume=0.0))
    plain = list(track(model, ball, ball.mask[12], 12, 14))
    volume = list(track(with_network, ball, ball.mask[12], 12, 14))
    for one, other in zip(plain, volume, strict=True):
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-5)
    video = list(track(with_network, ball, ball.mask[12], 12, 14, patience=None))
    assert all((estimate.probability < 0.5).all() for estimate in video)


class CutBall(Ball):
    """The same ball, half of it outside the field of view, moving in."""

    def __init__(self):
        super().__init__()
        self.mask, self._slices = self.mask[:, 34:], self._slices[:, 34:]
        self.shape = self.mask.shape[1:]


def test_what_moves_in_from_outside_the_field_of_view_is_object(model):
    ball = CutBall()
    estimates = list(track(model, ball, ball.mask[12], 12, 18))
    assert len(estimates) == 6
    for estimate in estimates[:5]:
        found, true = whole(estimate, ball.shape) > 0.5, ball.mask[estimate.index]
        assert (found & true).sum() / (found | true).sum() > 0.8, estimate.index


def test_weights_of_the_other_configuration_are_refused(model, ball):
    with pytest.raises(ValueError, match="configuration small"):
        next(track(replace(model, encoder=None), ball, ball.mask[12], 12, 13))


def test_more_of_the_correction_is_taken_where_the_picture_is_full_of_edges():
    share = Share(volume=0.35, edges=4.0)
    assert share.of_volume(0.15) == pytest.approx(0.35)
    assert share.of_volume(0.25) == pytest.approx(0.75)
    assert share.of_volume(0.0) == 0.35
    assert share.of_volume(0.9) == 1.0
    assert Share(volume=0.0, edges=4.0).of_volume(0.3) == 0.0
    assert Share(volume=0.5).of_volume(0.3) == 0.5
    flat = np.full((64, 64), 90, np.uint8)
    board = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((8, 8))).astype(np.uint8) * 200
    everywhere = slice(0, 64), slice(0, 64)
    assert edge_density(flat, everywhere) == 0
    assert edge_density(board, everywhere) > 0.15
    assert edge_density(np.where(np.arange(64) < 32, flat, board), (slice(0, 64), slice(0, 30))) == 0
