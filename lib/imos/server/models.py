"""The loaded models: the version in use, loaded when it is first needed, and the last few before it.

Whoever asks gets the version that is in use now and keeps it for as long as his run takes; a move of the alias, by
whichever process, counts for those who ask afterwards. A version that cannot be loaded is never waited for: the one
before it is put to use again, and the log says so. Where the server was started with weights or a device that do not
exist, nothing can be loaded; then the sentence says so, and the alias stays where it is.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import imos
from imos.errors import UserError
from imos.registry.records import BASE
from imos.registry.store import Registry
from imos.server.activity import Activity
from imos.server.conf import AppConf

if TYPE_CHECKING:
    from imos.propagation.model import Model

logger = logging.getLogger(__name__)

KEPT = 3
"""Versions in memory: going back takes no loading."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that can be used.

    Attributes:
        version: Its name.
        model: Its networks.
    """

    version: str
    model: Model


class ModelCache:
    """Gives everybody the version in use.

    Args:
        conf: Names weights, adapter and device; requests cannot choose them.
        registry: The versions, and which of them is in use.
    """

    def __init__(self, conf: AppConf, registry: Registry) -> None:
        self._conf = conf
        self._registry = registry
        self._activity = Activity(registry.folder)
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._stamp: object = ()
        self._champion = BASE

    def get(self) -> Model:
        """The model in use, loaded now if it is not yet.

        Raises:
            UserError: The configured weights are missing or do not fit.
        """
        return self.current().model

    def current(self) -> Loaded:
        """The version in use.

        Raises:
            UserError: The configured weights or device are missing or do not fit.
        """
        with self._lock:
            stamp = self._registry.stamp()
            if stamp != self._stamp:
                self._stamp, self._champion = stamp, self._registry.champion
            while self._champion not in self._loaded:
                try:
                    self._loaded[self._champion] = self._load(self._champion)
                except UserError as error:
                    if self._champion == BASE:
                        raise
                    # Where not even the base can be used, it is not the version's fault: nothing is moved.
                    if BASE not in self._loaded:
                        self._loaded[BASE] = self._load(BASE)
                    self._champion = self._registry.give_up(self._champion, str(error))
                    self._stamp = self._registry.stamp()
            self._loaded.move_to_end(self._champion)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return Loaded(self._champion, self._loaded[self._champion])

    def working(self) -> AbstractContextManager[None]:
        """Says, for as long as it is held, that somebody waits: training stands still."""
        return self._activity.working()

    def _load(self, version: str) -> Model:
        adapter = self._registry.adapter(version) or self._conf.adapter
        model = imos.load(self._conf.weights, adapter=adapter, device=self._conf.device)
        model.prepare()
        return model
