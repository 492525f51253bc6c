"""Which name belongs to which value, as each client says it."""

from __future__ import annotations

import pytest

from imos.server.conf import AppConf
from imos.server.segmentations import entries_of

OURS = [{"name": "kidney", "idx": 2}, {"name": "liver", "idx": 4}]
# Segments 3 and 4 were scribbles, which Slicer counts but does not send.
SLICERS = [{"name": "spleen", "idx": 1}, {"name": "kidney", "idx": 2}, {"name": "tumour", "idx": 5}]


@pytest.mark.parametrize(
    ("info", "values", "names"),
    [
        (OURS, [2, 4], ["kidney", "liver"]),
        (OURS, [4], ["liver"]),
        (SLICERS, [1, 2, 3], ["spleen", "kidney", "tumour"]),
        (SLICERS, [3], ["tumour"]),
        (SLICERS, [2, 3], ["kidney", "tumour"]),
        ([{"name": "a"}, {"name": "b"}], [7, 9], ["a", "b"]),
        ([{"name": "a"}], [7, 9], ["a", None]),
        (None, [3], [None]),
    ],
)
def test_entry_of_each_value(info, values, names):
    assert [one.get("name") for one in entries_of(info, values).values()] == names


def test_background_is_no_object():
    assert dict(AppConf.parse({"labels": "Background, liver ,,spleen"}).labels) == {"liver": 1, "spleen": 2}
