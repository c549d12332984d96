"""Packing: tables as text, and back."""

import base64
import json

import numpy as np
import pytest

from workbench.panel.packing import packed


def unpacked(table):
    """What the browser makes of it."""
    found = {}
    for name, column in table["columns"].items():
        if "numbers" in column:
            found[name] = np.frombuffer(base64.b64decode(column["numbers"]), "<f4")
        else:
            found[name] = [word for word, times in zip(column["words"], column["times"], strict=True) for _ in range(times)]
    return found


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"step": np.empty(0), "line": []},
        {"step": np.arange(5), "value": np.array([1.0, np.nan, np.inf, -np.inf, 1e-30]), "line": ["a", "a", "b", "", "a"]},
        {"value": np.arange(12.0).reshape(3, 4).T[:, 1], "line": ["ü ✓"] * 4},
        {"value": np.array([True, False]), "row": ["1", "2"]},
    ],
)
def test_a_table_comes_out_as_it_went_in(table):
    sent = json.loads(json.dumps(packed(table)))
    assert sent["rows"] == len(next(iter(table.values()), ()))
    for name, values in unpacked(sent).items():
        if isinstance(values, list):
            assert values == table[name]
        else:
            np.testing.assert_array_equal(values, np.asarray(table[name], np.float32))


def test_words_that_repeat_take_no_room():
    assert len(json.dumps(packed({"line": ["the same long name of a line"] * 10_000}))) < 200
