"""A version as a MONAI bundle: weights, adapter and the description by which MONAI's own tools run it.

`python -m monai.bundle run --bundle_root B --config_file B/configs/inference.json --image ct.nii.gz --prompt p.nii.gz`
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from imos.errors import UserError
from imos.imaging.writing import replacing
from imos.registry.adapter_files import digest
from imos.registry.records import Record

_LICENCE = Path(__file__).parents[3] / "LICENSE"


def write_bundle(folder: Path, weights: Path, adapter: Path, record: Record) -> None:
    """Write a bundle; the folder appears complete or not at all.

    Args:
        folder: Where to; must not exist.
        weights: The base's weights file.
        adapter: The version's file.
        record: What is known about the version.

    Raises:
        UserError: The folder exists, the weights are not those that the version belongs to, or it cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already. Name a new folder for the bundle.")
    if not weights.is_file() or digest(weights) != record.base_sha256:
        raise UserError(f"{record.name} belongs to other weights than {weights.name}. Give those with --weights.")
    with replacing(folder) as beside:
        for name in ("configs", "models", "docs"):
            (beside / name).mkdir(parents=True)
        shutil.copyfile(weights, beside / "models" / "weights.safetensors")
        shutil.copyfile(adapter, beside / "models" / "adapter.safetensors")
        for name, content in (("metadata", _metadata(record)), ("inference", _INFERENCE)):
            (beside / "configs" / f"{name}.json").write_text(json.dumps(content, indent=2), "utf-8")
        (beside / "docs" / "README.md").write_text(_readme(record), "utf-8")
        if _LICENCE.is_file():
            shutil.copyfile(_LICENCE, beside / "LICENSE")


_INFERENCE: dict[str, Any] = {
    "imports": ["$from imos.cli import main"],
    "bundle_root": ".",
    "image": "",
    "prompt": "",
    "output": "labels.nii.gz",
    "device": "auto",
    "weights": "$@bundle_root + '/models/weights.safetensors'",
    "adapter": "$@bundle_root + '/models/adapter.safetensors'",
    "words": [
        "propagate", "@image", "@prompt", "-o", "@output", "--weights", "@weights", "--adapter", "@adapter",
        "--device", "@device",
    ],
    "run": ["$main(@words)"],
}  # fmt: skip


def _metadata(record: Record) -> dict[str, Any]:
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": f"0.0.{int(record.name[1:])}",
        "changelog": {f"0.0.{int(record.name[1:])}": record.reason},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"imos": version("imos")},
        "name": f"iMOS {record.name}",
        "task": "Propagation of painted slices through a volume or video",
        "description": f"Adapter {record.name}, from {record.parent}, of {record.time}. {record.reason}",
        "authors": "iMOS",
        "copyright": "Apache-2.0",
        "data_source": f"{len(record.new) + len(record.replay)} labels accepted in one annotation project",
        "image_classes": "single channel or RGB volume, series or video",
        "label_classes": "label map; 0 is background",
        "network_data_format": {
            "inputs": {
                name: {
                    "type": "image",
                    "format": kind,
                    "num_channels": 1,
                    "spatial_shape": ["*", "*", "*"],
                    "dtype": "float32" if name == "image" else "uint16",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {"0": name},
                }
                for name, kind in (("image", "magnitude"), ("prompt", "segmentation"))
            },
            "outputs": {
                "labels": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": 1,
                    "spatial_shape": ["*", "*", "*"],
                    "dtype": "uint16",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {"0": "label"},
                }
            },
        },
    }


def _readme(record: Record) -> str:
    return (
        f"# iMOS {record.name}\n\nCarries painted slices through a volume or video. Needs the package `imos`.\n\n"
        "    python -m monai.bundle run --bundle_root . --config_file configs/inference.json"
        " --image ct.nii.gz --prompt painted.nii.gz --output labels.nii.gz\n\n"
        f"{record.reason}\n"
    )
