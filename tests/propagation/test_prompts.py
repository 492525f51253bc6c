import numpy as np
import pytest

from imos.errors import UserError
from imos.propagation.prompts import (
    LARGEST_LABEL,
    Prompt,
    as_labels,
    check_label,
    check_label_map,
    label_values,
)


def square():
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:6] = True
    return mask


def test_a_prompt_keeps_its_mask():
    prompt = Prompt.of_mask(3, 2, 7, square())
    assert np.array_equal(prompt.mask, square())
    assert prompt.starts_passes


def test_an_empty_prompt_says_absent_and_starts_no_pass():
    prompt = Prompt.of_mask(3, 2, 7, np.zeros((6, 8), bool))
    assert prompt.is_empty
    assert not prompt.starts_passes


def test_the_digest_tells_masks_and_slices_apart():
    moved = np.roll(square(), 1, axis=1)
    prompts = [Prompt.of_mask(3, 2, 7, square()), Prompt.of_mask(3, 2, 7, moved), Prompt.of_mask(3, 2, 8, square())]
    assert len({prompt.digest for prompt in prompts}) == 3
    assert prompts[0].digest == Prompt.of_mask(3, 2, 7, square()).digest


def test_accepting_keeps_a_painted_slice_painted():
    accepted = Prompt.of_mask(3, 2, 7, square()).accept(square())
    assert accepted.accepted
    assert accepted.painted


@pytest.mark.parametrize("label", [1, 255, 256, LARGEST_LABEL, np.uint16(9)])
def test_labels_up_to_sixteen_bits_are_taken(label):
    assert check_label(label) == label


@pytest.mark.parametrize("label", [0, -1, LARGEST_LABEL + 1, 2.0, "liver", None, True])
def test_other_labels_are_refused(label):
    with pytest.raises(UserError):
        check_label(label)


def test_the_background_is_named_when_it_is_given_as_a_label():
    with pytest.raises(UserError, match="0 is the background"):
        check_label(0)


def test_several_labels_are_sorted_and_told_once():
    assert as_labels([3, 1, 3]) == [1, 3]
    assert as_labels(5) == [5]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int64, np.float32])
def test_values_are_found_in_every_type(kind):
    array = np.array([[0, 7], [3, 7]], kind)
    assert label_values(check_label_map(array, (2, 2), "slice 0")) == [3, 7]


def test_a_message_about_shapes_names_both():
    with pytest.raises(UserError, match="shape 3 × 2, but slice 4 has 5 × 5"):
        check_label_map(np.ones((3, 2), int), (5, 5), "slice 4")
