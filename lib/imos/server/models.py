"""The loaded model: one per server process, loaded when it is first needed and kept."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import imos
from imos.server.conf import AppConf

if TYPE_CHECKING:
    from imos.propagation.model import Model


class ModelCache:
    """Loads the configured weights once, whoever asks first.

    Args:
        conf: Names weights, adapter and device; requests cannot choose them.
    """

    def __init__(self, conf: AppConf) -> None:
        self._conf = conf
        self._lock = threading.Lock()
        self._model: Model | None = None

    def get(self) -> Model:
        """The model, loaded now if it is not yet.

        Raises:
            UserError: The configured weights are missing or do not fit.
        """
        with self._lock:
            if self._model is None:
                self._model = imos.load(self._conf.weights, adapter=self._conf.adapter, device=self._conf.device)
            return self._model
