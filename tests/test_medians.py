"""Medians and ranges of several variables, a panel for each group of runs."""

import numpy as np
import pytest

from workbench.design import axes
from workbench.knobs import Knobs, knob
from workbench.record import blank, fill
from workbench.schema import Schema, Slab, Variable
from workbench.views.layout import Factor
from workbench.views.medians import Mark, medians

PANEL = Factor("variant", ("one", "two"), np.array([0, 0, 0, 1]))


class Settings(Knobs):
    """One knob."""

    lr: float = knob(0.1, 0.01, 1.0, log=True, doc="learning rate")


def record(values):
    """Four runs with these numbers (run, step) as `up`, and their negatives as `down`."""
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(Settings).items()}
    variables = [Variable(name, 1, (), "float64", {}) for name in ("up", "down")]
    made = blank(
        Schema([{"seed": i, "lr": 0.1} for i in range(4)], columns, variables, {}, [("train", 0)], 0, len(values[0]) - 1, {"start": 0})
    )
    fill(made, Slab(range(4), 1, range(len(values[0])), {"up": np.array(values, float), "down": -np.array(values, float)}, {}))
    return made


def rows(chart, name, panel):
    found = chart.to_dict()["data"]["values"]
    return [(r["step"], r["low"], r["middle"], r["high"]) for r in found if (r["name"], r["panel_0"]) == (name, panel)]


def test_the_middle_and_the_range_of_each_group():
    chart = medians(record([[1, 1], [2, 5], [9, 3], [7, 8]]), {"rising": "up", "falling": "down"}, PANEL, title="height")
    assert rows(chart, "rising", "one") == [(0, 1, 2, 9), (1, 1, 3, 5)] and rows(chart, "rising", "two") == [(0, 7, 7, 7), (1, 8, 8, 8)]
    assert rows(chart, "falling", "one")[0] == (0, -9, -2, -1)


def test_runs_without_a_value_are_left_out_and_steps_without_a_run_too():
    nan = np.nan
    chart = medians(record([[1, nan], [2, 5], [9, 3], [7, nan]]), {"rising": "up"}, PANEL, title="height")
    assert rows(chart, "rising", "one") == [(0, 1, 2, 9), (1, 3, 4, 5)] and rows(chart, "rising", "two") == [(0, 7, 7, 7)]


def test_a_logarithmic_axis_has_no_place_for_zero():
    chart = medians(record([[0, 1], [2, 5], [9, 100], [0, 8]]), {"rising": "up"}, PANEL, title="height", logarithmic=True)
    assert rows(chart, "rising", "one") == [(0, 2, 5.5, 9), (1, 1, 5, 100)] and rows(chart, "rising", "two") == [(1, 8, 8, 8)]
    assert chart.to_dict()["spec"]["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"


@pytest.mark.parametrize("steps", [10, 1000])
def test_many_steps_are_thinned_and_keep_their_ends(steps):
    chart = medians(
        record([list(range(steps))] * 4), {"rising": "up"}, PANEL, title="height", marks=[Mark("two", "rising", 5, 2.0, "theirs")]
    )
    found = rows(chart, "rising", "one")
    assert len(found) == min(steps, 150) and found[0][0] == 0 and found[-1][0] == steps - 1
    marked = [r for r in chart.to_dict()["data"]["values"] if r["mark"] is not None]
    assert [(r["panel_0"], r["step"], r["mark"], r["text"]) for r in marked] == [("two", 5, 2.0, "theirs")]


def test_the_ends_of_a_logarithmic_axis_may_be_given():
    chart = medians(record([[1, 10]] * 4), {"rising": "up"}, PANEL, title="height", domain=(0.1, 100.0), logarithmic=True)
    scale = chart.to_dict()["spec"]["layer"][0]["encoding"]["y"]["scale"]
    assert scale["type"] == "log" and scale["domain"] == [0.1, 100.0]
