"""Charts of gauges and the tables that go into them, on tracks made by hand."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from workbench.gauge import Gauge, Level, default_gauges
from workbench.history import Track
from workbench.schema import Change, Variable
from workbench.views import gauges as drawn
from workbench.views.gauges import Shown, chart, difference_chart, difference_tables, marks_of, middle, tables

LOSS = Variable("loss", 1, (), "float32", {"long_name": "Training loss", "units": "nat"})
NORM = Variable("norm", 10, ("layer", "head"), "float32", {"long_name": "Norm", "units": "1"})
IS_ON = Variable("is_on", 1, (), "bool", {"long_name": "Whether it is on"})
HEADS = Variable("heads", 10, ("layer", "head", "y", "x"), "uint8", {"long_name": "Attention"})
DIGITS = Variable("digits", 10, ("sample", "y", "x"), "uint8", {"long_name": "Digits"})
VARIABLES = {v.name: v for v in (LOSS, NORM, IS_ON, HEADS, DIGITS)}
LABELS = dict(layer=[0, 1], head=["a", "b", "c"], sample=range(3), y=range(2), x=range(4))
GAUGES = (
    (Gauge("loss"), LOSS),
    (Gauge("norm", over={"head": "mean", "layer": "min"}, logarithmic=True), NORM),
    (Gauge("norm", "map"), NORM),
    (Gauge("heads", "picture"), HEADS),
    (Gauge("digits", "picture"), DIGITS),
    (Gauge("norm", "histogram"), NORM),
)
MANY = 20_000


def track(number=1, seeds=(0,), start=0, parent=None, labels=(), **more):
    row = {"lr": 0.1}
    diverged = np.full(len(seeds), -1)
    return Track(
        number,
        f"run {number}",
        "new run",
        seeds,
        row,
        row,
        VARIABLES,
        LABELS | dict(labels),
        start,
        parent,
        start,
        diverged=diverged,
        **more,
    )


def measured(own, name, steps, value):
    """The track with `value(step)`, broadcast to (run, *dims), at these steps."""
    shape = (len(own.seeds), *(len(own.labels[dim]) for dim in VARIABLES[name].dims))
    for step in steps:
        own.add(name, step, np.broadcast_to(np.asarray(value(step), VARIABLES[name].dtype), shape))
        own.step = max(own.step, step + 1)
    return own


def shown(*tracks, **more):
    return Shown(tracks, more.pop("selected", tracks[0]), **more)


def lines_of(table, column="value"):
    """Steps and heights of each line of a table, by its name."""
    names = np.array(table["line"])
    return {name: (table["step"][names == name].tolist(), table[column][names == name].tolist()) for name in dict.fromkeys(table["line"])}


def curve(*tracks, gauge=None, **more):
    return tables(gauge or Gauge("loss"), LOSS, shown(*tracks, **more))


# Curves


def test_a_short_curve_is_drawn_whole_and_ends_in_a_dot():
    found = curve(measured(track(), "loss", range(5), lambda step: step**2))
    assert lines_of(found["lines"]) == {"run 1": ([0, 1, 2, 3, 4], [0, 1, 4, 9, 16])}
    assert lines_of(found["ends"]) == {"run 1": ([4], [16])}
    assert set(found["lines"]["colour"]) == {drawn.CATEGORIES[0]}


def test_a_branch_is_drawn_from_where_it_began():
    root = measured(track(), "loss", range(6), float)
    branch = measured(track(2, start=4, parent=root), "loss", [4, 5], lambda step: 10.0 * step)
    found = lines_of(curve(root, branch)["lines"])
    assert found == {"run 1": ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]), "run 2": ([4, 5], [40, 50])}
    steps, values = branch.series("loss")
    assert steps.tolist() == [0, 1, 2, 3, 4, 5] and values.tolist() == [[0, 1, 2, 3, 40, 50]]


def test_a_curve_ends_where_one_looks_at():
    found = curve(measured(track(), "loss", range(9), float), until=5)
    assert lines_of(found["lines"]) == {"run 1": ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])}


def test_the_axis_ends_at_the_track_that_is_furthest():
    a, b = measured(track(), "loss", range(9), float), measured(track(2), "loss", range(4), float)
    assert (shown(a, b).last, shown(b).last, shown(a, b, until=6).last, shown(track()).last) == (9, 4, 6, 1)


def test_seeds_are_a_band_from_lowest_to_highest_and_their_median():
    three = measured(track(seeds=(0, 1, 2)), "loss", range(4), lambda step: [1.0, 2.0 + step, 9.0])
    found = curve(three)
    assert lines_of(found["bands"], "low")["run 1"] == ([0, 1, 2, 3], [1, 1, 1, 1])
    assert lines_of(found["bands"], "high")["run 1"] == ([0, 1, 2, 3], [9, 9, 9, 9])
    assert lines_of(found["lines"])["run 1"] == ([0, 1, 2, 3], [2, 3, 4, 5])


def test_without_bands_every_seed_is_a_line():
    two = measured(track(seeds=(3, 5)), "loss", range(2), lambda step: [1.0, 2.0])
    found = curve(two, bands=False)
    assert not len(found["bands"]["low"])
    assert lines_of(found["lines"]) == {"run 1, seed 3": ([0, 1], [1, 1]), "run 1, seed 5": ([0, 1], [2, 2])}


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_spike_in_a_long_curve_is_kept(seeds):
    heights = np.ones((len(seeds), MANY))
    heights[-1, 12_345], heights[0, 777] = 50.0, -50.0
    found = curve(measured(track(seeds=seeds), "loss", range(MANY), lambda step: heights[:, step]))
    high, low = (found["lines"]["value"],) * 2 if len(seeds) == 1 else (found["bands"]["high"], found["bands"]["low"])
    assert high.max() == 50 and low.min() == -50
    assert max(len(table["line"]) for table in found.values() if "line" in table) <= 510


def test_a_run_that_diverged_leaves_the_others_their_median():
    two = measured(track(seeds=(0, 1)), "loss", range(4), lambda step: [1.0, np.nan if step > 1 else 3.0])
    found = curve(two)
    assert lines_of(found["lines"])["run 1"] == ([0, 1, 2, 3], [2, 2, 1, 1])
    assert lines_of(found["bands"], "high")["run 1"] == ([0, 1, 2, 3], [3, 3, 1, 1])


def test_the_median_is_numpy_s_of_the_finite_values():
    values = np.random.default_rng(0).normal(size=(5, 40))
    np.testing.assert_allclose(middle(values), np.median(values, 0))
    values[np.random.default_rng(1).uniform(size=values.shape) < 0.4] = np.nan
    values[:, 0], values[0, 1] = np.nan, np.inf
    some = np.isfinite(values).any(0)
    np.testing.assert_allclose(middle(values)[some], np.nanmedian(np.where(np.isfinite(values), values, np.nan)[:, some], 0))
    assert np.isnan(middle(values)[~some]).all() and not some[0]


@pytest.mark.parametrize("bands", [True, False])
@pytest.mark.parametrize("logarithmic", [True, False])
def test_curves_that_are_no_numbers_or_empty_are_drawn_without_a_warning(bands, logarithmic):
    lost = measured(track(seeds=(0, 1)), "loss", range(3), lambda step: np.nan)
    for own in (lost, track(seeds=(0, 1)), track()):
        found = curve(own, bands=bands, references=[own], logarithmic={"loss-curve": logarithmic})
        assert not len(found["ends"]["value"]) and not np.isfinite(found["lines"]["value"]).any()


def test_what_a_logarithm_does_not_know_is_left_out():
    own = measured(track(), "loss", range(3), lambda step: step - 1.0)
    found = curve(own, logarithmic={"loss-curve": True})
    np.testing.assert_array_equal(found["lines"]["value"], [np.nan, np.nan, 1])


def test_dimensions_are_reduced_in_their_order():
    heads = np.array([[1.0, 2.0, 6.0], [0.0, 10.0, 20.0]])
    own = measured(track(), "norm", [0, 10], lambda step: heads)
    for over, height in (
        ({"head": "mean", "layer": "min"}, 3),
        ({"layer": "min", "head": "mean"}, 8 / 3),
        ({"head": "max"}, 13),
        ({}, 6.5),
    ):
        found = tables(Gauge("norm", over=over), NORM, shown(own))
        assert found["lines"]["value"] == pytest.approx([height, height])
    assert tables(Gauge("norm", over={"layer": "max", "head": "min"}), NORM, shown(own))["lines"]["value"].tolist() == [1, 1]


def test_references_are_dashed_grey_medians_up_to_the_last_step():
    pin = measured(track(7, seeds=(0, 1, 2)), "loss", range(50), lambda step: [1.0, 2.0, 30.0])
    found = curve(measured(track(), "loss", range(4), float), references=[pin])
    assert lines_of(found["references"]) == {"run 7": ([0, 1, 2, 3, 4], [2, 2, 2, 2, 2])}
    assert set(found["references"]["colour"]) == {drawn.SHIPPED}


# Levels


def test_levels_are_those_of_the_selected_knobs_and_the_published_ones():
    gauge = Gauge("loss", levels=lambda knobs: [Level("ten rates", 10 * knobs["lr"])])
    found = curve(measured(track(), "loss", range(3), float), gauge=gauge, published=[Level("theirs", 2.5)])
    assert (found["levels"]["text"], found["levels"]["value"].tolist()) == (["ten rates", "theirs"], [1.0, 2.5])


def test_a_level_at_a_step_is_a_point():
    published = [Level("theirs", 2.5), Level("theirs at step 1", 1.5, step=1), Level("far away", 1e4, step=2)]
    found = curve(measured(track(), "loss", range(3), float), published=published)
    assert found["levels"]["text"] == ["theirs"]
    assert (found["points"]["text"], found["points"]["step"].tolist(), found["points"]["value"].tolist()) == (
        ["theirs at step 1"],
        [1.0],
        [1.5],
    )
    assert found["about"]["text"] == ["far away: 10000, beyond this axis"]


@pytest.mark.parametrize(
    ("logarithmic", "near", "far"),
    [(False, [0.0, 3.0, 6.0, -6.0], [6.1, 1e4, -6.1]), (True, [0.1, 30.0, 1.0], [0.09, 31.0, 0.0, -1.0])],
)
def test_a_level_that_is_far_away_does_not_flatten_the_curve(logarithmic, near, far):
    gauge = Gauge("loss", levels=lambda knobs: [Level(str(value), value) for value in near + far])
    own = measured(track(), "loss", range(3), lambda step: step + 1)
    assert curve(own, gauge=gauge, logarithmic={gauge.name: logarithmic})["levels"]["value"].tolist() == near


@pytest.mark.parametrize(("logarithmic", "drawn_then"), [(False, [0.0, 1e4]), (True, [1e4])])
def test_before_anything_is_measured_levels_are_there_unless_a_logarithm_has_no_place_for_them(logarithmic, drawn_then):
    gauge = Gauge("loss", levels=lambda knobs: [Level("zero", 0.0), Level("high", 1e4)])
    assert curve(track(), gauge=gauge, logarithmic={gauge.name: logarithmic})["levels"]["value"].tolist() == drawn_then


def test_words_of_a_level_stand_where_there_is_room():
    gauge = Gauge("loss", levels=lambda knobs: [Level("top", 10.0), Level("bottom", 0.0)])
    found = curve(measured(track(), "loss", range(11), float), gauge=gauge)["levels"]
    assert found["shift"][0] > 0 > found["shift"][1]  # pixels, downwards


# Marks


def test_changes_of_a_knob_that_are_close_together_are_one_mark():
    changes = [Change(0, step, "lr", 0.1 * step, 0.1 * (step + 1)) for step in range(50, 55)] + [Change(0, 51, "qk_norm", False, True)]
    changes += [Change(0, 400, "lr", 0.5, 1e-5)]
    assert marks_of(track(changes=changes), 1000) == [(50, "lr 5 → 5.5"), (51, "qk_norm off → on"), (400, "lr 0.5 → 1e-5")]
    assert len(marks_of(track(changes=changes), 10)) == 7


def test_a_change_that_was_taken_back_keeps_its_mark_however_long_the_run():
    there_and_back = [Change(0, 5, "lr", 0.1, 0.5), Change(0, 6, "lr", 0.5, 0.1)]
    assert marks_of(track(changes=there_and_back), 1000) == [(5, "lr 0.1 → 0.5 → 0.1")]


def test_a_branch_marks_its_own_changes_and_where_it_diverged():
    own = track(start=10, seeds=(0, 1, 2), changes=[Change(0, 3, "lr", 0.1, 0.5), Change(0, 10, "lr", 0.5, 1)])
    own.diverged = np.array([25, -1, 12])
    assert marks_of(own, 100) == [(10, "lr 0.5 → 1"), (12, "diverged"), (25, "diverged")]


def test_words_of_marks_do_not_overlap_and_late_ones_stand_to_the_left():
    changes = [Change(0, step, f"knob_{step}", 1, 2) for step in (10, 20, 30, 80, 95)]
    own = measured(track(changes=changes), "loss", range(100), float)
    found = curve(own, now=50)
    assert found["marks"]["step"].tolist() == [10, 20, 30, 80, 95]
    assert found["marks"]["row"].tolist() == [0, 1, 2, 0, 1]
    assert found["marks"]["late"].tolist() == [False, False, False, True, True]
    assert found["now"]["step"].tolist() == [50]
    assert curve(own, until=25)["marks"]["step"].tolist() == [10, 20]


# Differences


def test_a_twin_differs_from_its_parent_step_by_step_and_seed_by_seed():
    root = measured(track(seeds=(0, 1)), "loss", range(8), lambda step: [step, 2.0 * step])
    twin = measured(track(2, seeds=(0, 1), start=3, parent=root), "loss", range(3, 6), lambda step: [step + 0.5, 2.0 * step - 1])
    found = difference_tables(Gauge("loss"), LOSS, shown(root, twin))
    assert lines_of(found["differences"]) == {"run 2, seed 0": ([3, 4, 5], [0.5] * 3), "run 2, seed 1": ([3, 4, 5], [-1.0] * 3)}
    assert found["zero"]["value"].tolist() == [0] and drawn.has_differences([root, twin]) and not drawn.has_differences([root])


def test_differences_are_where_both_were_measured():
    root = measured(track(), "loss", range(5), float)
    twin = measured(track(2, start=2, parent=root), "loss", range(2, 9), float)
    found = difference_tables(Gauge("loss"), LOSS, shown(root, twin))
    assert lines_of(found["differences"]) == {"run 2": ([2, 3, 4], [0, 0, 0])}


def test_differences_of_many_seeds_are_thinned():
    root = measured(track(seeds=range(16)), "loss", range(500), float)
    twins = [measured(track(n, seeds=range(16), start=0, parent=root), "loss", range(500), lambda step: step % 7) for n in range(2, 9)]
    assert len(difference_tables(Gauge("loss"), LOSS, shown(root, *twins))["differences"]["line"]) <= 16 * 7 * (drawn.LEAST + 2)


def test_what_is_true_or_false_has_differences_too():
    root = measured(track(), "is_on", range(3), lambda step: False)
    twin = measured(track(2, start=1, parent=root), "is_on", [1, 2], lambda step: step == 2)
    found = difference_tables(Gauge("is_on"), IS_ON, shown(root, twin))
    assert found["differences"]["value"].tolist() == [0, 1]


# Maps, pictures, histograms


def test_a_map_has_a_row_for_each_label_and_cells_up_to_the_next_measurement():
    own = measured(track(), "norm", [0, 10], lambda step: np.arange(6).reshape(2, 3) + step)
    cells = tables(Gauge("norm", "map"), NORM, shown(own))["cells"]
    assert cells["row"][:6] == [
        "layer 0, head a",
        "layer 0, head b",
        "layer 0, head c",
        "layer 1, head a",
        "layer 1, head b",
        "layer 1, head c",
    ]
    assert cells["value"].tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert cells["step"].tolist() == [0] * 6 + [10] * 6 and cells["next"].tolist() == [10] * 6 + [20] * 6


def test_a_long_map_has_few_cells_and_a_map_of_nothing_none():
    own = measured(track(), "norm", range(0, 50_000, 10), lambda step: step)
    assert len(tables(Gauge("norm", "map"), NORM, shown(own))["cells"]["row"]) <= drawn.CELLS
    assert len(tables(Gauge("norm", "map"), NORM, shown(track()))["cells"]["row"]) == 0


def pixels(url):
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))).convert("RGB"))


def test_pictures_are_pngs_of_whole_multiples_in_the_colours_of_the_ramp():
    own = measured(track(), "heads", [0, 10], lambda step: np.array([[0, 255, 0, 0], [step, 0, 0, 255]]))
    found = tables(Gauge("heads", "picture"), HEADS, shown(own))["pictures"]
    assert len(found["url"]) == 6
    image = pixels(found["url"][0])
    times = image.shape[0] // 2
    assert image.shape == (2 * times, 4 * times, 3) and times > 1
    small = image[::times, ::times]
    dark, bright = ([int(hue[i : i + 2], 16) for i in (1, 3, 5)] for hue in (drawn.ramp(256)[0], drawn.ramp(256)[-1]))
    assert small[0].tolist() == [dark, bright, dark, dark]
    assert small[1, 0].tolist() == [drawn.PALETTE[3 * 10 + i] for i in range(3)]
    assert (image == np.repeat(np.repeat(small, times, 0), times, 1)).all()


def test_pictures_of_layers_and_heads_stand_in_rows_and_columns_with_names():
    own = measured(track(), "heads", [0], lambda step: 0)
    found = tables(Gauge("heads", "picture"), HEADS, shown(own))
    left, top, size = (found["pictures"][name] for name in ("left", "top", "size"))
    assert left.tolist() == left[:3].tolist() * 2 and top.tolist() == [top[0]] * 3 + [top[3]] * 3
    assert np.diff(left[:3]).tolist() == [top[3]] * 2 and (size < top[3]).all()
    assert max(left + size) <= drawn.MARGIN + drawn.ACROSS and max(top + size) <= drawn.DOWN
    assert found["names"]["text"] == ["layer 0", "layer 1", "head a", "head b", "head c"]
    assert found["names"]["below"].tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (4, 8), (8, 2), (8, 8), (1, 30)])
def test_however_many_pictures_there_are_they_fit(layers, heads):
    own = measured(track(labels=dict(layer=range(layers), head=range(heads))), "heads", [0], lambda step: 0)
    found = tables(Gauge("heads", "picture"), HEADS, shown(own))
    places = found["pictures"]
    assert max(places["left"] + places["size"]) <= drawn.MARGIN + drawn.ACROSS and max(places["top"] + places["size"]) <= drawn.DOWN
    assert found["names"]["top"].max() <= drawn.DOWN + drawn.FOOT


def test_of_a_narrow_column_only_the_label_is_written():
    own = measured(track(labels=dict(layer=range(8), head=range(2))), "heads", [0], lambda step: 0)
    assert tables(Gauge("heads", "picture"), HEADS, shown(own))["names"]["text"][-3:] == ["layer 7", "0", "1"]


def test_samples_without_rows_stand_side_by_side():
    own = measured(track(), "digits", [0], lambda step: np.arange(24).reshape(3, 2, 4))
    found = tables(Gauge("digits", "picture"), DIGITS, shown(own))
    assert found["names"]["text"] == ["", "sample 0", "sample 1", "sample 2"] and len(set(found["pictures"]["url"])) == 3
    many = measured(track(labels=dict(sample=range(20))), "digits", [0], lambda step: 0)
    places = tables(Gauge("digits", "picture"), DIGITS, shown(many))["pictures"]
    assert len(set(places["left"])) == drawn.MOST_ACROSS and len(set(places["top"])) == 3


def test_a_picture_is_that_of_the_step_one_has_gone_back_to():
    own = measured(track(), "heads", [0, 10, 20], lambda step: 5 * step)
    newest, older = (
        pixels(tables(Gauge("heads", "picture"), HEADS, shown(own, now=now))["pictures"]["url"][0])[0, 0] for now in (None, 15)
    )
    assert newest.tolist() == drawn.PALETTE[300:303] and older.tolist() == drawn.PALETTE[150:153]
    empty = tables(Gauge("heads", "picture"), HEADS, shown(track()))
    assert empty["pictures"]["url"] == empty["names"]["text"] == []


def test_pictures_of_a_parent_with_fewer_heads_are_dark_where_there_are_none():
    root = measured(track(), "heads", [0], lambda step: 255)
    branch = track(2, start=1, parent=root, labels=dict(head=["a", "new"]))
    urls = tables(Gauge("heads", "picture"), HEADS, shown(branch))["pictures"]["url"]
    assert pixels(urls[0])[0, 0].tolist() == drawn.PALETTE[-3:] and pixels(urls[1])[0, 0].tolist() == drawn.PALETTE[:3]


def test_shares_of_a_histogram_sum_to_one_in_bins_that_all_tracks_share():
    a = measured(track(seeds=(0, 1)), "norm", [0, 10], lambda step: np.arange(6).reshape(2, 3) + step)
    b = measured(track(2), "norm", [0], lambda step: [[0, 0, 0], [0, 100, np.nan]])
    bars = tables(Gauge("norm", "histogram"), NORM, shown(a, b))["bars"]
    for edges, shares in lines_of({**bars, "step": bars["low"]}, "share").values():
        assert sum(shares) == pytest.approx(1) and shares[-1] == 0
        assert edges[0] == 0 and edges[-1] == 100 and len(edges) == drawn.BINS + 1
    assert lines_of({**bars, "step": bars["low"]}, "share")["run 2"][1][0] == pytest.approx(4 / 5)


def test_a_histogram_of_nothing_has_no_bars_and_bytes_are_shares():
    assert len(tables(Gauge("norm", "histogram"), NORM, shown(track()))["bars"]["low"]) == 0
    own = measured(track(), "heads", [0], lambda step: [[0, 255, 0, 0]] * 2)
    bars = tables(Gauge("heads", "histogram"), HEADS, shown(own))["bars"]
    assert bars["low"][-1] == 1 and bars["share"][0] == 0.75


# Charts


def named(spec, data=""):
    """All pairs of the name of data and a field drawn from them."""
    data = spec.get("data", {}).get("name", data)
    found = {(data, channel["field"]) for channel in spec.get("encoding", {}).values() if "field" in channel}
    return found.union(*(named(layer, data) for layer in spec.get("layer", ())))


@pytest.mark.parametrize(("gauge", "variable"), GAUGES, ids=lambda value: value.name)
@pytest.mark.parametrize("logarithmic", [True, False])
def test_every_chart_is_valid_and_its_tables_have_its_fields(gauge, variable, logarithmic):
    root = measured(track(), variable.name, [0, 10, 20], lambda step: step + 1)
    twin = measured(track(2, start=20, parent=root), variable.name, [20], lambda step: 2)
    spec = chart(gauge, variable, logarithmic=logarithmic).to_dict()
    found = tables(gauge, variable, shown(root, twin, logarithmic={gauge.name: logarithmic}))
    assert named(spec) and all(field in found[data] for data, field in named(spec))
    assert "datasets" not in spec and variable.attrs["long_name"] in spec["description"]
    for table in found.values():
        assert len({len(column) for column in table.values()}) == 1
        assert all(isinstance(column, np.ndarray) or all(isinstance(word, str) for word in column) for column in table.values())


@pytest.mark.parametrize(("gauge", "variable"), [pair for pair in GAUGES if pair[0].kind in ("curve", "map")], ids=lambda value: value.name)
def test_what_has_steps_ends_at_the_last_one(gauge, variable):
    specs = [chart(gauge, variable).to_dict()] + ([difference_chart(gauge, variable).to_dict()] if gauge.kind == "curve" else [])
    for spec in specs:
        assert [p["value"] for p in spec["params"] if p["name"] == "last"] == [1]
        assert '"domainMax": {"expr": "last"}' in json.dumps(spec)


def test_a_strip_of_differences_has_its_tables():
    root = measured(track(), "loss", range(3), float)
    twin = measured(track(2, start=1, parent=root), "loss", [1, 2], float)
    spec, found = difference_chart(Gauge("loss"), LOSS).to_dict(), difference_tables(Gauge("loss"), LOSS, shown(root, twin))
    assert all(field in found[data] for data, field in named(spec)) and {data for data, _ in named(spec)} == {"differences", "zero"}


@pytest.mark.parametrize(("gauge", "variable"), GAUGES, ids=lambda value: value.name)
def test_charts_are_painted_from_their_tables_and_from_none(gauge, variable):
    vl_convert, version = pytest.importorskip("vl_convert"), ".".join(drawn.alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    own = measured(track(seeds=(0, 1)), variable.name, [0, 10, 20], lambda step: step + 1)
    spec = chart(gauge, variable).to_dict() | ({} if gauge.kind == "picture" else {"width": 300})
    for seen in (shown(own), shown(track())):
        rows = {name: rows_of(table) for name, table in tables(gauge, variable, seen).items()}
        svg = re.sub('aria-label="[^"]*"', "", vl_convert.vegalite_to_svg(json.dumps(spec | {"datasets": rows}), vl_version=version))
        assert "NaN" not in svg and "undefined" not in svg
        assert ("data:image/png" in svg) == (gauge.kind == "picture" and seen.tracks[0] is own)


def rows_of(table):
    columns = {name: np.asarray(column).tolist() for name, column in table.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_a_title_has_units_and_colours_follow_the_number_of_the_track():
    assert drawn.axis_title(Gauge("loss"), LOSS) == "Training loss [nat]"
    assert drawn.axis_title(Gauge("norm", title="smallest norm"), NORM) == "smallest norm"
    assert [drawn.colour(track(n)) for n in (1, 2, 9)] == [drawn.CATEGORIES[0], drawn.CATEGORIES[1], drawn.CATEGORIES[0]]


def test_a_study_without_gauges_has_a_curve_for_each_variable_a_hidden_map_and_pictures():
    found = default_gauges([LOSS, NORM, DIGITS])
    assert [(gauge.name, gauge.shown) for gauge in found] == [
        ("loss-curve", True),
        ("norm-curve", True),
        ("norm-map", False),
        ("digits-picture", True),
    ]
