"""The records that ship with the studies: whole, of the present source, and judged as they stand."""

import hashlib
import importlib
import json
from pathlib import Path

import pytest

import workbench as wb
from workbench import places
from workbench.catalogue import find
from workbench.claim import judge

LISTED = json.loads((places.datasets() / "MANIFEST.json").read_text(encoding="utf-8"))["records"]
MOST_BYTES, WITH_PICTURES = 300_000, 1_000_000

pytestmark = pytest.mark.parametrize("name", LISTED)


def test_a_record_is_the_listed_one_and_small(name):
    content = (places.datasets() / LISTED[name]["file"]).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (LISTED[name]["bytes"], LISTED[name]["sha256"])
    shows = any({"y", "x"} <= set(node.dims) for node in wb.open(name).subtree)
    assert len(content) <= (WITH_PICTURES if shows else MOST_BYTES)


def test_a_record_is_that_of_its_source_and_of_its_full_budget(name):
    record, full = wb.open(name), find(name).budgets["full"]
    source = Path(importlib.import_module(f"workbench.studies.{name}").__file__).read_bytes()
    assert record.attrs["source_sha256"] == hashlib.sha256(source).hexdigest(), f"run workbench rebuild {name}"
    assert record.sizes["run"] == len(full.design.rows(find(name).knobs))
    ended = record["events"]["diverged_step"].notnull().values
    assert (record["events"]["steps_done"].values[~ended] == full.steps).all() and record.attrs["steps"] == full.steps


def test_verdicts_follow_from_the_record(name):
    record = wb.open(name)
    assert json.loads(record.attrs["claims"]) == LISTED[name]["claims"]
    for verdict, listed in zip([judge(claim, record).as_dict() for claim in find(name).claims], LISTED[name]["claims"], strict=True):
        numbers = {key: listed[key] for key in ("mean", "low", "high")}
        assert {**verdict, **numbers} == listed
        for key, value in numbers.items():
            assert verdict[key] == (value if value is None else pytest.approx(value, rel=1e-6, abs=1e-12))
