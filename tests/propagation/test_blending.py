import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imos.propagation.blending import Layer, Stripe, blend, blend_weights, one_sided, pull_to_stripe
from imos.propagation.crops import Crop
from imos.propagation.prompts import Prompt


def layer(probability, confidence=0.8, existence=1.0, top=0, left=0):
    return Layer(Crop.of_probability(np.asarray(probability, np.float32), top, left), existence, confidence)


confidences = st.floats(0, 1)


@given(st.integers(1, 50), confidences, confidences)
def test_at_a_prompt_its_own_pass_decides_alone(gap, first, second):
    assert blend_weights((0, gap), (first, second)) == (1.0, 0.0)
    assert blend_weights((gap, 0), (first, second)) == (0.0, 1.0)


@given(st.integers(0, 50), st.integers(1, 50), confidences, confidences)
def test_weights_sum_to_one(before, behind, first, second):
    assert sum(blend_weights((before, behind), (first, second))) == pytest.approx(1.0)


def test_equally_sure_passes_count_by_distance():
    assert blend_weights((1, 3), (0.6, 0.6)) == pytest.approx((0.75, 0.25))


def test_in_the_middle_the_surer_pass_counts_more():
    assert blend_weights((5, 5), (0.9, 0.3)) == pytest.approx((0.75, 0.25))


def test_two_passes_that_agree_are_left_as_they_are():
    same = layer(np.full((3, 3), 0.8))
    assert blend((same, same), (2, 3)).crop == same.crop


def test_probabilities_are_averaged_where_either_pass_saw_something():
    mixed = blend((layer([[0.9, 0.9]], left=4), layer([[0.9, 0.9]], left=5)), (1, 3))
    values = np.zeros(8)
    values[mixed.crop.left : mixed.crop.left + mixed.crop.width] = mixed.crop.levels()[0] / 256
    assert values[4:7] == pytest.approx([0.675, 0.9, 0.225], abs=0.005)


def test_confidence_and_existence_are_averaged_alike():
    mixed = blend((layer([[0.9]], 0.8, 1.0), layer([[0.9]], 0.8, 0.5)), (1, 3))
    assert mixed.confidence == pytest.approx(0.8)
    assert mixed.existence == pytest.approx(0.875)


def test_two_empty_slices_blend_to_an_empty_one():
    nothing = layer([[0.0]])
    assert blend((nothing, nothing), (1, 1)).crop.is_empty


def test_a_pass_is_less_sure_the_nearer_it_comes_to_a_prompt_whose_pass_has_ended():
    alone = layer([[0.9]], confidence=0.8)
    near, far = one_sided(alone, (1, 9)), one_sided(alone, (9, 1))
    assert near.crop == far.crop == alone.crop
    assert 0 < far.confidence < near.confidence < 0.8


@pytest.mark.parametrize(("axis", "other"), [(a, b) for a in range(3) for b in range(3) if a != b])
def test_a_stripe_is_where_two_planes_cross(axis, other):
    volume = np.random.default_rng(1).random((5, 6, 7)) > 0.5
    prompt = Prompt.of_mask(1, other, 3, np.take(volume, 3, axis=other))
    stripe = Stripe.of(prompt, prompt.mask, axis, 2)
    crossed = np.take(volume, 2, axis=axis)
    assert np.array_equal(np.take(crossed, stripe.position, axis=stripe.dimension), stripe.known)


def test_a_stripe_that_agrees_changes_nothing():
    probability = np.zeros((20, 20))
    probability[5:15, 5:15] = 0.8
    estimate = layer(probability)
    assert pull_to_stripe(estimate, Stripe(0, 9, probability[9] > 0.5), (20, 20)) is estimate


def test_a_stripe_corrects_its_line_and_fades_beside_it():
    probability = np.zeros((40, 20))
    probability[:, 5:15] = 0.9
    known = np.zeros(20, bool)
    known[5:18] = True
    mask = pull_to_stripe(layer(probability), Stripe(0, 20, known), (40, 20)).crop.foreground((40, 20))
    assert np.array_equal(mask[20], known)
    assert mask[21, 16]
    assert not mask[30, 16]
    assert np.array_equal(mask[:, :15], probability[:, :15] > 0.5)
