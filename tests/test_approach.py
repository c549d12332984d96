"""Curves before an event: aligned there, and the middle of what the runs have."""

import numpy as np
import pytest
import xarray as xr

from workbench.views.approach import approach
from workbench.views.layout import Factor


def drawn(values, at, within=20):
    values = xr.DataArray(np.array(values, float), dims=("run", "step"), coords={"step": np.arange(len(values[0]))})
    group = Factor("format", ("one",), np.zeros(len(values), int))
    _, lines, middle = approach(values, np.array(at, float), group, title="ratio", event="divergence", within=within).to_dict()["layer"]
    return lines["data"]["values"], middle["data"]["values"]


def test_runs_are_aligned_at_their_event_and_those_without_one_left_out():
    lines, _ = drawn([[1, 2, 3, 4, 5], [1, 1, 1, 1, 1], [9, 8, 7, 6, 5]], [4, np.nan, 2])
    assert [(row["run"], row["before"], row["value"]) for row in lines] == [
        (0, -4, 1),
        (0, -3, 2),
        (0, -2, 3),
        (0, -1, 4),
        (2, -2, 9),
        (2, -1, 8),
    ]


def test_every_run_counts_once_in_the_middle_however_often_it_was_measured():
    often, seldom = [1.0] * 11, [np.nan] * 9 + [100.0, 100.0]
    _, middle = drawn([often, seldom, seldom], [10, 10, 10])
    assert [row["value"] for row in middle if row["before"] == -5] == pytest.approx([100.0])
