"""What is known about one object on one slice."""

from __future__ import annotations

from enum import StrEnum


class SliceState(StrEnum):
    """What is known about one object on one slice.

    `unknown`: nothing was said and no pass came here. `propagated`: a pass found the object here. `prompted`: the user
    painted it here. `accepted`: the user looked at it and keeps it; wins over `prompted`. `absent`: the object is not
    here, because the user said so (an empty prompt, slice limits) or because every pass that came ended before.
    """

    UNKNOWN = "unknown"
    PROPAGATED = "propagated"
    PROMPTED = "prompted"
    ACCEPTED = "accepted"
    ABSENT = "absent"
