"""Records: made blank, filled by label, saved, opened, read as curves and hypercubes."""

import json

import numpy as np
import pytest
import xarray as xr

import workbench as wb
from workbench.claim import Claim
from workbench.design import axes, grid
from workbench.errors import InputError
from workbench.knobs import Knobs, at_least, knob, specs
from workbench.record import blank, fill, save, timeline, with_claims, with_events, with_nodes
from workbench.schema import Change, Progress, Schema, Slab, Variable, ticks
from workbench.study import Event


class Settings(Knobs):
    lr: float = knob(0.1, 1e-3, 1.0, log=True, doc="learning rate")
    depth: int = knob(2, 1, 4, valid=at_least(1), units="block", doc="blocks")
    norm: bool = knob(False, doc="normalized")
    data: str = knob("text", doc="data")


ATTRS = {"long_name": "Loss", "units": "nat", "cost": "free"}


def schema(rows, stop=25, start=0, phases=(("train", 0),)):
    variables = [
        Variable("loss", 1, (), "float32", ATTRS),
        Variable("entropy", 10, ("layer", "head"), "float32", ATTRS),
        Variable("picture", 10, ("y", "x"), "uint8", ATTRS),
    ]
    labels = dict(layer=[0, 1], head=["a", "b", "c"], y=[0, 1], x=[0, 1])
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in specs(Settings).items()}
    return Schema(rows, columns, variables, labels, phases, start, stop, attrs={"study": "none"})


def rows(**given):
    return grid(**given).rows(Settings)


@pytest.fixture
def record():
    """lr x seed, loss = 100 lr + seed + step."""
    made = blank(schema(rows(lr=[0.1, 0.2], seed=[0, 1, 2])))
    lr, seed = made["lr"].values[:, None], made["seed"].values[:, None]
    fill(made, Slab(range(6), 1, range(26), dict(loss=100 * lr + seed + np.arange(26)), {}))
    fill(made, Progress(range(6), 25, (-1, -1, 7, -1, -1, -1)))
    return made


# Blank


def test_a_blank_record_has_its_final_shape_and_no_numbers():
    made = blank(schema(rows(lr=[0.1, 0.2])))
    assert set(made.children) == {"every_1", "every_10", "events", "timeline"}
    loss, entropy = made.wb["loss"], made.wb["entropy"]
    assert loss.shape == (2, 26) and loss.isnull().all() and loss.dtype == "float32"
    assert entropy.dims == ("run", "step", "layer", "head") and entropy["step"].values.tolist() == [0, 10, 20, 25]
    assert made.wb["picture"].dtype == "uint8" and not made.wb["picture"].any()
    assert made["events"]["steps_done"].values.tolist() == [0, 0] and made["events"]["diverged_step"].isnull().all()
    assert (made.attrs["steps"], made.attrs["study"]) == (25, "none")


def test_knobs_and_dimensions_carry_units_and_long_names():
    made = blank(schema(rows()))
    assert (made["lr"].attrs, made["depth"].attrs) == (
        {"units": "1", "long_name": "learning rate"},
        {"units": "block", "long_name": "blocks"},
    )
    entropy = made.wb["entropy"]
    assert entropy.attrs == ATTRS
    assert entropy["step"].attrs == {"long_name": "updates made so far", "units": "step"}
    assert entropy["head"].attrs == {"long_name": "attention head"} and entropy["head"].values.tolist() == ["a", "b", "c"]
    assert set(axes(Settings)) == set(made.wb.knobs)


def test_a_fork_starts_later():
    made = blank(schema(rows(), start=15))
    assert made["every_1"]["step"].values.tolist() == ticks(1, 15, 25) == list(range(15, 26))
    assert made["every_10"]["step"].values.tolist() == [20, 25]
    assert made["events"]["steps_done"].item() == 15


def test_several_phases_are_a_coordinate_of_the_steps():
    made = blank(schema(rows(), phases=(("first", 0), ("second", 12))))
    assert made["every_10"]["phase"].values.tolist() == ["first", "first", "second", "second"]
    assert made["every_1"]["phase"].values.tolist() == ["first"] * 12 + ["second"] * 14
    assert "phase" not in blank(schema(rows()))["every_1"].coords


# Filling


def test_slabs_land_by_run_step_and_label():
    made = blank(schema(rows(lr=[0.1, 0.2, 0.3])))
    values = np.arange(2 * 2 * 1 * 3, dtype=float).reshape(2, 2, 1, 3)
    fill(made, Slab((2, 0), 10, (10, 20), dict(entropy=values), dict(layer=[1], head=["c", "a", "b"])))
    entropy = made.wb["entropy"]
    assert entropy.sel(run=2, layer=1).sel(step=10).sel(head=["c", "a", "b"]).values.tolist() == [0, 1, 2]
    assert entropy.sel(run=0, layer=1).sel(step=20).sel(head=["c", "a", "b"]).values.tolist() == [9, 10, 11]
    assert int(entropy.notnull().sum()) == values.size


def test_progress_fills_the_events():
    made = blank(schema(rows(lr=[0.1, 0.2, 0.3])))
    fill(made, Progress((0, 2), 10, (-1, 4)))
    assert made["events"]["steps_done"].values.tolist() == [10, 0, 10]
    np.testing.assert_array_equal(made["events"]["diverged_step"], [np.nan, np.nan, 4])


def test_events_and_nodes_are_added_to_a_copy(record):
    event = Event("last", lambda r: r.wb["loss"].isel(step=-1), "nat", "last loss")
    more = with_events(record, [event])
    assert "last" not in record["events"] and more["events"]["last"].values.tolist() == record.wb["loss"].values[:, -1].tolist()
    assert more["events"]["last"].attrs == {"long_name": "last loss", "units": "nat"}
    assert with_nodes(more).identical(more)


def test_verdicts_are_an_attribute_and_undecided_where_runs_are_missing(record):
    def last(r):
        return r.wb.where(lr=0.2).wb.cube("loss", "seed").isel(step=-1)

    def missing(r):
        return r.wb.where(lr=0.7).wb["loss"]

    found = json.loads(with_claims(record, [Claim("slug", "said", fn, 0.0, "source", "seed") for fn in (last, missing)]).attrs["claims"])
    assert [(verdict["n"], verdict["status"], verdict["mean"]) for verdict in found] == [(3, "undecided", 46.0), (0, "undecided", None)]


def test_the_timeline_lists_changes_as_json():
    node = timeline([Change(0, 5, "norm", False, True, 3), Change(1, 7, "lr", 0.1, 1e-3)])
    assert [json.loads(text) for text in node["new"].values] == [True, 0.001]
    assert (node["at_step"].values.tolist(), node["parent"].values.tolist()) == ([5, 7], [3, -1])
    assert all(node[name].attrs["long_name"] for name in node)


# Saving


def test_a_record_that_is_saved_and_opened_is_the_same(record, tmp_path):
    record.attrs |= {"seconds": 1.5, "versions": json.dumps({"a": "1"}), "threads": 2, "text": "“quoted” <b>"}
    path = save(record, tmp_path / "deep" / "er" / "made.nc")
    opened = wb.open(path)
    for name, node in record.children.items():
        xr.testing.assert_identical(opened[name].to_dataset(inherit=False), node.to_dataset(inherit=False))
    xr.testing.assert_equal(opened.to_dataset(), record.to_dataset())
    assert {name: value.item() if hasattr(value, "item") else value for name, value in opened.attrs.items()} == record.attrs
    assert [file.name for file in path.parent.iterdir()] == ["made.nc"]


def test_a_knob_that_all_runs_share_is_written_once(record, tmp_path):
    save(record, tmp_path / "x.nc")
    stored, varied = xr.open_datatree(tmp_path / "x.nc").to_dataset(), record.wb.varied
    assert {name for name, knob in stored.coords.items() if knob.dims} == {"run", *varied}
    assert {name: knob.item() for name, knob in stored.coords.items() if not knob.dims} == {
        name: record[name].values[0] for name in record.wb.knobs if name not in varied
    }
    alone = record.wb.where(**{name: record[name].values[0] for name in varied})
    assert alone.sizes["run"] == 1
    save(alone, tmp_path / "alone.nc")
    xr.testing.assert_identical(wb.open(tmp_path / "alone.nc").to_dataset(), alone.to_dataset())


def test_rounding_keeps_four_digits_of_curves_and_all_of_everything_else(tmp_path):
    made = blank(schema(rows(lr=[1 / 3, 0.1], seed=range(40)), stop=999))
    rng = np.random.default_rng(0)
    exact = (10.0 ** rng.uniform(-20, 20, (80, 1000)) * rng.choice([-1, 1], (80, 1000))).astype("float32")
    exact[3, 500:] = np.nan
    fill(made, Slab(range(80), 1, range(1000), dict(loss=exact), {}))
    made["events"].dataset["diverged_step"].values[:] = 1 / 3
    full, small = save(made, tmp_path / "full.nc"), save(made, tmp_path / "small.nc", rounded=True)
    opened = wb.open(small)
    kept = opened.wb["loss"].values
    error = np.abs(kept / exact.astype(float) - 1)[np.isfinite(exact)]
    assert 0 < error.max() < 5e-4
    np.testing.assert_array_equal(np.isnan(kept), np.isnan(exact))
    assert small.stat().st_size < 0.75 * full.stat().st_size
    assert opened["lr"].values[0] == 1 / 3 and opened["events"]["diverged_step"].values[0] == 1 / 3
    np.testing.assert_array_equal(wb.open(full).wb["loss"], exact)


def test_rounding_leaves_infinities_as_they_are(tmp_path):
    made = blank(schema(rows(lr=[0.1], seed=range(40)), stop=999))
    exact = np.random.default_rng(0).uniform(1, 2, (40, 1000)).astype("float32")
    exact[:3, 500:] = np.array([[np.inf], [-np.inf], [np.nan]])
    fill(made, Slab(range(40), 1, range(1000), dict(loss=exact), {}))
    kept = wb.open(save(made, tmp_path / "made.nc", rounded=True)).wb["loss"].values
    np.testing.assert_array_equal(kept[:3, 500:], exact[:3, 500:])
    assert 0 < np.abs(kept[3:] / exact[3:] - 1).max() < 2e-4


def test_nothing_is_overwritten_unless_asked(record, tmp_path):
    path = save(record, tmp_path / "made.nc")
    with pytest.raises(InputError, match="exists; give another name, or replace it with overwrite=True"):
        save(record, path)
    record.attrs["study"] = "other"
    assert wb.open(save(record, path, overwrite=True)).attrs["study"] == "other"


# Reading


def test_a_variable_comes_with_knobs_units_and_dimensions(record):
    loss = record.wb["loss"]
    assert loss.dims == ("run", "step") and loss.attrs["units"] == "nat"
    assert loss["lr"].dims == ("run",) and set(record.wb.knobs) <= set(loss.coords)
    assert record.wb["diverged_step"].dims == ("run",)
    assert "loss" in record.wb and "lr" not in record.wb


def test_what_varies_and_what_there_is(record):
    assert record.wb.varied == ["seed", "lr"]
    assert record.wb.knobs == ["seed", "lr", "depth", "norm", "data"]
    assert record.wb.variables == ["loss", "entropy", "picture", "steps_done", "diverged_step"]
    table = record.wb.runs
    assert len(table) == 6 and {"seed", "lr", "diverged_step"} <= set(table.columns) and "depth" not in table.columns


@pytest.mark.parametrize("order", [("lr", "seed"), ("seed", "lr")])
def test_a_cube_has_one_dimension_a_knob(record, order):
    cube = record.wb.cube("loss", *order)
    assert set(cube.dims) == {"step", *order}
    assert cube.sel(lr=0.2, seed=2, step=3).item() == pytest.approx(20 + 2 + 3)
    assert cube["depth"].item() == 2 and cube.attrs["units"] == "nat"


def test_a_cube_of_one_knob(record):
    cube = record.wb.where(seed=1).wb.cube("loss", "lr")
    assert cube.dims == ("lr", "step") and cube.sel(lr=0.1, step=0).item() == pytest.approx(11)


def test_a_cube_of_an_event(record):
    assert record.wb.cube("diverged_step", "lr", "seed").sel(lr=0.1, seed=2).item() == 7


def test_a_cube_where_runs_are_missing_has_gaps():
    made = blank(schema((grid(lr=[0.1, 0.2], seed=0) + grid(lr=0.1, seed=1)).rows(Settings)))
    fill(made, Slab(range(3), 1, range(26), dict(loss=np.ones((3, 26))), {}))
    assert made.wb.cube("loss", "lr", "seed").isel(step=0).notnull().sum().item() == 3


def test_a_part_of_a_record_is_a_record(record):
    part = record.wb.where(lr=0.2, seed=[0, 2])
    assert part["run"].values.tolist() == [3, 5] and part.wb["loss"].sizes["run"] == 2
    assert part.attrs == record.attrs and set(part.children) == set(record.children)
    assert record.wb.where(norm=False, data="text").sizes["run"] == 6


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda r: r.wb["los"], "There is no variable 'los'; did you mean 'loss'"),
        (lambda r: r.wb.cube("los", "lr", "seed"), "There is no variable 'los'"),
        (lambda r: r.wb.cube("loss", "lr", "sead"), "There is no knob 'sead'; did you mean 'seed'"),
        (
            lambda r: r.wb.cube("loss", "lr"),
            r"Knob 'seed' varies too; add it to the axes or choose a value with record.wb.where\(seed=...\)",
        ),
        (lambda r: r.wb.where(ir=0.1), "There is no knob 'ir'; did you mean 'lr'"),
        (lambda r: r.wb.where(lr=0.7), "No run has lr = 0.7; see record.wb.runs"),
    ],
)
def test_what_is_not_there_is_said(record, ask, sentence):
    with pytest.raises(InputError, match=sentence):
        ask(record)
