"""Categories: what a collection's labels are called, and which of them weights can have learnt.

The tables of a collection may name their labels in a column `labels`: volumes as JSON (`{"1": "liver"}`), frames as
`1=polyp;2=tool` or `1..15=cells`. A category is unseen when no row of the split `train` names it. Sides and numbers of
instances make no other category ("left lung" is seen where "lung right" was, "neuron 7" where "neuron 1" was), nor do
spaces and explanations in brackets.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TRAIN = "train"
UNSEEN = "*"
"""Mark of categories that are not in the split `train`."""

_SIDE = re.compile(r"\b(left|right)\b")
_NUMBER = re.compile(r"\s+\d+$")
_EXPLANATION = re.compile(r"\s*(\(.*?\)| present in .*)")
_FRAMES_ENTRY = re.compile(r"\s*(\d+)(?:\.\.(\d+))?\s*=\s*(.+)")


@dataclass(frozen=True, slots=True)
class Categories:
    """Names of the labels of one split.

    Attributes:
        names: Data set, case and label → category.
        seen: What `train` names, as `kind_of` says it.
    """

    names: dict[tuple[str, str, int], str] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.names)

    def name(self, group: str, case: str, label: int) -> str:
        """What a label is called, with a star where it is unseen."""
        name = self.names.get((group, case, label))
        return f"label {label}" if name is None else name + UNSEEN * (kind_of(name) not in self.seen)

    def is_seen(self, group: str, case: str, label: int) -> bool | None:
        """Whether `train` has this category; None for a label without name."""
        name = self.names.get((group, case, label))
        return None if name is None else kind_of(name) in self.seen


def read_categories(root: Path, split: str) -> Categories:
    """The categories of a split.

    Args:
        root: Folder of a collection.
        split: Whose labels are named.

    Returns:
        Empty where the tables have no column `labels`. Entries that cannot be understood are passed over: a name is no
        reason to judge nothing.
    """
    names: dict[tuple[str, str, int], str] = {}
    seen: set[str] = set()
    for table, column in (("volumes.tsv", "case"), ("frames.tsv", "sequence")):
        for row in _rows(root / table):
            for label, name in _labels(row.get("labels") or ""):
                if row["split"] == split:
                    names[row["set"], row[column], label] = category_of(name)
                if row["split"].split("/")[0] == TRAIN:
                    seen.add(kind_of(name))
    return Categories(names, frozenset(seen))


def category_of(name: str) -> str:
    """A label's name in a table of categories: `kidney left` and `left kidney` are one, `neuron 7` is `neuron`."""
    plain = _NUMBER.sub("", _EXPLANATION.sub("", name.strip())) or name.strip()
    side = _SIDE.search(plain)
    # A side is a prefix only where it ends the name: "left ventricle cavity" is no "ventricle cavity" of the left.
    if side is not None and plain.endswith(side[0]):
        plain = f"{side[0]} {plain[: side.start()].strip()}"
    return plain


def kind_of(name: str) -> str:
    """What is compared to tell whether a category was seen: letters only, without side."""
    return re.sub(r"[^a-z0-9]", "", _SIDE.sub("", category_of(name).lower()))


def _labels(text: str) -> Iterator[tuple[int, str]]:
    if text.lstrip().startswith("{"):
        try:
            named = json.loads(text)
        except json.JSONDecodeError:
            return
        for label, name in named.items():
            if label.isdecimal() and isinstance(name, str) and name.strip():
                yield int(label), name
        return
    for entry in text.split(";"):
        found = _FRAMES_ENTRY.fullmatch(entry)
        if found is not None:
            first, last, name = int(found[1]), int(found[2] or found[1]), found[3]
            yield from ((label, name) for label in range(first, min(last, 255) + 1))


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))
