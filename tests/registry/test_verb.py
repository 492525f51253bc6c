"""`python main.py weights`, and the MONAI bundle that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from imos import cli
from imos.network.small import SmallNetwork
from imos.network.weights import WeightsInfo, read_weights, save_weights, sha256
from imos.propagation.model import BUNDLED, NETWORK_PREFIX
from imos.registry.records import BASE, Draft
from imos.registry.store import Registry

Write = Callable[..., Path]


def test_list_activate_and_roll_back(registry: Registry, adapter: Write, capsys: pytest.CaptureFixture[str]) -> None:
    registry.publish(adapter(), Draft(BASE, reason="Not promoted: 1 volume is held out, 5 are the least."))
    place = ["--models", str(registry.folder)]
    assert cli.main(["weights", "activate", "v0001", *place, "--reason", "I looked at it"]) == 0
    assert cli.main(["weights", "list", *place]) == 0
    said = capsys.readouterr().out
    assert "v0001 is in use" in said
    assert "I looked at it" in said
    assert cli.main(["weights", "rollback", *place]) == 0
    assert registry.champion == BASE


def test_studies_stand_for_the_versions_in_them(adapter: Write, tmp_path: Path) -> None:
    registry = Registry(tmp_path / ".imos" / "models")
    registry.publish(adapter(), Draft(BASE))
    assert cli.main(["weights", "activate", "v0001", "--studies", str(tmp_path)]) == 0
    assert registry.champion == "v0001"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["activate", "v0009"], "There is no version 'v0009'. There are: base, v0001."),
        (["rollback"], "There is no version to go back to"),
        (["export", "v0001", "x.bin"], "x.bin is no .safetensors file"),
        (["import", "nothing.safetensors"], "There is no adapter file nothing.safetensors"),
    ],
)
def test_mistakes_are_one_line(
    registry: Registry, adapter: Write, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    registry.publish(adapter(), Draft(BASE))
    assert cli.main(["weights", *words, "--models", str(registry.folder)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_bundle_runs_with_monai_itself(registry: Registry, scan: object, tmp_path: Path) -> None:
    network = SmallNetwork(adapters=True)
    shipped = read_weights(BUNDLED).tensors
    tensors = {
        NETWORK_PREFIX + name: shipped.get(NETWORK_PREFIX + name, tensor)
        for name, tensor in network.state_dict().items()
    }
    file = tmp_path / "adapter.safetensors"
    save_weights(file, tensors, WeightsInfo("small", extra={"kind": "adapter", "base_sha256": sha256(BUNDLED)}))
    registry.publish(file, Draft(BASE, reason="Better than base."))
    bundle = tmp_path / "bundle"
    words = ["weights", "export", "v0001", str(bundle), "--bundle", "--models", str(registry.folder)]
    assert cli.main(words) == 0
    assert json.loads((bundle / "configs" / "metadata.json").read_text())["description"].endswith("Better than base.")

    output = tmp_path / "labels.nii.gz"
    said = {"image": str(scan.image), "prompt": str(scan.prompt), "output": str(output), "device": "cpu"}
    config = str(bundle / "configs" / "inference.json")
    code = f"import monai.bundle; monai.bundle.run(config_file={config!r}, bundle_root={str(bundle)!r}, **{said!r})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert output.is_file(), ran.stderr[-2000:]
    assert set(np.unique(np.asarray(nibabel.load(output).dataobj))) == {0, 1, 2}
    assert cli.main(words) == 2  # it is there
