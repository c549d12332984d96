"""Maps of cells and rows of intervals: means, diverged runs, and where an axis begins."""

import numpy as np
import xarray as xr

from workbench.design import axes
from workbench.knobs import Knobs, knob
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Variable
from workbench.views.cells import cell_map, group_intervals
from workbench.views.layout import Factor


class Settings(Knobs):
    """One knob."""

    lr: float = knob(0.1, 0.01, 1.0, log=True, doc="learning rate")


def record(diverged):
    """Six runs, three at each of two rates; `diverged` are the steps at which they did, -1 if not."""
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(Settings).items()}
    rows = [{"seed": i % 3, "lr": 0.1 if i < 3 else 1.0} for i in range(6)]
    made = blank(Schema(rows, columns, [Variable("loss", 1, (), "float64", {})], {}, [("train", 0)], 0, 4, {"start": 0}))
    fill(made, Progress(range(6), 4, diverged))
    return made


def cells(diverged, values):
    down = Factor("format", ("E4M3",), np.zeros(6, int))
    quantity = xr.DataArray(np.array(values, float), dims="run", name="loss")
    rows = cell_map(record(diverged), quantity, down, "lr").to_dict()["data"]["values"]
    return {row["across"]: row for row in rows}


def test_a_cell_has_the_mean_of_the_runs_that_did_not_diverge_and_says_how_many_did():
    found = cells([-1, -1, 2, 1, 1, 3], [1, 3, 100, 5, 5, 5])
    assert (found["0.1"]["value"], found["0.1"]["words"], found["0.1"]["of"]) == (2, "2.00 (1/3)", 2)
    assert (found["1"]["value"], found["1"]["words"], found["1"]["of"]) == (None, "3/3", 0)


def test_a_run_without_a_value_is_not_taken_for_a_diverged_one():
    found = cells([-1] * 6, [np.nan, np.nan, 1, np.nan, np.nan, np.nan])
    assert (found["0.1"]["words"], found["0.1"]["of"], found["1"]["words"], found["1"]["count"]) == ("1.00", 1, "", 0)


def test_an_axis_of_intervals_begins_at_zero_unless_a_mean_is_negative():
    seeds = np.array([0.5, 0.7, 0.6, 0.4])
    for sign, begins in ((1, 0), (-1, None)):
        chart = group_intervals({"one": {"a": sign * seeds, "b": sign * seeds}}, ["b", "a"], title="decades", colour="rounding").to_dict()
        assert chart["layer"][0]["encoding"]["x"]["scale"].get("domainMin") == begins
        assert chart["layer"][0]["encoding"]["y"]["sort"] == ["b", "a"]
