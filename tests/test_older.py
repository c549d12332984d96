"""Records of earlier versions, as they are opened now."""

import json

import numpy as np
import pytest
import xarray as xr

import workbench as wb
from workbench.older import brought_up
from workbench.record import timeline, with_nodes
from workbench.schema import Change


def older(record: xr.DataTree, **places: bool) -> xr.DataTree:
    """A record as it was when a place of rounding was on or off, and changed in mid-run."""
    coords = {f"round_{name}": ("run", np.full(record.sizes["run"], is_on), {"units": "1"}) for name, is_on in places.items()}
    changes = timeline([Change(0, 3, "round_weights", False, True, parent=-1), Change(0, 4, "lr", 0.1, 0.2, parent=-1)])
    return with_nodes(record, **{"/": record.to_dataset().assign_coords(coords), "timeline": changes})


@pytest.fixture
def record():
    return wb.run("entropy_collapse", steps=2, seed=(0, 1), width=16, depth=1, batch=2, probes=("train_loss",), progress=False)


def test_places_that_were_on_or_off_have_the_name_of_a_format(record, tmp_path):
    wb.save(older(record, weights=True, gradients=False), tmp_path / "older.nc")
    opened = wb.open(tmp_path / "older.nc")
    assert opened["round_weights"].values.tolist() == ["bits", "bits"] and opened["round_gradients"].values.tolist() == ["no", "no"]
    assert opened["round_weights"].attrs["units"] == "1"
    changes = opened["timeline"]
    assert [json.loads(text) for text in changes["old"].values] == ["no", 0.1] and json.loads(changes["new"].values[0]) == "bits"


def test_what_is_of_today_stays_as_it_is(record):
    assert brought_up(record) is record


def test_a_shipped_record_of_then_can_be_forked():
    parent, child = wb.fork(wb.open("entropy_collapse"), run=0, step=2, steps=4, lr=1e-3)
    assert parent["round_weights"].item() == "no" and child["lr"].item() == 1e-3
