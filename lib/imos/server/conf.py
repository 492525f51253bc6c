"""What whoever starts the server sets: `--conf name value` and the settings of MONAI Label itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from monailabel.config import settings

from imos.errors import UserError

DEVICES = ("auto", "cpu", "cuda")

_OTHERS = frozenset({"server_mode", "auth_token", "preload"})
"""What MONAI Label itself reads of `--conf`."""

_LEAST = {"upload_mb": 1, "unpacked_mb": 1, "auto_train": 0, "train_steps": 1}
"""Settings that are whole numbers, and the smallest that each may be."""


def apply_defaults() -> None:
    """Set what MONAI Label's own defaults would not do, here and, through the environment, in processes that train."""
    # Tracking is on by default and imports mlflow, which nothing here uses; who names a server to track with has it.
    if not settings.MONAI_LABEL_TRACKING_URI:
        settings.MONAI_LABEL_TRACKING_ENABLED = False
        os.environ["MONAI_LABEL_TRACKING_ENABLED"] = "false"
    # On, every start and every request for the next image would start processes that score all labels. What was set is
    # not to be seen in the environment: MONAI Label has put all its settings there.
    if "MONAI_LABEL_AUTO_UPDATE_SCORING" not in settings.model_fields_set:
        settings.MONAI_LABEL_AUTO_UPDATE_SCORING = False
        os.environ["MONAI_LABEL_AUTO_UPDATE_SCORING"] = "false"


def is_task_process() -> bool:
    """Whether this is a process that MONAI Label started for a long task, beside the server."""
    return sys.argv[0].endswith(os.path.join("interfaces", "utils", "app.py"))


def greet(studies: str, images: int) -> None:
    """Say that the server is ready, and where. Printed, because the log is often silenced or sent elsewhere.

    Args:
        studies: Folder or archive.
        images: How many it holds; MONAI Label makes a folder that is not there, so none may be a typing error.
    """
    if not images and not studies.startswith(("http://", "https://")):
        print(f"There is no image in {os.path.abspath(studies)} yet.", flush=True)
    scheme = "https" if any(argument.startswith("--ssl_certfile") for argument in sys.argv) else "http"
    print(f"iMOS is ready: {scheme}://127.0.0.1:{settings.MONAI_LABEL_SERVER_PORT}/info/", flush=True)


@dataclass(frozen=True, slots=True)
class AppConf:
    """What `--conf` said.

    Attributes:
        labels: Object name to label value, 1…N in the order given. Only names: other values are accepted as well.
        weights: Weights file; None takes those that are shipped.
        adapter: Adapter file put on top of the weights, or None.
        device: `auto`, `cpu` or `cuda`.
        upload_mb: Size of a request at most, in 2²⁰ bytes.
        unpacked_mb: Size of an uploaded image or label at most when it is unpacked, in 2²⁰ bytes.
        origins: Web pages of other servers that may use this one, such as `https://viewer.hospital.org`. MONAI Label's
            own setting for it, MONAI_LABEL_CORS_ORIGINS, counts too, but keeps 0.8.5 from starting.
        models: Folder of the project's versions; None keeps them with the images. Projects on the same images that
            shall not learn from each other have a folder each.
        auto_train: Labels accepted since the last round after which the next one begins by itself; 0 for never.
        train_steps: Optimiser steps of a round; None for the recipe's own.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    weights: str | None = None
    adapter: str | None = None
    device: str = "auto"
    upload_mb: int = 2048
    unpacked_mb: int = 4096
    origins: tuple[str, ...] = ()
    models: str | None = None
    auto_train: int = 5
    train_steps: int | None = None

    @classmethod
    def parse(cls, conf: Mapping[str, str]) -> Self:
        """Read MONAI Label's dictionary of strings, e.g. `{"labels": "liver,spleen"}`.

        Raises:
            UserError: There is no such setting, or its value cannot be.
        """
        known = {one.name for one in fields(cls)}
        for name in conf.keys() - known - _OTHERS:
            near = get_close_matches(name, sorted(known), 1)
            meant = f"Do you mean {near[0]}?" if near else f"Choose among {', '.join(sorted(known))}."
            raise UserError(f"There is no setting --conf {name}. {meant}")
        device = conf.get("device") or "auto"
        if device not in DEVICES:
            raise UserError(f"There is no device '{device}' for --conf device. Choose {', '.join(DEVICES)}.")
        numbers = {name: _number(name, conf[name], least) for name, least in _LEAST.items() if conf.get(name)}
        # "background" is no object: both viewers treat that name apart, and Slicer would shift all others by one.
        names = [name for one in conf.get("labels", "").split(",") if (name := one.strip()).lower() != "background"]
        return cls(
            labels={name: value for value, name in enumerate(filter(None, names), start=1)},
            weights=conf.get("weights") or None,
            adapter=conf.get("adapter") or None,
            device=device,
            origins=tuple(origin.strip() for origin in conf.get("origins", "").split(",") if origin.strip()),
            models=conf.get("models") or None,
            **numbers,
        )

    def check_files(self) -> None:
        """At the start; later a file that is gone stops what needs it, not what is read from here.

        Raises:
            UserError: A file that is named is not there.
        """
        for name, path in (("weights", self.weights), ("adapter", self.adapter)):
            if path is not None and not Path(path).is_file():
                raise UserError(f"There is no weights file {path} for --conf {name}. Check the path.")


def _number(name: str, said: str, least: int) -> int:
    if not said.strip().isdecimal() or int(said) < least:
        raise UserError(f"--conf {name} is a whole number from {least}, not '{said}'.")
    return int(said)
