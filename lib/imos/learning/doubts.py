"""Doubts: accepted labels that their own images bear out far less than the others are borne out by theirs.

The base carries each object of a volume from its largest slice. A right label mostly comes back; one that lies
elsewhere, or belongs to another image, is lost after a few slices. So whoever accepts the wrong file is told which one
it was: the gate only keeps what was learned from it out of use (docs/learning_loop.md).

A doubt is a hint for a person. What is hard to carry may be right, and is then what is worth learning, so nothing is
left out because of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from imos.registry.records import LabelRef

FEWEST = 4
"""Labels that must be known to say what is usual."""
SHARE = 2 / 3
"""Of the median J&F, below which a label is doubtful. Of 27 labels of seven sets none was below .78 of its set's
median, and the same labels, moved and mirrored, were all below .67."""
NAMED = 3
"""Labels in a sentence at most."""


def doubtful(scores: Mapping[LabelRef, float]) -> list[LabelRef]:
    """Labels to look at, the worst first.

    Args:
        scores: J&F of what the base makes of every label's largest slices.
    """
    if len(scores) < FEWEST:
        return []
    least = SHARE * median(scores.values())
    return sorted((label for label, score in scores.items() if score < least), key=lambda label: (scores[label], label))


def warning_of(scores: Mapping[LabelRef, float]) -> str:
    """What to look at, in one sentence; empty where there is nothing.

    Args:
        scores: As in `doubtful`.
    """
    found = doubtful(scores)
    if not found:
        return ""
    named = ", ".join(f"{label.image} ({scores[label]:.2f})" for label in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    labels = "label" if len(found) == 1 else "labels"
    usual = f"half of all come back with a J&F of {median(scores.values()):.2f} or more"
    return f"Look at the {labels} of {named}{more}, which the image hardly bears out: from one slice {usual}."
