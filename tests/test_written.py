"""The record of an experiment: that of the same runs made at once, and what only an experiment has."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments_for_tests import (
    advanced,
    all_of,
    assert_same_curves,
    assert_same_runs,
    begun,
    in_layout,
    pictured,
    travelled,
    watched,
)
from learners_for_tests import parabola, student
from learners_for_tests import transformer as decoder

import workbench as wb
from workbench.engine.written import record_of
from workbench.errors import InputError
from workbench.events import final_loss, loss_exceeded_step
from workbench.probes import train_loss
from workbench.study import Event


@pytest.mark.parametrize("updates", [20, 25])
def test_the_record_is_that_of_a_run_with_the_same_knobs(updates):
    settings = dict(lr=0.03, schedule="cosine", horizon=40, warmup=5, qk_norm=True)
    record = record_of(begun(decoder, updates, (3,), settings))
    run = wb.run(decoder, seed=3, steps=updates, mode="loop", **settings)
    assert_same_runs(record, run)
    assert set(record.wb.variables) == set(run.wb.variables)
    for name in run.children:
        if name != "timeline":
            assert record[name].to_dataset(inherit=False).drop_attrs().equals(run[name].to_dataset(inherit=False).drop_attrs())
    for name in (*run.wb.knobs, *run.wb.variables):
        ours, theirs = ((tree[name] if name in tree.coords else tree.wb[name]) for tree in (record, run))
        assert ours.attrs == theirs.attrs and ours.dtype == theirs.dtype
    assert set(run.attrs) - set(record.attrs) <= {"seconds", "memory_budget"}


def test_recording_changes_nothing():
    experiment, alone = begun(decoder, 13), begun(decoder, 20)
    before = all_of(experiment)
    record_of(experiment)
    assert all_of(experiment) == before and torch.is_grad_enabled()
    assert_same_curves(advanced(experiment, 7).track, alone.track)


@pytest.mark.parametrize("study", [parabola, student, watched])
def test_the_record_of_an_experiment_that_has_not_begun_is_blank(study):
    record = record_of(begun(study, steps=30))
    assert record["events"]["steps_done"].values.tolist() == [0] and record["run"].values.tolist() == [0]
    assert all(np.isnan(record.wb[p.name]).all() for p in study.probes)


def test_a_branch_in_the_record_is_the_child_of_a_fork():
    knobs = dict(lr=0.03, horizon=30, schedule="linear")
    record = wb.run(decoder, steps=30, seed=2, mode="loop", **knobs)
    parent, child = wb.fork(record, 0, 17, study=decoder, qk_norm=True, lr=0.01)
    experiment = begun(decoder, 30, (2,), knobs)
    travelled(experiment, 17)
    experiment.change(qk_norm=True, lr=0.01)
    ours = record_of(advanced(experiment, 13))
    assert ours["branch"].values.tolist() == ["run 1", "branch 2"]
    assert_same_runs(ours, record)
    for place, theirs in ((0, parent), (1, child)):
        for name in (p.name for p in decoder.probes):
            np.testing.assert_array_equal(ours.wb[name].sel(run=place, step=slice(17, None)), theirs.wb[name][0])
    timeline = ours["timeline"].to_dataset()
    assert set(zip(timeline["knob"].values, timeline["new"].values, strict=True)) == {("qk_norm", "true"), ("lr", "0.01")}
    assert set(timeline["parent"].values) == {0} and set(timeline["changed_run"].values) == {1} and set(timeline["at_step"].values) == {17}


def test_a_record_is_saved_opened_and_forked(tmp_path, monkeypatch):
    in_layout(monkeypatch, "lanes")
    experiment = begun(decoder, 12, (0, 1), dict(lr=0.03))
    experiment.twin(optimizer="sgd", lr=0.1)
    advanced(experiment, 6)
    experiment.change(lr=0.2)
    advanced(experiment, 4)
    wb.save(record_of(experiment), tmp_path / "experiment.nc")
    record = wb.open(tmp_path / "experiment.nc")
    assert record["run"].values.tolist() == [0, 1, 2, 3] and record["seed"].values.tolist() == [0, 1, 0, 1]
    assert record.wb.varied == ["seed", "branch"]
    for run, step in ((1, 5), (0, 14), (3, 18), (2, 21)):
        parent, child = wb.fork(record, run, step, study=decoder)
        assert max(json.loads(parent.attrs["deviation"]).values()) < 1e-4
        np.testing.assert_array_equal(parent.wb["train_loss"], child.wb["train_loss"])


def test_one_seed_is_forked_without_deviation():
    experiment = begun(decoder, 12, knobs=dict(lr=0.03))
    experiment.twin(optimizer="sgd", lr=0.1)
    advanced(experiment, 8)
    record = record_of(experiment)
    for run, step in ((0, 3), (1, 12), (1, 15)):
        parent, _ = wb.fork(record, run, step, study=decoder)
        assert set(json.loads(parent.attrs["deviation"]).values()) == {0.0}


def test_a_fork_before_a_later_change_of_the_parent_is_refused_and_can_be_made_up_to_it():
    experiment = begun(parabola, 5)
    experiment.change(lr=0.5)
    record = record_of(advanced(experiment, 5))
    sentence = "Knob 'lr' of run 0 was changed at step 5, after the fork at step 3; fork at that step or later, or up to it with steps=5"
    with pytest.raises(InputError, match=sentence):
        wb.fork(record, 0, 3, study=parabola)
    with pytest.raises(InputError, match=sentence):
        wb.fork(record, 0, 3, study=parabola, steps=6)
    parent, _ = wb.fork(record, 0, 3, study=parabola, steps=5)
    np.testing.assert_allclose(parent.wb["weight"][0], 0.9 ** np.arange(3, 6), rtol=1e-6)
    for step in (5, 7):
        parent, _ = wb.fork(record, 0, step, study=parabola)
        np.testing.assert_allclose(parent.wb["weight"][0], 0.9**5 * 0.5 ** np.arange(step - 5, 6), rtol=1e-6)


def test_a_twin_changed_at_step_0_has_its_own_coordinate():
    experiment = begun(parabola)
    experiment.twin(lr=0.5)
    record = record_of(advanced(experiment, 5))
    assert record["lr"].values.tolist() == [0.1, 0.5]
    np.testing.assert_allclose(record.wb.where(lr=0.5).wb["weight"][0], 0.5 ** np.arange(6), rtol=1e-6)
    parent, _ = wb.fork(record, 1, 2, study=parabola)
    assert set(json.loads(parent.attrs["deviation"]).values()) == {0.0}


def test_branches_that_stand_at_different_steps_are_in_one_record():
    experiment = begun(parabola, 12)
    travelled(experiment, 4)
    experiment.change(lr=0.5)
    advanced(experiment, 3)
    experiment.change(lr=0.2)
    record = record_of(experiment)
    np.testing.assert_allclose(record.wb["weight"][0], 0.9 ** np.arange(13), rtol=1e-6)
    np.testing.assert_allclose(record.wb["weight"][1], [*0.9 ** np.arange(5), *0.9**4 * 0.5 ** np.arange(1, 4), *[np.nan] * 5], rtol=1e-6)
    assert record["events"]["steps_done"].values.tolist() == [12, 7]
    assert record["timeline"]["at_step"].values.tolist() == [4, 7] and record["timeline"]["parent"].values.tolist() == [0, -1]


def test_nets_of_other_depth_are_in_one_record(tmp_path):
    experiment = begun(watched, 10)
    experiment.change(depth=2)
    record = record_of(advanced(experiment, 15))
    assert record["depth"].values.tolist() == [1, 2] and record["timeline"].sizes["change"] == 0
    for place, depth in ((0, 1), (1, 2)):
        run = wb.run(watched, depth=depth, seed=0, steps=15, mode="loop", horizon=1000)
        for name in ("train_loss", "weight_norm_total", "tensor_norm", "attention_entropy"):
            theirs = run.wb[name].isel(run=0).sel(step=slice(None, 15 if place else 9))
            dims = {dim: theirs[dim] for dim in theirs.dims}
            np.testing.assert_array_equal(record.wb[name].sel(run=place, **dims), theirs)
    assert np.isnan(record.wb["attention_entropy"].sel(run=0, layer=1)).all()
    wb.save(record, tmp_path / "experiment.nc")
    parent, _ = wb.fork(wb.open(tmp_path / "experiment.nc"), 1, 7, study=watched, lr=0.05)
    assert set(json.loads(parent.attrs["deviation"]).values()) == {0.0}


@pytest.mark.parametrize("updates", [1, 2, 5])
def test_the_record_of_a_diverged_run_is_that_of_a_run(updates):
    record = record_of(begun(parabola, updates, knobs=dict(lr=1e30)))
    run = wb.run(parabola, lr=1e30, steps=updates, seed=0, mode="loop")
    assert record["events"]["diverged_step"].item() == 1
    done = slice(None, record["events"]["steps_done"].item())
    for name in ("loss", "weight"):
        np.testing.assert_array_equal(record.wb[name][0], run.wb[name].sel(step=done)[0])


def test_a_branch_that_diverged_is_forked_before_it_did():
    experiment = begun(parabola, 5)
    experiment.twin(lr=1e30)
    record = record_of(advanced(experiment, 10))
    np.testing.assert_array_equal(record["events"]["diverged_step"], [np.nan, 6])
    assert np.isnan(record.wb["loss"][1, 6:]).all() and np.isfinite(record.wb["loss"][0]).all()
    _, child = wb.fork(record, 1, 5, study=parabola, lr=0.5)
    np.testing.assert_allclose(child.wb["weight"][0], 0.9**5 * 0.5 ** np.arange(11), rtol=1e-6)


def test_pictures_are_in_a_node_of_their_own_as_shares_of_white(tmp_path):
    experiment = begun(pictured, 25, (0, 1))
    travelled(experiment, 15)
    experiment.change(lr=0.5)
    advanced(experiment, 16)
    wb.save(record_of(experiment), tmp_path / "experiment.nc")
    record = wb.open(tmp_path / "experiment.nc")
    assert "spot" not in record["every_10"] and record.wb["slow_weight"]["step"].values.tolist() == [0, 10, 20, 30, 31]
    spots = record.wb["spot"]
    assert spots.dims == ("run", "step", "sample", "y", "x") and spots["step"].values.tolist() == [0, 10, 20, 30]
    assert spots["sample"].values.tolist() == ["a", "b"] and spots.attrs["long_name"] == "Two pictures that fade"
    white = np.array([0.9 ** np.arange(0, 40, 10), [1, 0.9**10, 0.9**15 * 0.5**5, 0.9**15 * 0.5**15]])
    shown = spots.isel(y=1, x=2).transpose("run", "sample", "step").values
    for run, branch in enumerate((0, 0, 1, 1)):
        for sample, share in enumerate((1.0, 0.5)):
            np.testing.assert_array_equal(np.round(shown[run, sample] * 255), np.floor(255 * share * white[branch]))


def test_a_branch_without_pictures_of_its_own_shows_those_before_it_left():
    experiment = begun(pictured, 12)
    experiment.twin()
    experiment.rest(1, True)
    record = record_of(advanced(experiment, 3))
    np.testing.assert_array_equal(record.wb["spot"][0], record.wb["spot"][1])
    experiment.select(1)
    experiment.rest(1, False)
    experiment.rest(2, True)
    record = record_of(advanced(experiment, 10))
    assert np.isnan(record.wb["spot"].sel(run=1, step=20)).all() and np.isfinite(record.wb["spot"].sel(run=0)).all()


def test_several_seeds_are_in_the_record_of_a_run_in_the_same_layout(monkeypatch):
    in_layout(monkeypatch, "loop")
    record = record_of(begun(decoder, 15, (4, 9), dict(horizon=15)))
    run = wb.run(decoder, seed=[4, 9], steps=15, mode="loop")
    assert record["seed"].values.tolist() == [4, 9]
    for place in (0, 1):
        assert_same_runs(record, run, place, place)
    assert json.loads(record.attrs["layouts"])[0]["layout"] == "loop"


def test_the_layout_of_several_seeds_is_that_which_was_faster_here(monkeypatch):
    in_layout(monkeypatch, "lanes")
    experiment = begun(decoder, 3, (4, 9))
    experiment.twin()
    assert [entry["layout"] for entry in json.loads(record_of(experiment).attrs["layouts"])] == ["lanes", "lanes"]


def test_events_are_read_off_each_run_as_far_as_it_goes():
    events = tuple(Event(fn.__name__, fn, "1", "event") for fn in (final_loss, loss_exceeded_step))
    study = replace(parabola, probes=(train_loss,), events=events)
    experiment = begun(study, 12)
    for lr in (2.5, 1e30, 0.2):
        experiment.select(1)
        travelled(experiment, 10)
        experiment.change(lr=lr)
    experiment.rest(1, True)
    advanced(experiment, 10)
    travelled(experiment, 0)
    experiment.branch()
    record = record_of(experiment)
    assert record["events"]["steps_done"].values.tolist() == [12, 20, 12, 20, 0]
    before = 0.9**24 / 2  # of step 12, where the run rests
    end = 0.9**20 * np.mean(0.8 ** np.array([18, 20])) / 2
    np.testing.assert_allclose(record["events"]["final_loss"], [before, 0.5, 0.5, end, np.nan], rtol=1e-5)
    np.testing.assert_array_equal(record["events"]["loss_exceeded_step"], [np.nan, 14, np.nan, np.nan, np.nan])


def test_an_event_is_left_out_where_what_it_reads_was_not_measured():
    study = replace(parabola, events=(Event("final_loss", final_loss, "1", "event"),))
    assert "final_loss" not in record_of(begun(study, 5))["events"]
