"""`python main.py finetune`: adapters on a few volumes, as a small file that fits its base and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import imos
from imos import cli
from imos.errors import UserError
from imos.network.small import Decoded, SmallNetwork, has_adapters, is_adapter
from imos.network.weights import WeightsInfo, read_weights, save_weights
from imos.propagation import likeness, taught
from imos.propagation.kinds import PREFIX, Kind
from imos.propagation.model import BUNDLED, JUDGE_PREFIX, NETWORK_PREFIX
from imos.training import taken
from imos.training.finetune import Tune, known_courses, steps_for, synthetic_courses, tunes
from imos.training.known import kinds_of
from imos.training.packing import Source, training_stacks, write_pack
from imos.training.passes import quality_of, walks
from imos.training.volumes import Stack, volumes_of


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shipped weights with a new network whose last convolution does something."""
    torch.manual_seed(2)
    network = SmallNetwork()
    torch.nn.init.normal_(network.out.weight, 0, 0.01)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    tensors = {
        name: tensor for name, tensor in read_weights(BUNDLED).tensors.items() if not name.startswith(NETWORK_PREFIX)
    }
    tensors |= {NETWORK_PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    save_weights(path, tensors, WeightsInfo("small", "0", "none", "none", {}))
    return path


@pytest.fixture(autouse=True)
def two_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken is chosen by two objects here: tests/training/test_taken.py looks at the choice."""
    monkeypatch.setattr(taken, "MOST_OBJECTS", 2)


def words(collection: Path, base: Path, output: Path, *more: str) -> list[str]:
    sizes = ["--steps", "2", "--batch", "2", "--device", "cpu"]
    return [
        *("finetune", str(collection), "--split", "train", "--weights", str(base), "-o", str(output)),
        *sizes,
        *more,
    ]


@pytest.mark.slow
def test_only_what_was_tuned_is_in_the_file_and_it_loads(collection: Path, base: Path, tmp_path: Path) -> None:
    output = tmp_path / "adapter.safetensors"
    assert cli.main(words(collection, base, output, "--tune", "adapters")) == 0
    content = read_weights(output)
    assert content.info.extra["kind"] == "adapter"
    names = [
        name for name in content.tensors if not name.startswith((PREFIX, likeness.PREFIX, taught.PREFIX, JUDGE_PREFIX))
    ]
    assert names
    assert all(is_adapter(name.removeprefix(NETWORK_PREFIX)) for name in names)
    plain, adapted = imos.load(base, device="cpu"), imos.load(base, adapter=output, device="cpu")
    assert plain.network is not None
    assert adapted.network is not None
    assert not has_adapters(plain.network.state_dict())
    assert has_adapters(adapted.network.state_dict())
    assert adapted.share == plain.share
    assert not plain.kinds
    objects = sum(views[0].objects().size for views in training_stacks(Source(collection, "train")))
    assert 0 < len(adapted.kinds) <= objects
    assert adapted.seen is not None
    assert adapted.taught is not None
    assert 0 < sum(map(len, adapted.taught.weights.values())) <= objects
    assert adapted.plain is not None
    assert adapted.plain.network is not None
    assert not has_adapters(adapted.plain.network.state_dict()), "what it is not used for is carried by the base"
    assert plain.judge is not None
    assert adapted.judge is not None
    assert adapted.plain.judge is not None
    np.testing.assert_array_equal(adapted.plain.judge.quality, plain.judge.quality)
    np.testing.assert_allclose(adapted.judge.quality[:-1], plain.judge.quality[:-1], rtol=1e-6)
    assert adapted.judge.quality[-1] >= plain.judge.quality[-1] - 1e-6, "never lowered"
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(adapted.network.state_dict()[name], tensor)
    assert list(tmp_path.iterdir()) == [output]  # the run's folder is gone


@pytest.mark.slow
def test_an_adapter_goes_on_from_another_and_keeps_what_that_one_had_tuned(
    collection: Path, base: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert cli.main(words(collection, base, first, "--tune", "decoder")) == 0
    assert cli.main(words(collection, base, second, "--tune", "adapters", "--adapter", str(first))) == 0
    one, other = read_weights(first).tensors, read_weights(second).tensors
    assert one.keys() == other.keys()
    imos.load(base, adapter=second, device="cpu")


@pytest.mark.slow
def test_an_adapter_fits_only_its_base(collection: Path, base: Path, tmp_path: Path) -> None:
    output = tmp_path / "adapter.safetensors"
    assert cli.main(words(collection, base, output)) == 0
    other = tmp_path / "other.safetensors"
    content = read_weights(base)
    save_weights(other, content.tensors, WeightsInfo("small", "1", "none", "none", {}))
    imos.load(base, adapter=output, device="cpu")
    with pytest.raises(UserError, match="was made for other weights"):
        imos.load(other, adapter=output, device="cpu")


def test_what_each_choice_tunes() -> None:
    names = [name for name, _ in SmallNetwork(adapters=True).named_parameters()]
    counts = [sum(tunes(choice, name) for name in names) for choice in Tune]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)
    for choice in Tune:
        assert all(tunes(choice, name) for name in names if is_adapter(name))
    assert tunes(Tune.DECODER, "skip4.weight")
    for name in ("heads.0.weight", "in16.weight"):
        assert not tunes(Tune.DECODER, name), "the judge was fitted to the heads"
    for name in ("value_encoder.merge.weight", "key.weight"):
        assert not tunes(Tune.ALL, name), "what the memory holds stays"


def test_batch_norms_of_adapters_stay_as_they_are_in_training() -> None:
    network = SmallNetwork(adapters=True).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items() if "running" in name}
    assert before
    assert any(module.training for module in network.modules())
    decoded(network)
    for name, tensor in before.items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_without_gates_adapters_change_nothing() -> None:
    torch.manual_seed(0)
    plain, adapted = SmallNetwork(), SmallNetwork(adapters=True)
    adapted.load_state_dict(plain.state_dict(), strict=False)
    for name, parameter in adapted.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.zeros_(parameter)
    torch.nn.init.normal_(plain.out.weight)
    adapted.out.load_state_dict(plain.out.state_dict())
    for one, other in zip(decoded(plain), decoded(adapted), strict=True):
        torch.testing.assert_close(one, other)


def decoded(network: SmallNetwork) -> Decoded:
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 24, 8, 8), (2, 40, 4, 4), (2, 112, 2, 2), (2, 64, 2, 2), (2, 32, 2, 2), (2, 7, 32, 32)]
    f4, f8, f16, *others = (torch.randn(shape, generator=generator) for shape in shapes)
    return network.decode(network.normalise(f4, f8, f16), *others)


@pytest.mark.slow
def test_passes_through_what_was_learned_get_better(collection: Path, tmp_path: Path) -> None:
    """The outline of the miniature's balls is moved: the shipped network draws where the picture has its edge."""
    stacks = [views[0] for views in training_stacks(Source(collection, "train", ("phantom_mr",)))]
    wider = [Stack.of(one.slices, np.stack([cv2.dilate(p, np.ones((5, 5))) for p in one.labels])) for one in stacks]
    pack, output = tmp_path / "pack.npz", tmp_path / "adapter.safetensors"
    write_pack(wider, pack, quickly=True)
    assert cli.main(["finetune", str(pack), "-o", str(output), "--steps", "80", "--device", "cpu"]) == 0
    objects = walks(wider, 3)
    before, after = (
        np.mean([quality_of(model, walk) for walk in objects])
        for model in (imos.load(device="cpu"), imos.load(adapter=output, device="cpu"))
    )
    assert after > before + 0.02


@pytest.mark.parametrize("courses", [1, 2, 5])
def test_the_asked_share_of_passes_goes_through_synthetic_volumes(courses: int) -> None:
    """With one labelled volume too: a quarter of one is less than a volume."""
    made = synthetic_courses(courses, 0.25)
    assert len(made) == max(1, round(courses / 3))
    added = sum(course.weight for course in made)
    assert added / (added + courses) == pytest.approx(0.25)
    assert all(course.stack.objects().size for course in made)


def test_none_is_made_where_none_is_asked_for() -> None:
    assert synthetic_courses(3, 0) == []


def test_two_stacks_of_one_volume_are_one_volume_and_teach_each_other_no_kinds(ball: Callable[..., Stack]) -> None:
    """A CT with lung and vessel is walked in two windows; it is no evidence on other patients."""
    base = imos.load(device="cpu")

    def kinds(stacks: list[Stack]) -> list[list[Kind]]:
        return [kinds_of(base.steps, stack) for stack in stacks]

    lung, vessel = (replace(ball(seed), volume=0) for seed in (1, 2))
    assert volumes_of([lung, vessel]) == 1
    courses, new = known_courses(base, [lung, vessel], kinds([lung, vessel]))
    assert [course.kinds for course in courses] == [(), ()]
    assert len(new) == 2
    stacks = [lung, replace(vessel, volume=1), ball(3)]
    courses, _ = known_courses(base, stacks, kinds(stacks))
    assert [len(course.kinds) for course in courses] == [2, 2, 2]
    assert volumes_of([course.stack for course in courses]) == 3


def test_steps_grow_with_the_volumes() -> None:
    assert [steps_for(count) for count in (1, 2, 3, 5, 12, 20)] == [240, 300, 450, 750, 1200, 1200]


def test_a_held_out_class_is_background(labelled: Path) -> None:
    everything = training_stacks(Source(labelled, "train", ("phantom_mr",)))
    without = training_stacks(Source(labelled, "train", ("phantom_mr",), ("rod",)))
    for all_views, views in zip(everything, without, strict=True):
        assert set(all_views[0].objects()) == {1, 2}
        assert set(views[0].objects()) == {1}


@pytest.fixture
def labelled(collection: Path, tmp_path: Path) -> Path:
    """The miniature with names for its labels."""
    import shutil

    folder = shutil.copytree(collection, tmp_path / "labelled")
    lines = (folder / "volumes.tsv").read_text().splitlines()
    named = [lines[0] + "\tlabels", *(line + '\t{"1": "ball", "2": "rod"}' for line in lines[1:])]
    (folder / "volumes.tsv").write_text("\n".join(named) + "\n")
    return folder


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--hold-out-class", "liver"), "no label 'liver'"),
        (("--sets", "acdc"), "no set 'acdc'"),
        (("-o", "adapter.pth"), "no .safetensors file"),
        (("--tune", "everything"), "everything"),
        (("--held-out", "2"), "--held-out is for the configuration 'xmem'"),
        (("--bfloat16",), "--bfloat16 is for the configuration 'xmem'"),
    ],
)
def test_refused_in_one_line(
    labelled: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], expected: str
) -> None:
    assert cli.main(words(labelled, base, tmp_path / "adapter.safetensors", *more)) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.count("\n") == 1


def test_weights_without_a_network_are_refused(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {
        name: tensor for name, tensor in read_weights(BUNDLED).tensors.items() if not name.startswith(NETWORK_PREFIX)
    }
    floor = tmp_path / "floor.safetensors"
    save_weights(floor, tensors, WeightsInfo("small", "0", "none", "none", {}))
    assert cli.main(words(collection, floor, tmp_path / "adapter.safetensors")) == 2
    assert "holds no network" in capsys.readouterr().err
