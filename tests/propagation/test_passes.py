import numpy as np

from imos.propagation.blending import Layer
from imos.propagation.crops import Crop
from imos.propagation.passes import Pass, PassCache, PassKey

LAYER = Layer(Crop.of_mask(np.ones((4, 4), bool)), 1.0, 0.9)


def key(start):
    return PassKey(1, 2, start, 1, "digest")


def test_a_pass_answers_as_far_as_it_was_asked():
    done = Pass(dict.fromkeys(range(11, 16), LAYER), stop=15)
    assert done.reaches(10, 13)
    assert done.reaches(10, 15)
    assert not done.reaches(10, 16)


def test_a_pass_that_ended_answers_all_slices():
    assert Pass(dict.fromkeys(range(9, 6, -1), LAYER), stop=3).reaches(10, 0)


def test_what_was_used_longest_ago_leaves_first():
    one = Pass({11: LAYER}, stop=11)
    cache = PassCache(capacity=2 * one.nbytes)
    for start in (1, 2, 3):
        cache.put(key(start), one)
    cache.get(key(1))
    cache.trim()
    assert cache.get(key(2)) is None
    assert cache.get(key(1)) is one
    assert cache.nbytes == 2 * one.nbytes


def test_what_is_needed_stays_whatever_its_size():
    cache = PassCache(capacity=0)
    cache.put(key(1), Pass({11: LAYER}, stop=11))
    cache.put(key(2), Pass({11: LAYER}, stop=11))
    cache.trim(needed={key(1)})
    assert cache.get(key(1)) is not None
    assert cache.get(key(2)) is None
