"""What whoever starts the server sets: `--conf name value` and the settings of MONAI Label itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from monailabel.config import settings


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


def greet() -> None:
    """Say that the server is ready, and where. Printed, because the log is often silenced or sent elsewhere."""
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
    origins: tuple[str, ...] = ()
    models: str | None = None
    auto_train: int = 5
    train_steps: int | None = None

    @classmethod
    def parse(cls, conf: Mapping[str, str]) -> Self:
        """Read MONAI Label's dictionary of strings, e.g. `{"labels": "liver,spleen"}`."""
        # "background" is no object: both viewers treat that name apart, and Slicer would shift all others by one.
        names = [name for one in conf.get("labels", "").split(",") if (name := one.strip()).lower() != "background"]
        return cls(
            labels={name: value for value, name in enumerate(filter(None, names), start=1)},
            weights=conf.get("weights") or None,
            adapter=conf.get("adapter") or None,
            device=conf.get("device") or "auto",
            upload_mb=int(conf.get("upload_mb") or 2048),
            origins=tuple(origin.strip() for origin in conf.get("origins", "").split(",") if origin.strip()),
            models=conf.get("models") or None,
            auto_train=int(conf.get("auto_train") or 5),
            train_steps=int(conf["train_steps"]) if conf.get("train_steps") else None,
        )
