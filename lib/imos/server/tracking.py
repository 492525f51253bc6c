"""Tracking: what came of a round, told to MLflow where MONAI Label was told to track.

Over MLflow's REST interface: its package is 100 MB that nothing else here needs. A server that does not answer costs a
line in the log, never a round.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import requests
from monailabel.config import settings

from imos.registry.records import Record

logger = logging.getLogger(__name__)

_EXPERIMENT = "imos"
_TIMEOUT = 10.0


def track(record: Record) -> None:
    """Tell MLflow about a new version, if it is asked for (`MONAI_LABEL_TRACKING_ENABLED`, `…_TRACKING_URI`)."""
    if not settings.MONAI_LABEL_TRACKING_ENABLED or not settings.MONAI_LABEL_TRACKING_URI:
        return
    try:
        _Client(settings.MONAI_LABEL_TRACKING_URI).add(record)
    except (requests.RequestException, KeyError, ValueError) as error:
        logger.warning("MLflow at %s was not told about %s: %s", settings.MONAI_LABEL_TRACKING_URI, record.name, error)


class _Client:
    def __init__(self, uri: str) -> None:
        self._url = f"{uri.rstrip('/')}/api/2.0/mlflow"

    def add(self, record: Record) -> None:
        moment = int(time.time() * 1000)
        run = self._post(
            "runs/create", {"experiment_id": self._experiment(), "run_name": record.name, "start_time": moment}
        )["run"]["info"]["run_id"]
        figures = record.figures
        metrics = {
            "candidate": figures.candidate,
            "champion": figures.champion,
            "base": figures.base,
            "volumes": float(figures.volumes),
            "promoted": float(record.promoted),
        }
        params = {
            "parent": record.parent,
            "new_labels": str(len(record.new)),
            "replayed_labels": str(len(record.replay)),
            "reason": record.reason,
        }
        self._post(
            "runs/log-batch",
            {
                "run_id": run,
                "metrics": [
                    {"key": name, "value": value, "timestamp": moment, "step": 0}
                    for name, value in metrics.items()
                    if value is not None
                ],
                "params": [{"key": name, "value": value} for name, value in params.items()],
            },
        )
        self._post("runs/update", {"run_id": run, "status": "FINISHED", "end_time": moment})

    def _experiment(self) -> str:
        answer = requests.get(
            f"{self._url}/experiments/get-by-name", params={"experiment_name": _EXPERIMENT}, timeout=_TIMEOUT
        )
        if answer.status_code == requests.codes.not_found:
            return str(self._post("experiments/create", {"name": _EXPERIMENT})["experiment_id"])
        answer.raise_for_status()
        return str(answer.json()["experiment"]["experiment_id"])

    def _post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = requests.post(f"{self._url}/{what}", json=body, timeout=_TIMEOUT)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
