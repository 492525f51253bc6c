from imos.propagation.history import History


def test_the_oldest_steps_are_forgotten():
    history = History(0, levels=3)
    for number in range(1, 6):
        history.do(f"step {number}", number)
    assert history.undoable == ("step 5", "step 4", "step 3")
    while history.undo():
        pass
    assert history.present == 2
