"""The mean of several trained weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import imos
from imos import cli
from imos.network.weights import read_weights
from imos.propagation.model import BUNDLED, NETWORK_PREFIX


def changed(folder: Path, by: float, *, prefix: str = NETWORK_PREFIX) -> Path:
    content = read_weights(BUNDLED)
    tensors = {name: tensor + by if name.startswith(prefix) else tensor for name, tensor in content.tensors.items()}
    path = folder / f"{prefix}{by}.safetensors"
    save_file(tensors, path, content.info.metadata())
    return path


def test_networks_are_averaged_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mean.safetensors"
    files = [str(changed(tmp_path, by)) for by in (0.0, 0.5, 1.0)]
    assert cli.main(["average", *files, "-o", str(out), "--share", "0.25,0,1,2"]) == 0
    found, before = read_weights(out).tensors, read_weights(BUNDLED).tensors
    assert found.keys() == before.keys()
    for name, tensor in found.items():
        if name.startswith(NETWORK_PREFIX):
            torch.testing.assert_close(tensor, before[name] + 0.5, atol=2e-3, rtol=2e-3)
        elif name != "share":
            assert torch.equal(tensor, before[name])
    assert load_file(out)["network.out.weight"].dtype == torch.float16
    model = imos.load(out, device="cpu")
    assert model.share == pytest.approx((0.25, 0.0, 1.0, 2.0))
    assert "mean of 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (lambda folder: [changed(folder, 0.0)], "is all there is"),
        (lambda folder: [changed(folder, 0.0), changed(folder, 0.1, prefix="encoder.")], "another key encoder"),
        (lambda folder: [changed(folder, 0.0), folder / "none.safetensors"], "no weights file"),
    ],
)
def test_what_cannot_be_averaged_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], files, said) -> None:
    out = tmp_path / "mean.safetensors"
    assert cli.main(["average", *map(str, files(tmp_path)), "-o", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
