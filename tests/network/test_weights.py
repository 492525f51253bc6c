"""Weights files: what loads, what is refused and how, and that nothing is written halfway."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from imos.errors import UserError
from imos.network.weights import (
    Weights,
    WeightsInfo,
    load_xmem,
    read_weights,
    save_weights,
    sha256,
    xmem_from_weights,
)

Shapes = dict[str, list[int]]
INFO = WeightsInfo("xmem", version="1", data="none, a rule", licence="CC0-1.0", extra={"normalisation": "imagenet"})


def light(shapes: Shapes) -> dict[str, Tensor]:
    """A state dict whose file is small: one number per entry, expanded."""
    number, count = torch.tensor(0.25), torch.tensor(0)
    return {
        name: (count if name.endswith("num_batches_tracked") else number).expand(shape)
        for name, shape in shapes.items()
    }


def given(tensors: dict[str, Tensor], info: WeightsInfo = INFO) -> Weights:
    return Weights(Path("some.safetensors"), tensors, info)


def test_what_is_saved_comes_back(tmp_path: Path, xmem_weights: dict[str, Tensor]) -> None:
    path = tmp_path / "own.safetensors"
    save_weights(path, xmem_weights, INFO)
    network, info = load_xmem(path)
    assert info == INFO
    assert not network.training
    loaded = network.state_dict()
    assert list(loaded) == list(xmem_weights)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in xmem_weights.items())
    assert os.listdir(tmp_path) == ["own.safetensors"]


@pytest.mark.parametrize(("keys", "adapters"), [("xmem_keys", False), ("imos_keys", True)])
def test_official_files_load(request: pytest.FixtureRequest, tmp_path: Path, keys: str, adapters: bool) -> None:
    torch.save(light(request.getfixturevalue(keys)), tmp_path / "official.pth")
    network, info = load_xmem(tmp_path / "official.pth")
    assert network.config.adapters is adapters
    assert (network.config.key_dim, network.config.value_dim, network.config.hidden_dim) == (64, 512, 64)
    assert info.configuration == "xmem"
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_training_checkpoint_is_unwrapped(tmp_path: Path, xmem_keys: Shapes) -> None:
    weights = light(xmem_keys)
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter])
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [80_000])
    checkpoint = {
        "it": 100_000,
        "network": weights,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save(checkpoint, tmp_path / "run_checkpoint_100000.pth")
    assert read_weights(tmp_path / "run_checkpoint_100000.pth").tensors.keys() == weights.keys()


def test_single_object_weights_get_an_empty_channel(single_weights: dict[str, Tensor]) -> None:
    network = xmem_from_weights(given(single_weights))
    weight = network.value_encoder.conv1.weight
    assert torch.equal(weight[:, :4], single_weights["value_encoder.conv1.weight"])
    assert weight.shape == (64, 5, 7, 7)
    assert not weight[:, 4].any()


def test_weights_without_sensory_memory_load(xmem_keys: Shapes) -> None:
    shapes = {name: shape for name, shape in xmem_keys.items() if ".hidden_" not in name}
    for entry in ("downsample", "conv1"):
        shapes[f"decoder.fuser.block1.{entry}.weight"] = [512, 1024 + 512, 3, 3]
    assert xmem_from_weights(given(light(shapes))).config.hidden_dim == 0


def test_half_precision_weights_become_float32(tmp_path: Path, xmem_keys: Shapes) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in light(xmem_keys).items()}
    torch.save(half, tmp_path / "half.pth")
    tensors = read_weights(tmp_path / "half.pth").tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}


def test_safetensors_without_metadata_are_known_by_their_entries(tmp_path: Path) -> None:
    save_file({"key_proj.key_proj.weight": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert read_weights(tmp_path / "foreign.safetensors").info == WeightsInfo("xmem")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no weights file"):
        load_xmem(tmp_path / "absent.pth")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no weights file"):
        load_xmem(tmp_path)


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="not a weights file"):
        load_xmem(tmp_path / "weights.zip")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x02}q\x00.", b"\x00" * 4096])
def test_damaged_file_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="broken"):
        load_xmem(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"cut{suffix}"
    tensors = {"key_proj.key_proj.weight": torch.zeros(64, 1024)}
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="cut"):
        load_xmem(path)


class Intruder:
    """Would run a command if unpickled without care."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"network": Intruder(trace)}, tmp_path / "evil.pth")
    (tmp_path / "evil_plain.pth").write_bytes(pickle.dumps(Intruder(trace)))
    for name in ("evil.pth", "evil_plain.pth"):
        with pytest.raises(UserError, match="evil"):
            load_xmem(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.zeros(1)}, torch.zeros(3), {}])
def test_file_without_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth holds no"):
        load_xmem(tmp_path / "other.pth")


def test_weights_of_another_configuration_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "small.safetensors", {"head.weight": torch.zeros(3)}, WeightsInfo("small"))
    with pytest.raises(UserError, match=r"small\.safetensors holds weights of configuration 'small', not 'xmem'"):
        load_xmem(tmp_path / "small.safetensors")


def test_weights_of_an_unknown_network_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet\.pth holds weights of configuration 'unknown'"):
        load_xmem(tmp_path / "resnet.pth")


def test_missing_entries_are_named(xmem_keys: Shapes) -> None:
    tensors = light(xmem_keys)
    del tensors["decoder.pred.bias"]
    with pytest.raises(UserError, match=r"1 entry is missing \(decoder\.pred\.bias\)"):
        xmem_from_weights(given(tensors))


def test_one_missing_adapter_entry_is_named(imos_keys: Shapes) -> None:
    tensors = light(imos_keys)
    del tensors["key_encoder.layer2.1.adapter.gate"]
    with pytest.raises(UserError, match=r"missing \(key_encoder\.layer2\.1\.adapter\.gate\)"):
        xmem_from_weights(given(tensors))


def test_entry_that_decides_a_dimension_is_named(xmem_keys: Shapes) -> None:
    tensors = light(xmem_keys)
    del tensors["value_encoder.fuser.block2.conv2.weight"]
    with pytest.raises(UserError, match=r"value_encoder\.fuser\.block2\.conv2\.weight"):
        xmem_from_weights(given(tensors))


def test_unknown_entries_are_named(xmem_keys: Shapes) -> None:
    tensors = light(xmem_keys) | {f"extra.{number}": torch.zeros(1) for number in range(5)}
    with pytest.raises(UserError, match=r"5 entries are not known \(extra\.0, extra\.1, extra\.2, …\)"):
        xmem_from_weights(given(tensors))


def test_wrong_shapes_are_named(xmem_keys: Shapes) -> None:
    tensors = light(xmem_keys) | {"decoder.pred.weight": torch.zeros(2, 256, 3, 3)}
    with pytest.raises(UserError, match=r"decoder\.pred\.weight \(2, 256, 3, 3\) instead of \(1, 256, 3, 3\)"):
        xmem_from_weights(given(tensors))


def test_messages_are_one_line(xmem_keys: Shapes) -> None:
    tensors = light(xmem_keys) | {"extra": torch.zeros(1)}
    del tensors["decoder.pred.bias"]
    with pytest.raises(UserError) as raised:
        xmem_from_weights(given(tensors))
    assert "\n" not in str(raised.value)


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.safetensors"
    save_weights(path, {"a": torch.zeros(1)}, INFO)
    before = sha256(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        save_weights(path, {"a": torch.ones(1)}, INFO)
    assert os.listdir(tmp_path) == ["own.safetensors"]
    assert sha256(path) == before


def test_others_may_read_what_is_written_as_far_as_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    save_weights(tmp_path / "own.safetensors", {"a": torch.zeros(1)}, INFO)
    assert (tmp_path / "own.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot write"):
        save_weights(tmp_path / "absent" / "own.safetensors", {"a": torch.zeros(1)}, INFO)


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "failed.safetensors"
    save_file({"a": torch.ones(4), "b": torch.tensor([1.0, bad])}, path)
    with pytest.raises(UserError, match=r"failed\.safetensors holds weights that are no numbers"):
        read_weights(path)
