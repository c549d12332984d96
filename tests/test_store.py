"""Growing records: written by region, readable at any moment."""

import sys

import numpy as np
import pytest
import xarray as xr
from learners_for_tests import parabola, perceptron, student

import workbench as wb
from workbench.engine import Kept, plan, run, stream
from workbench.record import blank, fill
from workbench.schema import Slab
from workbench.store import RUNS_PER_CHUNK, STEPS_PER_CHUNK, Store, partial_path


def growing(study, path, steps=300, **axes):
    """Record and store of a run, after each item of its stream."""
    ready = plan(study, wb.grid(**axes).rows(study.knobs), steps, mode="loop")
    record = blank(ready.schema)
    store = Store(record, partial_path(path))
    for item in stream(ready):
        fill(record, item)
        store.note(item)
        yield record, store, item


def assert_same(a, b):
    for name, node in a.children.items():
        xr.testing.assert_equal(node.to_dataset(inherit=False), b[name].to_dataset(inherit=False))


def test_the_store_of_a_record_lies_beside_it(tmp_path):
    assert partial_path(tmp_path / "x.nc") == tmp_path / "x.nc.partial.zarr"


def test_a_store_can_be_read_while_it_grows_and_holds_what_was_flushed(tmp_path):
    path, checked = tmp_path / "x.nc", 0
    for record, store, item in growing(student, path, lr=[0.1, 0.2], width=[2, 3]):
        before = record.copy(deep=True)
        store.flush()
        if isinstance(item, Slab) and (checked := checked + 1) % 5 == 1:
            opened = wb.open(path)
            assert_same(before, opened)
            assert opened.attrs["steps"] == 300
    assert checked > 5
    done = wb.open(path)
    assert (done["events"]["steps_done"] == 300).all() and done.wb["loss"].notnull().all()
    assert done.wb["distance"]["task"].values.tolist() == ["first", "second"] and (done["every_1"]["phase"].values[-1] == "second")


def test_flushing_now_and_then_is_flushing_always(tmp_path):
    """Regions of several slabs, across the borders of the stored chunks."""
    for n, made in enumerate(growing(parabola, tmp_path / "x.nc", steps=2 * STEPS_PER_CHUNK + 77, seed=range(3))):
        record, store, _item = made
        if n % 7 == 6:
            store.flush()
    store.flush()
    assert_same(record, wb.open(tmp_path / "x.nc"))
    assert not store.behind


def test_before_the_first_flush_the_blank_record_is_there(tmp_path):
    next(growing(parabola, tmp_path / "x.nc"))
    opened = wb.open(tmp_path / "x.nc")
    assert opened.wb["weight"].isnull().all() and opened["events"]["steps_done"].item() == 0


def test_a_flush_writes_only_the_chunks_that_changed(tmp_path):
    record, store, _item = next(growing(parabola, tmp_path / "x.nc", steps=1000, seed=range(RUNS_PER_CHUNK + 5)))
    store.flush()
    record["every_1"].dataset["weight"].values[:] = 5.0
    last = RUNS_PER_CHUNK + 1
    store.note(Slab((last,), 1, range(STEPS_PER_CHUNK - 5, STEPS_PER_CHUNK + 5), {}, {}))
    store.flush()
    written = wb.open(tmp_path / "x.nc").wb["weight"].values == 5.0
    assert written[RUNS_PER_CHUNK:, : 2 * STEPS_PER_CHUNK].all() and written.sum() == 5 * 2 * STEPS_PER_CHUNK


def test_a_finished_run_leaves_the_record_alone(tmp_path):
    record = run(perceptron, steps=12, seed=[0, 1], out=tmp_path / "x.nc")
    assert [file.name for file in tmp_path.iterdir()] == ["x.nc"]
    assert_same(record, wb.open(tmp_path / "x.nc"))
    assert record.encoding["source"] == str(tmp_path / "x.nc")


def test_an_interrupted_run_returns_and_keeps_what_was_measured(tmp_path, monkeypatch):
    def interrupted(ready, **settings):
        for item in stream(ready, **settings):
            yield item
            if not isinstance(item, Kept) and getattr(item, "done", 0) >= 10:
                raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["workbench.engine.run"], "stream", interrupted)
    with pytest.warns(
        UserWarning, match=r"Interrupted after 10 of 400 steps; what was measured is returned; it stands in .*x\.nc\.partial\.zarr"
    ):
        record = run(parabola, steps=400, out=tmp_path / "x.nc")
    assert record.attrs["interrupted"] == 1 and np.isfinite(record.wb["weight"].values[0, :10]).all()
    assert_same(record, wb.open(tmp_path / "x.nc"))
