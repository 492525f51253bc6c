import numpy as np

from imos.propagation.plan import segments_of
from imos.propagation.prompts import Prompt


def prompt(index, absent=False):
    return Prompt.of_mask(1, 2, index, np.full((4, 4), not absent))


def passes(segments):
    return [[(leg.prompt.index, leg.stop) for leg in segment.legs()] for segment in segments]


def test_one_prompt_has_a_pass_to_either_side():
    assert passes(segments_of([prompt(4)], 0, 9)) == [[(4, 0)], [(4, 9)]]


def test_two_passes_see_what_lies_between_two_prompts():
    assert passes(segments_of([prompt(3), prompt(7)], 0, 9)) == [[(3, 0)], [(3, 6), (7, 4)], [(7, 9)]]


def test_neighbouring_prompts_leave_nothing_between():
    assert passes(segments_of([prompt(3), prompt(4)], 3, 4)) == []


def test_a_pass_stops_before_an_absence_and_none_starts_there():
    segments = segments_of([prompt(3), prompt(6, absent=True)], 0, 9)
    assert passes(segments) == [[(3, 0)], [(3, 5)], []]
    assert [segment.is_said_absent for segment in segments] == [False, False, True]
