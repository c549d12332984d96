import itertools
import json
import math
import subprocess
import sys
from xml.etree import ElementTree

import altair
import numpy as np
import pytest
import vl_convert
import xarray as xr
from conftest import ROOT

from workbench import views
from workbench.errors import InputError
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable, ticks
from workbench.views.layout import Factor, described, layout
from workbench.views.span import span
from workbench.views.theme import number, ramp, rounded, word

STEPS = 40
COLUMNS = {"lr": {"units": "1", "long_name": "learning rate (peak)"}, "seed": {"units": "1", "long_name": "seed"}}
HOSTILE = "</script><script>alert(1)</script>\"'`\u2028=datum.x--><img src=x onerror=alert(1)>"


def crossed(**axes):
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def made(rows, loss=None, steps=STEPS, diverged=(), heads=2, loss_name="Training loss", **attrs):
    """A record of `rows` with a loss every step and an entropy every ten; `diverged` maps run to step."""
    variables = [
        Variable("train_loss", 1, (), "float32", {"long_name": loss_name, "units": "nat"}),
        Variable("attention_entropy", 10, ("layer", "head"), "float32", {"long_name": "Attention entropy", "units": "nat"}),
    ]
    labels = {"layer": [0, 1], "head": list(range(heads))}
    record = blank(Schema(rows, COLUMNS, variables, labels, [("train", 0)], 0, steps, {"study": "made", "title": "Made"} | attrs))
    runs, every, tenth = range(len(rows)), ticks(1, 0, steps), ticks(10, 0, steps)
    loss = 4 - 0.05 * np.arange(steps + 1) + 0.1 * np.arange(len(rows))[:, None] if loss is None else np.asarray(loss, float)
    entropy = (
        2 - np.arange(len(tenth))[:, None, None] / 10 * np.arange(1, 1 + 2 * heads).reshape(2, heads) / 10 + np.zeros((len(rows), 1, 1, 1))
    )
    entropy = entropy + 0.01 * np.arange(len(rows))[:, None, None, None]
    ends = [dict(diverged).get(run, -1) for run in runs]
    for run, end in enumerate(ends):
        if end >= 0:
            loss[run, end:] = np.nan
            entropy[run, [i for i, step in enumerate(tenth) if step >= end]] = np.nan
    fill(record, Slab(runs, 1, every, {"train_loss": loss}, {}))
    fill(record, Slab(runs, 10, tenth, {"attention_entropy": entropy}, labels))
    fill(record, Progress(runs, steps, ends))
    return record


SWEEP = crossed(seed=range(3), lr=[1e-3, 1e-2, 1e-1], qk_norm=[False, True])
DESIGNS = {
    "one run": crossed(seed=[0], lr=[1e-2]),
    "seeds": crossed(seed=range(3), lr=[1e-2]),
    "rates and a switch": SWEEP,
    "one stabilizer at a time": crossed(seed=[0, 1], lr=[1e-3, 1e-2], qk_norm=[False, True], sigma=[False])
    + crossed(seed=[0, 1], lr=[1e-3, 1e-2], qk_norm=[False], sigma=[True]),
    "words": crossed(seed=[0, 1], norm=["pre", "post", "none"]),
    "many": crossed(seed=[0], lr=[1e-3, 1e-2], depth=[1, 2], norm=["pre", "post"], qk_norm=[False, True], data=["text", "images"]),
    "twenty rates": crossed(seed=[0], lr=np.geomspace(1e-4, 1, 20).tolist()),
    "hostile": crossed(seed=[0, 1], lr=[1e-3, 1e-2], text=["plain", HOSTILE]),
}


def every(spec, key):
    """All values of `key` anywhere in a specification."""
    if isinstance(spec, dict):
        yield from ([spec[key]] if key in spec else [])
        for name, part in spec.items():
            if name not in ("data", "config"):
                yield from every(part, key)
    elif isinstance(spec, list):
        for part in spec:
            yield from every(part, key)


def tables_of(spec):
    return [data["values"] for data in every(spec, "data")]


def rows_of(spec):
    return max(tables_of(spec), key=len)


def rules_of(spec):
    drawn = ((row, key) for row in rows_of(spec) for key in row if key.startswith("rule_") and not key.endswith("text"))
    return [row[f"{key}_text"] for row, key in drawn if row[key] is not None]


def title_of(axis):
    return " ".join(axis["title"]) if isinstance(axis["title"], list) else axis["title"]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("view", views.GENERAL, ids=lambda view: view.name)
def test_every_general_view_draws_every_design(view, design):
    record = made(DESIGNS[design], diverged={0: 20})
    before = record.copy(deep=True)
    spec = view(record).to_dict()
    assert rows_of(spec)
    assert spec["description"]
    assert record.identical(before)


@pytest.mark.parametrize("view", views.GENERAL, ids=lambda view: view.name)
def test_hostile_strings_are_drawn_as_text(view):
    spec = view(made(DESIGNS["hostile"], loss_name=HOSTILE, diverged={0: 20})).to_dict()
    svg = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))
    names = {element.tag.rpartition("}")[2] for element in svg.iter()}
    assert names <= {"svg", "g", "path", "text", "tspan", "rect", "defs", "clipPath", "linearGradient", "stop", "line"}


def test_spikes_survive_decimation_exactly():
    rng = np.random.default_rng(0)
    curves = rng.normal(size=(5, 1013))
    curves[[0, 1, 2, 3, 4], [0, 7, 500, 1011, 1012]] = 1e6
    curves[[4, 3, 2, 1, 0], [3, 12, 501, 900, 1000]] = -1e6
    kept = views.decimate(curves, 100)
    assert kept.shape == (5, 102)
    assert (np.diff(kept) >= 0).all()
    assert (kept[:, 0] == 0).all()
    assert (kept[:, -1] == 1012).all()
    edges = [1013 * bucket // 50 for bucket in range(51)]
    for curve, places in zip(curves, kept, strict=True):
        for low, high in itertools.pairwise(edges):
            inside = curve[[place for place in places if low <= place < high]]
            assert inside.max() == curve[low:high].max()
            assert inside.min() == curve[low:high].min()


def test_decimation_keeps_short_curves_whole_and_passes_over_gaps():
    short = np.arange(6.0).reshape(1, 6)
    assert views.decimate(short, 6).tolist() == [[0, 1, 2, 3, 4, 5]]
    gap = np.array([[np.nan, 3, 1, 2, np.inf, np.nan, np.nan, np.nan]])
    assert views.decimate(gap, 4).tolist() == [[0, 1, 2, 4, 4, 7]]


def test_curves_carry_their_spike_and_stay_small():
    loss = np.ones((50, 2001))
    loss[7, 1234] = 8.765
    record = made(crossed(seed=range(50)), loss=loss, steps=2000)
    rows = rows_of(views.loss_curves(record).to_dict())
    assert rows[7]["value"][rows[7]["step"].index(1234)] == 8.765
    assert sum(len(row["step"]) for row in rows) < 12_000


def test_a_diverged_run_is_marked_where_it_diverged():
    record = made(SWEEP, diverged={2: 20})
    spec = views.loss_curves(record).to_dict()
    rows = rows_of(spec)
    last = record.wb["train_loss"].values[2, 19]
    assert [row["run"] for row in rows if row["ended"] is not None] == [2]
    assert (rows[2]["ended"], rows[2]["ended_at"]) == (20, pytest.approx(last))
    assert rows[2]["value"][20:] == [None] * 21
    assert "datum.ended !== null" in every(spec, "filter")


def test_axes_are_titled_with_units_and_panels_with_knobs():
    spec = views.loss_curves(made(SWEEP)).to_dict()
    assert {title_of(y) for y in every(spec, "y") if isinstance(y, dict)} == {"Training loss [nat]"}
    assert {x["title"] for x in every(spec, "x") if isinstance(x, dict)} == {"step"}
    assert spec["facet"]["sort"] == ["qk_norm = false", "qk_norm = true"]
    colour = next(every(spec, "color"))
    assert (colour["title"], colour["scale"]["domain"]) == ("lr", ["0.001", "0.01", "0.1"])
    spec = views.final_loss_against_lr(made(SWEEP)).to_dict()
    assert {title_of(x) for x in every(spec, "x") if isinstance(x, dict) and "title" in x} == {"lr: learning rate (peak)"}
    assert {title_of(y) for y in every(spec, "y") if isinstance(y, dict)} == {"Training loss [nat], last 10% of steps"}


def test_a_spike_far_above_the_start_is_said_to_be_cut_and_stays_in_the_data():
    loss = np.full((2, STEPS + 1), 2.0)
    loss[1, 7] = 1e5
    spec = views.loss_curves(made(crossed(seed=[0, 1]), loss=loss)).to_dict()
    assert spec["title"]["text"] == ["values above 20 are drawn at the upper edge"]
    assert max(rows_of(spec)[1]["value"]) == 1e5
    assert next(every(spec, "y"))["scale"] == {"clamp": True, "domain": [pytest.approx(2, rel=0.2), 20], "nice": False, "type": "log"}


def test_final_is_the_mean_of_the_last_tenth_before_divergence():
    record = made(crossed(seed=range(2)), steps=99, loss=np.arange(200.0).reshape(2, 100), diverged={1: 50})
    assert views.final(record.wb["train_loss"]).tolist() == [94.5, 144.5]


def test_sweep_counts_diverged_runs_as_infinite():
    record = made(SWEEP, diverged=[(run, 30) for run, row in enumerate(SWEEP) if row["lr"] == 0.1 and (row["qk_norm"] or row["seed"] == 0)])
    rows = [row for row in rows_of(views.final_loss_against_lr(record).to_dict()) if row["first"]]
    assert len(rows) == 6
    lost = {(row["x"], row["colour"]): (row["lost"], row["median"]) for row in rows}
    assert lost[0.1, "true"] == ("3/3", None)
    assert lost[0.1, "false"][0] == "1/3"
    finals = np.sort(
        views.final(record.wb["train_loss"])[[i for i, r in enumerate(SWEEP) if r["lr"] == 0.1 and not r["qk_norm"] and r["seed"]]]
    )
    assert lost[0.1, "false"][1] == pytest.approx(finals[-1], rel=1e-3)
    assert lost[0.001, "true"][0] is None


def test_sweep_draws_the_loss_at_initialization_or_says_that_it_is_off_the_axis():
    near = views.final_loss_against_lr(made(SWEEP)).to_dict()
    assert rules_of(near) == ["loss at initialization 4.85"]
    loss = np.full((len(SWEEP), STEPS + 1), 1.0) + 0.01 * np.arange(len(SWEEP))[:, None]
    loss[:, 0] = 9
    assert views.final_loss_against_lr(made(SWEEP, loss=loss)).to_dict()["title"]["text"] == [
        "loss at initialization is 9, above this axis"
    ]


def test_knobs_that_are_not_crossed_become_variants():
    plan = layout(made(DESIGNS["one stabilizer at a time"]))
    assert plan.main == "lr"
    assert [(factor.title, factor.names) for factor in plan.factors] == [("variant", ("plain", "qk_norm", "sigma"))]
    plan = layout(made(DESIGNS["many"]))
    assert [factor.title for factor in plan.factors] == ["depth", "norm", "qk_norm", "data"]
    assert "not told apart here: qk_norm, data" in views.loss_curves(made(DESIGNS["many"])).to_dict()["title"]["text"]
    assert described(made(SWEEP))[1] == "lr 0.001, qk_norm true, seed 0"


SIZES = [dict(width=16, depth=1), dict(width=32, depth=2), dict(width=64, depth=4)]
RECIPES = [dict(qk_norm=True, z_loss=1e-4), dict(qk_norm=False, z_loss=1e-4), dict(qk_norm=True, z_loss=0.0)]
RECORD_OF_SIZES = [row | size | recipe for recipe in RECIPES for size in SIZES for row in crossed(lr=[1e-3, 1e-2, 1e-1], seed=[0, 1])]


def test_knobs_that_change_together_are_one_size_and_each_stabilizer_taken_away_a_variant():
    size, variant = sorted(layout(made(RECORD_OF_SIZES)).factors, key=lambda factor: factor.title == "variant")
    assert (size.title, size.names, size.ordered) == ("width, depth", ("16, 1", "32, 2", "64, 4"), True)
    assert size.heads == ("width 16, depth 1", "width 32, depth 2", "width 64, depth 4")
    assert (variant.names, variant.heads) == (("plain", "no qk_norm", "z_loss 0"),) * 2
    assert [(row["width"], row["qk_norm"], row["z_loss"]) for row in RECORD_OF_SIZES] == [
        ((16, 32, 64)[i], (variant.names[j] != "no qk_norm"), 0.0 if variant.names[j] == "z_loss 0" else 1e-4)
        for i, j in zip(size.codes, variant.codes, strict=True)
    ]


def test_knobs_of_which_each_two_are_crossed_but_not_all_are_one_variant():
    half = [("p", False, "x"), ("q", True, "x"), ("p", True, "y"), ("q", False, "y")]
    (variant,) = layout(made([dict(seed=0, a=a, b=b, c=c) for a, b, c in half])).factors
    assert (variant.title, set(variant.names)) == ("variant", {"plain", "a q, b", "b, c y", "a q, c y"})


def test_a_sweep_colours_what_has_an_order_and_rings_the_lowest_median_of_each_line():
    loss = np.ones((len(RECORD_OF_SIZES), STEPS + 1)) * [[abs(math.log10(row["lr"] * row["width"]))] for row in RECORD_OF_SIZES]
    spec = views.sweep(made(RECORD_OF_SIZES, loss=loss), "train_loss").to_dict()
    colour = next(every(spec, "color"))
    assert (colour["title"], colour["scale"]["domain"], colour["type"]) == ("width, depth", ["16, 1", "32, 2", "64, 4"], "ordinal")
    assert spec["facet"]["sort"] == ["plain", "no qk_norm", "z_loss 0"]
    lowest = {(row["colour"], row["x"]) for row in rows_of(spec) if row["lowest"]}
    assert lowest == {("16, 1", 1e-1), ("32, 2", 1e-2), ("64, 4", 1e-2)}
    assert sum(row["lowest"] for row in rows_of(spec)) == 9


def test_a_sweep_draws_any_number_per_run_by_any_factors():
    record = made(SWEEP)
    odd = Factor("parity", ("even", "odd"), record["run"].values % 2)
    number_of_run = xr.DataArray(np.arange(len(SWEEP)) * 1.5, dims="run", attrs={"long_name": "Number", "units": "m"})
    spec = views.sweep(record, number_of_run, factors=[odd]).to_dict()
    assert [row["value"] for row in rows_of(spec)] == number_of_run.values.tolist()
    assert next(every(spec, "color"))["scale"]["domain"] == ["even", "odd"]
    assert {title_of(y) for y in every(spec, "y") if isinstance(y, dict) and "title" in y} == {"Number [m]"}


def test_curves_take_panels_from_factors():
    record = made(SWEEP)
    odd = Factor("parity", ("even", "odd"), record["run"].values % 2)
    assert views.curves(record, "train_loss", factors=[odd]).to_dict()["facet"]["sort"] == ["parity = even", "parity = odd"]


def test_a_pair_of_groups_without_runs_has_a_panel_of_nothing():
    """Without a row for it Vega-Lite draws the panels after the gap one place too far to the left."""
    record = made(SWEEP)
    row, column = Factor("row", ("a", "b"), record["run"].values % 2), Factor("column", ("c", "d"), record["run"].values // 2 % 2)
    some = record.isel(run=np.flatnonzero((row.codes == 0) | (column.codes == 1)))
    kept = [Factor(f.title, f.names, f.codes[some["run"].values]) for f in (row, column)]
    rows = views.curves(some, "train_loss", factors=kept).to_dict()["data"]["values"]
    assert {(r["panel_0"], r["panel_1"]) for r in rows} == {(f"row = {a}", f"column = {b}") for a in "ab" for b in "cd"}
    (empty,) = [r for r in rows if (r["panel_0"], r["panel_1"]) == ("row = b", "column = c")]
    assert all(value in (None, [None]) for name, value in empty.items() if not name.startswith("panel_"))


def per_seed(*rows):
    sizes = xr.Variable("size", [10, 100, 1000], {"long_name": "weights"})
    return xr.DataArray(np.array(rows, float).T, dims=("size", "seed"), coords={"size": sizes, "seed": range(len(rows))})


def test_intervals_are_those_of_student_and_of_logarithms_on_a_logarithmic_axis():
    flat = views.intervals({"one": per_seed([1, 2, 3], [2, 3, 4])}, title="T [nat]", colour="recipe").to_dict()
    first = tables_of(flat)[0][0]
    half = 12.706204736 * 0.5  # t of one degree of freedom, times the standard error
    assert (first["mean"], first["low"], first["high"]) == (1.5, pytest.approx(1.5 - half, rel=1e-3), pytest.approx(1.5 + half, rel=1e-3))
    assert first["words"] == "1.5 [-4.853, 7.853], n = 2"
    tall = views.intervals({"one": per_seed([1, 10, 100], [100, 1000, 10000])}, title="T", colour="recipe").to_dict()
    assert [row["mean"] for row in tables_of(tall)[0]] == [10, 100, 1000]
    assert title_of(next(every(flat, "x"))) == "weights" and title_of(next(every(flat, "y"))) == "T [nat]"


def test_intervals_stand_beside_one_another_and_laws_end_in_a_ring():
    groups = {"a": per_seed([1, 2, 3], [1, 2, 3]), "b": per_seed([2, 4, 8], [2, 4, 8])}
    spec = views.intervals(groups, title="T", colour="lr", in_order=True, fits={"b": groups["b"].mean("seed") * 2}).to_dict()
    bars, law = tables_of(spec)[0], tables_of(spec)[-1]
    assert [row["x"] for row in bars] == [10, 100, 1000] * 2 and len({row["place"] for row in bars}) == 6
    assert [(row["place"], row["value"], row["last"]) for row in law] == [(10, 4, False), (100, 8, False), (1000, 16, True)]
    assert next(every(spec, "color"))["type"] == "ordinal"


def test_long_panel_heads_are_broken_and_short_ones_are_not():
    rows = [
        row | knobs
        for knobs in (dict(a_long_name=1.5, another=False), dict(a_long_name=2.5, another=True))
        for row in crossed(lr=[1e-3, 1e-2])
    ]
    spec = views.loss_curves(made([{"seed": 0} | row for row in rows])).to_dict()
    assert spec["facet"]["header"]["labelExpr"].startswith("length(datum.label) > 24 ?")
    ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))


def test_the_lowest_run_is_shown_with_its_twin():
    record = made(SWEEP)
    ends = np.full(len(SWEEP), 2.0)
    collapsed = next(i for i, row in enumerate(SWEEP) if row == {"seed": 1, "lr": 0.1, "qk_norm": False})
    saved = next(i for i, row in enumerate(SWEEP) if row == {"seed": 1, "lr": 0.1, "qk_norm": True})
    ends[collapsed] = 0.1
    assert views.lowest_and_twin(record, ends) == [collapsed, saved]
    assert views.lowest_and_twin(made(DESIGNS["one run"]), np.array([1.0])) == [0]
    assert views.lowest_and_twin(record, np.full(len(SWEEP), np.nan)) == [0]


def test_entropy_map_has_a_row_for_each_head_or_the_lowest_head_of_each_layer():
    record = made(DESIGNS["one run"])
    rows = rows_of(views.entropy_map(record).to_dict())
    assert [row["row"] for row in rows] == ["layer 0, head 0", "layer 0, head 1", "layer 1, head 0", "layer 1, head 1"]
    assert rows[3]["value"] == pytest.approx([2, 1.96, 1.92, 1.88, 1.84])
    assert rows[3]["step"] == [0, 10, 20, 30, 40]
    spec = views.entropy_map(made(DESIGNS["one run"], heads=30)).to_dict()
    assert spec["title"]["text"] == "lowest head of each"
    assert [row["value"][1] for row in rows_of(spec)] == pytest.approx([1.7, 1.4])
    with pytest.raises(InputError, match="draw it with curves"):
        views.heat_map(record, "train_loss", [0])


def test_event_shares_count_runs_of_a_setting():
    record = made(
        SWEEP, diverged=[(run, 10) for run, row in enumerate(SWEEP) if row["lr"] == 0.1 and row["seed"] < 2 and not row["qk_norm"]]
    )
    for name, units in (("collapse_step", "step"), ("lowest", "nat")):
        record["events"][name] = xr.DataArray(np.full(len(SWEEP), 5.0), dims="run", attrs={"units": units})
    rows = rows_of(views.event_shares(record).to_dict())
    shares = {(row["event"], row["down"], row["across"]): row["text"] for row in rows}
    assert shares["diverged", "qk_norm = false", "0.1"] == "2/3"
    assert shares["diverged", "qk_norm = true", "0.1"] == "0/3"
    assert shares["collapse", "qk_norm = true", "0.001"] == "3/3"
    assert {row["event"] for row in rows} == {"diverged", "collapse"}


def test_entropy_curves_take_the_smallest_layer_and_rules():
    record = made(DESIGNS["one run"])
    spec = views.entropy(record, threshold=0.1, uniform=views.uniform_entropy(64, causal=True)).to_dict()
    assert next(rows[0]["value"] for rows in tables_of(spec) if "step" in rows[0]) == [2, 1.965, 1.93, 1.895, 1.86]
    assert rules_of(spec) == ["collapse 0.1", "uniform attention 3.206"]
    assert title_of(next(every(spec, "y"))) == "attention entropy, smallest layer [nat]"


def test_each_panel_has_its_own_reference():
    rows = crossed(data=["text", "images"], seed=[0, 1], lr=[1e-3, 1e-2])
    spec = views.curves(made(rows), "train_loss", references={"start": np.array([5.0, 5, 4, 5, 2, 2, 2, np.nan]), "none": np.nan}).to_dict()
    assert [(row["run"], row["rule_0"], row["rule_1"]) for row in rows_of(spec) if row["rule_0"]] == [(0, 5.0, None), (4, 2.0, None)]
    assert rules_of(spec) == ["start 5", "start 2"]


def test_uniform_entropy():
    assert views.uniform_entropy(64, causal=False) == math.log(64)
    assert views.uniform_entropy(64, causal=True) == pytest.approx(np.log(np.arange(1, 65)).mean())


def test_curves_say_what_reduce_leaves():
    with pytest.raises(InputError, match="run, step, layer"):
        views.curves(made(SWEEP), "attention_entropy", reduce=lambda values: values.mean("head"))


def test_no_number_is_shown_raw():
    for view in views.GENERAL:
        for tooltip in itertools.chain(
            *(tips for tips in every(view(made(SWEEP, diverged={0: 9})).to_dict(), "tooltip") if isinstance(tips, list))
        ):
            assert tooltip["type"] in ("nominal", "ordinal") or tooltip.get("format") or tooltip["field"] == "step", tooltip


NUMBERS = [(0.003, "0.003"), (3e-5, "3e-5"), (2.34567, "2.346"), (200, "200"), (12345678, "12345678"), (1.5e9, "1.5e9"), (2.0, "2")]
NUMBERS += [(math.nan, "–"), (None, "–"), (math.inf, "∞"), (np.float32(0.1), "0.1"), (np.int64(7), "7"), (0.0, "0"), (-0.25, "-0.25")]


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_number(value, text):
    assert number(value) == text


def test_words_are_short_and_on_one_line():
    assert [word(value) for value in (True, np.False_, 1e-3, "a\u2028b\nc")] == ["true", "false", "0.001", "a b c"]
    assert len(word("x" * 1000)) == 48


def test_rounded_keeps_four_digits():
    values = np.array([1.23456, 0.000123456, 123456.7, 0.0, -9.99999, np.nan, np.inf])
    assert rounded(values)[:5].tolist() == [1.235, 0.0001235, 123500.0, 0.0, -10.0]
    assert np.array_equal(rounded(values)[5:], [np.nan, np.inf], equal_nan=True)


def test_ramp_is_viridis_in_order():
    colours = ramp(5)
    assert colours[0] == "#440154"
    light = [sum(int(colour[i : i + 2], 16) * weight for i, weight in ((1, 0.2126), (3, 0.7152), (5, 0.0722))) for colour in colours]
    assert light == sorted(light)


def test_span_shows_its_values_and_turns_logarithmic_when_they_ask():
    assert not span([2, 3, 5]).logarithmic
    wide = span([0, 0.01, 5])
    assert wide.logarithmic
    assert wide.low < 0.01 < 5 < wide.high
    assert not span([-1, 0.01, 5]).logarithmic
    assert span([]) == span([np.nan])
    assert span([1.0, 2.0]).reaching([2.5]).high > 2.5
    assert span([1.0, 2.0]).reaching([50.0]) == span([1.0, 2.0])
    for ends in (span([1.0, 2.0]), span([1.0, 1000.0])):
        assert ends.share(ends.at(0.3)) == pytest.approx(0.3)


VERDICT = {
    "slug": "a",
    "statement": "It collapses.",
    "mean": 0.3,
    "low": 0.1,
    "high": 0.5,
    "n": 4,
    "threshold": 0.05,
    "above": True,
    "units": "nat",
    "paired": "data",
    "threshold_source": "here",
    "status": "holds",
}


def test_claims_are_drawn_with_interval_and_threshold():
    undecided = VERDICT | {"mean": None, "low": None, "high": None, "n": 1, "status": "undecided"}
    record = made(SWEEP, claims=json.dumps([VERDICT, undecided]))
    spec = views.claims(record).to_dict()
    drawn, empty = (rows[0] for rows in tables_of(spec))
    assert {name: drawn[name] for name in ("low", "mean", "high", "threshold")} == {"low": 0.1, "mean": 0.3, "high": 0.5, "threshold": 0.05}
    assert empty["mean"] is None
    assert spec["vconcat"][0]["title"]["text"] == ["✓ holds: It collapses."]
    assert title_of(next(every(spec["vconcat"][0], "x"))) == "effect [nat]"


@pytest.mark.parametrize(
    "text", ["{", "[1]", "[{}]", "{}x", "3", json.dumps([VERDICT | {"mean": "<b>"}]), json.dumps([VERDICT | {"status": "x"}])]
)
def test_claims_that_are_no_verdicts_are_refused(text):
    with pytest.raises(InputError, match="not a list of verdicts"):
        views.verdicts_of(made(SWEEP, claims=text))


def test_no_claims():
    assert views.verdicts_of(made(SWEEP)) == []
    with pytest.raises(InputError, match="no verdict"):
        views.claims(made(SWEEP))


def test_the_theme_is_registered_and_enabled():
    views.loss_curves(made(SWEEP))
    assert altair.theme.active == "workbench"


def test_views_are_declared_without_altair_and_ask_for_it_when_drawn():
    code = """
import sys
sys.modules["altair"] = None
from workbench import views
from workbench.errors import InputError
try:
    views.GENERAL[0].fn.__globals__["alt"].Chart
except InputError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert out == "Charts and reports need the package 'altair'; install it with: pip install 'stability-workbench[report]'.\n"
