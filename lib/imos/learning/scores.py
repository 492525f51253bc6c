"""Scores measured before: a version's J&F on a label never changes, so it is measured once."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from imos.imaging.writing import replacing
from imos.registry.records import LabelRef

logger = logging.getLogger(__name__)


class ScoreBook:
    """Scores on disk, a file a set of weights.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, weights: str) -> dict[LabelRef, float]:
        """What is known of a set of weights.

        Args:
            weights: Digests that name it.
        """
        try:
            said = json.loads(self._path(weights).read_text("utf-8"))
            return {LabelRef(str(image), str(digest)): float(score) for image, digest, score in said}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError):
            logger.warning("%s is damaged; what it held is measured again", self._path(weights))
            return {}

    def write(self, weights: str, scores: dict[LabelRef, float]) -> None:
        """Keep what was measured; a label without a digest cannot be told from a later one, and is left out."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = [[label.image, label.digest, score] for label, score in sorted(scores.items()) if label.digest]
        with replacing(self._path(weights)) as beside:
            beside.write_text(json.dumps(rows), "utf-8")

    def _path(self, weights: str) -> Path:
        return self._folder / f"{hashlib.sha256(weights.encode()).hexdigest()[:32]}.json"
