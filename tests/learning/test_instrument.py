"""What a figure depends on beside weights and label."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import imos
from imos.learning import instrument


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of our own code, which is looked at anew each time."""
    root = shutil.copytree(Path(imos.__file__).parent, tmp_path / "imos", ignore=shutil.ignore_patterns("*.pyc"))
    monkeypatch.setattr(imos, "__file__", str(root / "__init__.py"))
    monkeypatch.setattr(instrument, "_code", instrument._code.__wrapped__)
    return root


@pytest.mark.parametrize(
    ("file", "measures", "trains"),
    [
        ("propagation/floor.py", True, True),
        ("metrics/boundary.py", True, True),
        ("training/losses.py", False, True),
        ("server/conf.py", False, False),
    ],
)
def test_it_has_another_name_where_that_code_changed(code: Path, file: str, measures: bool, trains: bool) -> None:
    before = instrument.measuring("cpu"), instrument.training()
    assert before == (instrument.measuring("cpu"), instrument.training())
    with (code / file).open("a") as changed:
        changed.write("# another line\n")
    assert (instrument.measuring("cpu") != before[0], instrument.training() != before[1]) == (measures, trains)
