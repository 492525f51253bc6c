from imos.propagation.suggestion import REACH, suggest


def test_nothing_to_gain_suggests_nothing():
    assert suggest({}) is None
    assert suggest({3: 0.0, 4: 0.0}) is None
    assert suggest({3: 1.0}, settled=[3]) is None


def test_the_only_bad_slice_is_suggested():
    assert suggest({index: 50.0 if index == 17 else 0.0 for index in range(40)}) == 17


def test_a_slice_that_repairs_its_neighbours_beats_a_single_worse_one():
    losses = dict.fromkeys(range(60), 0.0)
    losses[5] = 15.0
    losses.update(dict.fromkeys(range(30, 41), 10.0))
    assert suggest(losses) == 35


def test_a_repair_does_not_pass_a_prompt():
    losses = dict.fromkeys(range(21), 1.0)
    losses[9] = 1.5
    # Without the prompt on 10 the middle would gain most; either half now has its own middle, the worse one wins.
    assert suggest(losses, settled=[10]) in range(3, 10)


def test_equal_slices_are_suggested_in_the_middle():
    assert suggest(dict.fromkeys(range(3 * REACH), 1.0)) == 3 * REACH // 2 - 1
