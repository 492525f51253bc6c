"""Found segmentations: DICOM SEG that lie beside a series, whoever made them; the newest is the label of the series.

A server's own labels are older or newer than they are: what is newer counts, and nothing is lost, because a label that
is replaced is kept aside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from imos.errors import UserError
from imos.imaging import Image, write_label_map
from imos.server.segmentations import read_segmentation
from imos.server.temporary import temporary_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A DICOM SEG.

    Attributes:
        path: The file.
        series: UID of its series.
        instance: Its own UID.
        of: UIDs of the series that it refers to.
        made: When, in seconds since 1970; 0 where it does not say.
        title: What its series is called.
    """

    path: Path
    series: str
    instance: str
    of: frozenset[str]
    made: float
    title: str

    @classmethod
    def of_header(cls, file: Path, header: Dataset) -> Segmentation:
        """What the header of a DICOM SEG says.

        Args:
            file: Where it is.
            header: Everything but its frames.
        """
        return cls(
            path=file,
            series=str(header.SeriesInstanceUID),
            instance=str(header.SOPInstanceUID),
            of=frozenset(str(one.get("SeriesInstanceUID", "")) for one in header.get("ReferencedSeriesSequence") or []),
            made=_made(header),
            title=" ".join(str(header.get("SeriesDescription", "") or "").split())[:64],
        )


class NewestSegmentation:
    """Makes the newest segmentation of a series its label.

    Args:
        place: Where they are, for sentences: `archive`, `folder`.
        save: Stores a label: image id, its file, what is stored with it.
    """

    def __init__(self, place: str, save: Callable[[str, Path, dict[str, Any]], object]) -> None:
        self._place = place
        self._save = save
        self._unreadable: dict[str, str] = {}
        self._notices: dict[str, list[str]] = {}

    def notices(self, image_id: str) -> list[str]:
        """What a user should know who does not see a segmentation."""
        return list(self._notices.get(image_id, []))

    def look(
        self,
        image_id: str,
        stored: Mapping[str, Any] | None,
        there: Sequence[Segmentation],
        grid: Callable[[], Image],
    ) -> None:
        """Store the newest segmentation that can be read, if it is newer than the label.

        Args:
            image_id: The image.
            stored: What was stored with its label; None where it has none.
            there: Its segmentations, the newest first.
            grid: The image, or one with its grid.
        """
        self._notices[image_id] = notices = []
        for one in there:
            if stored is not None:
                made = float(stored.get("made") or stored.get("ts") or 0)
                if one.series == stored.get("SeriesInstanceUID") or one.made <= made:
                    return
            if one.instance not in self._unreadable:
                try:
                    self._take_in(image_id, one, len(there), grid())
                except UserError as error:
                    logger.warning("The segmentation %s of %s is not shown: %s", one.series, image_id, error)
                    self._unreadable[one.instance] = str(error).removeprefix(one.path.name).strip()
                else:
                    return
            title = f" ({one.title})" if one.title else ""
            said = self._unreadable[one.instance]
            notices.append(f"A segmentation in the {self._place} is not shown{title}: it {said}")

    def _take_in(self, image_id: str, one: Segmentation, count: int, grid: Image) -> None:
        labels, info = read_segmentation(one.path, grid)
        if count > 1:
            title = f" ({one.title})" if one.title else ""
            info["notices"].append(
                f"The {self._place} has {count} segmentations of this series. The newest one{title} is shown;"
                " the others stay there."
            )
        info |= {"SeriesInstanceUID": one.series, "made": one.made}
        with temporary_folder() as folder:
            file = Path(folder) / "label.nii.gz"
            write_label_map(file, labels, grid)
            self._save(image_id, file, info)


def newest_first(found: Sequence[Segmentation], series: str) -> list[Segmentation]:
    """Those that refer to a series, the newest first."""
    return sorted((one for one in found if series in one.of), key=lambda one: one.made, reverse=True)


def _made(header: Dataset) -> float:
    for kind in ("Content", "InstanceCreation", "Series"):
        date, clock = str(header.get(f"{kind}Date") or ""), str(header.get(f"{kind}Time") or "")
        if len(date) == 8:
            try:
                when = datetime.strptime(f"{date}{(clock.partition('.')[0] + '000000')[:6]}", "%Y%m%d%H%M%S")
                fraction = float(f"0.{clock.partition('.')[2] or 0}")
                return when.replace(tzinfo=_zone(header)).timestamp() + fraction
            except ValueError:
                continue
    return 0.0


def _zone(header: Dataset) -> timezone | None:
    """Where the clock stood; None, the time here, where the file does not say."""
    said = str(header.get("TimezoneOffsetFromUTC") or "")
    if len(said) != 5 or said[0] not in "+-" or not said[1:].isdecimal():
        return None
    offset = timedelta(hours=int(said[1:3]), minutes=int(said[3:]))
    return timezone(offset if said[0] == "+" else -offset)
