"""The judge is fitted on passes that ran on beyond the object's end."""

from dataclasses import replace

import numpy as np
import pytest

import imos
from imos.cli import main
from imos.errors import UserError
from imos.network.weights import read_weights, save_weights
from imos.propagation.existence import DISTANCE, FEATURES, features
from imos.propagation.model import BUNDLED
from imos.training.judge import PAST_THE_END, Steps, collect, fit
from imos.training.volumes import Stack


def growing_ball(slices=24, size=64):
    """A bright ball with noise that begins and ends inside the volume."""
    random = np.random.default_rng(0)
    z, y, x = np.ogrid[:slices, :size, :size]
    ball = ((z - 12) / 7.0) ** 2 + ((y - 32) / 14.0) ** 2 + ((x - 30) / 14.0) ** 2 <= 1
    picture = 90 + 90 * ball + random.normal(0, 8, ball.shape)
    return Stack.of(picture.clip(0, 255).astype(np.uint8), ball.astype(np.uint8))


@pytest.fixture(scope="module")
def steps() -> Steps:
    return collect(imos.load(device="cpu"), [growing_ball()])


def test_passes_run_on_behind_the_end_of_the_object(steps):
    assert steps.there.any()
    assert not steps.there.all()


def test_a_fitted_judge_tells_the_object_from_what_comes_after(steps):
    judge = fit(steps)
    sure = 1 / (1 + np.exp(-(steps.evidence @ judge.existence)))
    assert sure[steps.there].mean() > sure[~steps.there].mean() + 0.3


def test_passes_begin_at_the_largest_slice_and_at_both_ends(steps):
    assert steps.from_largest.any()
    assert not steps.from_largest.all()
    assert steps.there[~steps.from_largest].any()


def test_passes_run_also_through_slices_on_which_the_object_ends_at_once(steps):
    sizes = [size for stack in [growing_ball()] for size in stack.areas[:, 1] if size]
    seen = steps.there[steps.from_largest]
    assert (~seen).sum() > 2 * PAST_THE_END  # more than both real ends give
    assert seen.sum() > len(sizes) - 1  # slices are walked a second time


def test_the_end_is_learned_from_the_largest_slice_alone_and_quality_from_all(steps):
    whole, largest = fit(steps), steps.from_largest
    spoilt = replace(steps, there=np.where(largest, steps.there, ~steps.there))
    np.testing.assert_array_equal(fit(spoilt).existence, whole.existence)
    quality = np.where(largest, steps.quality, 0.0)
    assert (fit(replace(steps, quality=quality)).quality != whole.quality).any()


def test_the_floors_judge_looks_at_no_distance_and_learns_quality_from_the_largest_slice_alone(steps):
    judge = fit(steps, for_floor=True)
    assert not judge.quality[[DISTANCE, DISTANCE + FEATURES // 2]].any()
    assert judge.existence[DISTANCE]
    others = replace(steps, quality=np.where(steps.from_largest, steps.quality, 0.0))
    np.testing.assert_array_equal(fit(others, for_floor=True).quality, judge.quality)


def test_evidence_has_as_many_numbers_as_the_judge_has_weights(steps):
    from imos.propagation.existence import Evidence

    assert features(Evidence(*[0.0] * 11)).shape == steps.evidence.shape[1:]


def test_the_verb_writes_weights_that_load(collection, tmp_path, capsys):
    out = tmp_path / "judged.safetensors"
    assert main(["judge", str(collection), str(out)]) == 0
    model = imos.load(out, device="cpu")
    assert model.judge is not None
    assert "correlate" in capsys.readouterr().out


def test_judges_of_another_version_are_told_and_can_be_fitted_again(collection, tmp_path):
    older, out = tmp_path / "older.safetensors", tmp_path / "judged.safetensors"
    content = read_weights(BUNDLED)
    shorter = {name: value[:-2] if "judge." in name else value for name, value in content.tensors.items()}
    save_weights(older, shorter, content.info)
    with pytest.raises(UserError, match="of another version"):
        imos.load(older, device="cpu")
    assert main(["judge", str(collection), str(out), "--weights", str(older)]) == 0
    model = imos.load(out, device="cpu")
    assert model.judge is not None
    assert model.floor_judge is None


def test_the_floor_has_a_judge_of_its_own(collection, tmp_path):
    out = tmp_path / "judged.safetensors"
    assert main(["judge", str(collection), str(out), "--floor"]) == 0
    fitted, shipped = imos.load(out, device="cpu"), imos.load(device="cpu")
    assert (fitted.floor_judge.existence != shipped.floor_judge.existence).any()
    assert (fitted.judge.existence == shipped.judge.existence).all()
    assert out.stat().st_size == BUNDLED.stat().st_size  # nothing else has changed its type
