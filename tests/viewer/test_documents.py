"""Documents of the clients: the sentences that are explained are said, and the tests that are named are there."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
OTHERS = (
    "Failed to fetch Sample from MONAI Label Server.",  # 3D Slicer's module
    "Error processing URL: HTTPSConnectionPool",  # MONAI Label
    "[Errno 98]",  # the operating system
)


def sentences() -> list[str]:
    """The first column of every table that is keyed by words."""
    found, is_keyed = [], False
    for line in (DOCS / "troubleshooting.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 3:
            is_keyed = False
        elif cells[1] == "it says":
            is_keyed = True
        elif is_keyed and not cells[1].startswith("---"):
            found.extend(cells[1].split(" / "))
    return [one for one in found if not one.startswith(OTHERS)]


@functools.cache
def source(root: Path) -> str:
    """All programs, with literals that are written in pieces put together and without what changes in them."""
    files = [*root.glob("lib/imos/**/*.py"), *root.glob("lib/imos/viewer/*.js"), *root.glob("apps/imos/**/*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(files))
    text = re.sub(r"""["'`]\s*\+?\s*[frb]{0,2}["'`]""", "", text)
    return re.sub(r"\$?\{[^{}\n]*\}", "…", text).replace('\\"', '"')


@pytest.mark.parametrize("sentence", sentences())
def test_the_programs_say_what_the_page_explains(sentence: str, root: Path) -> None:
    # What stands for a name, a number or a plane differs each time; the words between stand in the source.
    pieces = [piece.strip(" .:;,()°`") for piece in re.split(r"…|\d+|\[\]", sentence)]
    fixed = [piece for piece in pieces if len(piece) > 2]
    assert sum(len(piece) for piece in fixed) > 12, "too little to look for"
    for piece in fixed:
        assert piece in source(root)


def test_every_test_that_proves_a_request_is_there(root: Path) -> None:
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`", (DOCS / "clients.md").read_text(encoding="utf-8")))
    tests = "\n".join(file.read_text(encoding="utf-8") for file in root.glob("tests/**/test_*.py"))
    assert len(named) > 40
    assert not [name for name in named if not re.search(rf"def test_(the_)?{name}\(", tests)]
