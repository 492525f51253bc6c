"""`python main.py finetune` of `xmem`: what iMOS trains is trained; base and file make a network with adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import imos
from imos import cli
from imos.errors import UserError
from imos.network.config import NetworkConfig, is_adapter_entry
from imos.network.weights import WeightsInfo, read_weights, save_weights
from imos.network.xmem import XMem
from imos.training.finetune_xmem import tunes_xmem
from imos.training.tuning import Tune


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as XMem's are published: a plain state dict without adapters; the network is as small as it can be."""
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("base") / "XMem.pth"
    torch.save(XMem(NetworkConfig(key_dim=8, value_dim=16, hidden_dim=4)).state_dict(), path)
    return path


def words(collection: Path, base: Path, output: Path, *more: str) -> list[str]:
    return [
        *("finetune", str(collection), "--split", "train", "--weights", str(base), "-o", str(output)),
        *("--steps", "2", "--batch", "2", "--size", "64", "--frames", "3", "--held-out", "1", "--workers", "1"),
        *("--device", "cpu", *more),
    ]


@pytest.fixture(scope="module")
def adapter(collection: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    assert cli.main(words(collection, base, output)) == 0
    return output


def test_as_many_parameters_are_trained_as_in_imos() -> None:
    with torch.device("meta"):
        network = XMem(NetworkConfig(adapters=True))
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert sum(sizes.values()) == 65_090_827
    assert sum(size for name, size in sizes.items() if tunes_xmem(Tune.DECODER, name)) == 33_852_616
    assert sum(size for name, size in sizes.items() if tunes_xmem(Tune.ADAPTERS, name)) == 2_905_603


def test_each_choice_tunes_more_than_the_one_before() -> None:
    with torch.device("meta"):
        names = [name for name, _ in XMem(NetworkConfig(adapters=True)).named_parameters()]
    tuned = [{name for name in names if tunes_xmem(choice, name)} for choice in Tune]
    assert all(is_adapter_entry(name) for name in tuned[0])
    assert all(fewer & {name for name in names if is_adapter_entry(name)} == tuned[0] for fewer in tuned)
    assert [len(some) for some in tuned] == sorted({len(some) for some in tuned})
    assert tuned[-1] == set(names)


@pytest.mark.slow
class TestAdapterFile:
    def test_makes_the_base_a_network_with_adapters(self, base: Path, adapter: Path) -> None:
        plain, adapted = imos.load(base, device="cpu").xmem, imos.load(base, adapter=adapter, device="cpu").xmem
        assert plain is not None
        assert adapted is not None
        assert not plain.config.adapters
        assert adapted.config.adapters
        with torch.device("meta"):
            trainable = {name for name, _ in XMem(adapted.config).named_parameters()}
        before = plain.state_dict()
        for name, tensor in adapted.state_dict().items():
            if is_adapter_entry(name) or name not in trainable:
                continue
            is_frozen = name.startswith(("key_encoder.", "value_encoder."))
            assert torch.equal(tensor, before[name]) == is_frozen, name

    def test_holds_only_what_was_trained(self, adapter: Path) -> None:
        content = read_weights(adapter)
        assert content.info.configuration == "xmem"
        assert content.info.extra["kind"] == "adapter"
        assert content.info.extra["clips"] == "4"
        assert all(tunes_xmem(Tune.DECODER, name) for name in content.tensors)
        assert list(adapter.parent.iterdir()) == [adapter]  # the run's folder is gone

    def test_fits_only_its_base(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.safetensors"
        save_weights(other, read_weights(base).tensors, WeightsInfo("xmem"))
        with pytest.raises(UserError, match="was made for other weights"):
            imos.load(other, adapter=adapter, device="cpu")

    def test_of_adapters_alone_is_small(self, collection: Path, base: Path, adapter: Path, tmp_path: Path) -> None:
        output = tmp_path / "small.safetensors"
        assert cli.main(words(collection, base, output, "--tune", "adapters")) == 0
        assert all(is_adapter_entry(name) for name in read_weights(output).tensors)
        assert output.stat().st_size < 0.2 * adapter.stat().st_size
        imos.load(base, adapter=output, device="cpu")

    def test_goes_on_from_another_and_keeps_what_that_one_had_tuned(
        self, collection: Path, base: Path, adapter: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "second.safetensors"
        assert cli.main(words(collection, base, output, "--tune", "adapters", "--adapter", str(adapter))) == 0
        first, second = read_weights(adapter).tensors, read_weights(output).tensors
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert is_adapter_entry(name) or torch.equal(second[name], tensor), name
        assert any(not torch.equal(second[name], tensor) for name, tensor in first.items())
        imos.load(base, adapter=output, device="cpu")


def test_options_of_xmem_are_refused_for_other_weights(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "adapter.safetensors"
    assert cli.main(["finetune", str(collection), "-o", str(output), "--split", "train", "--size", "64"]) == 2
    assert "--size is for the configuration 'xmem'" in capsys.readouterr().err
