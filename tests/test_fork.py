"""Forks: the same state and data, one knob changed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from learners_for_tests import UNLIKE, convnet, final_states, parabola, perceptron, server, student
from learners_for_tests import transformer as decoder

import workbench as wb
from workbench.errors import InputError


def assert_twins(a, b):
    for name in a.wb.variables:
        np.testing.assert_array_equal(a.wb[name], b.wb[name])


@pytest.fixture(scope="module")
def trained():
    """Four runs in a loop, where arithmetic repeats exactly."""
    return wb.run(decoder, lr=[0.01, 0.1], seed=[0, 1], steps=30, mode="loop")


@pytest.mark.parametrize("mode", ["lanes", "loop"])
def test_a_twin_with_nothing_changed_differs_by_exactly_0_over_200_steps(mode):
    record = wb.run(perceptron, lr=[0.01, 0.3], seed=[0, 1], steps=220, mode=mode)
    parent, child = wb.fork(record, 3, 20, study=perceptron)
    assert parent.wb["train_loss"].sizes["step"] == 201
    assert_twins(parent, child)
    assert parent["timeline"].sizes["change"] == child["timeline"].sizes["change"] == 0


@pytest.mark.parametrize("study", [*UNLIKE.values(), convnet])
def test_every_learner_forks(study):
    record = wb.run(study, seed=[0, 1], steps=20, mode="loop")
    parent, child = wb.fork(record, 1, 7, study=study)
    assert_twins(parent, child)
    assert set(json.loads(parent.attrs["deviation"]).values()) == {0.0}
    for name in (p.name for p in study.probes):
        np.testing.assert_array_equal(parent.wb[name][0], record.wb[name].sel(step=slice(7, None))[1])


def test_the_child_goes_its_own_way_from_the_same_state(trained):
    parent, child = wb.fork(trained, 3, 12, study=decoder, lr=0.01)
    loss = parent.wb["train_loss"], child.wb["train_loss"]
    assert loss[0]["step"].values.tolist() == loss[1]["step"].values.tolist() == list(range(12, 31))
    assert loss[0][0, 0] == loss[1][0, 0] and (loss[0][0, 1:] != loss[1][0, 1:]).all()
    np.testing.assert_array_equal(loss[0][0], trained.wb["train_loss"][3, 12:])
    assert (parent["lr"].item(), child["lr"].item(), child["seed"].item()) == (0.1, 0.01, 1)
    change = child["timeline"].to_dataset().isel(change=0)
    assert [change[name].item() for name in ("changed_run", "at_step", "knob", "old", "new", "parent")] == [0, 12, "lr", "0.1", "0.01", 3]


def test_a_known_orbit_after_the_change():
    record = wb.run(parabola, lr=0.1, steps=10, mode="loop")
    _, child = wb.fork(record, 0, 4, study=parabola, lr=0.5, steps=6)
    np.testing.assert_allclose(child.wb["weight"][0], 0.9**4 * 0.5 ** np.arange(3), rtol=1e-6)


def test_a_fork_of_a_fork_repeats_what_was_changed_before(trained):
    _, child = wb.fork(trained, 2, 10, study=decoder, lr=0.02)
    parent, grandchild = wb.fork(child, 0, 20, study=decoder, momentum=0.5)  # which Adam does not read
    assert set(json.loads(parent.attrs["deviation"]).values()) == {0.0}
    assert_twins(parent, grandchild)
    assert parent["lr"].item() == 0.02
    assert [json.loads(new) for new in grandchild["timeline"]["new"].values] == [0.02, 0.5]


@pytest.mark.parametrize(
    "knobs", [dict(qk_norm=True), dict(optimizer="sgd"), dict(norm_placement="peri"), dict(norm_placement="none", lr=0.001)]
)
def test_a_switch_is_changed_in_mid_run(trained, knobs):
    parent, child = wb.fork(trained, 0, 10, study=decoder, **knobs)
    assert np.isfinite(child.wb["train_loss"]).all()
    assert parent.wb["train_loss"][0, -1] != child.wb["train_loss"][0, -1]
    if "optimizer" in knobs:
        assert parent.wb["train_loss"][0, 0] == child.wb["train_loss"][0, 0]


@pytest.mark.parametrize("sigma_init", ["spectral", "one"])
@pytest.mark.parametrize("step", [0, 10])
def test_a_switch_made_at_a_step_is_repeated_from_that_step_and_later_ones(step, sigma_init):
    record = wb.run(decoder, lr=0.03, sigma_init=sigma_init, steps=16, mode="loop")
    _, child = wb.fork(record, 0, step, study=decoder, sigma_reparam=True, qk_norm=True)
    for later in (step, 13):
        parent, _ = wb.fork(child, 0, later, study=decoder, lr=0.01)
        assert set(json.loads(parent.attrs["deviation"]).values()) == {0.0}


def test_runs_that_no_longer_share_a_batch_do_not_train_by_a_step_that_takes_it_so():
    """The task reads the rate: with one run there is one batch, with another rate in the fork there are two."""

    def scaled(knobs, key):
        batch = perceptron.task(knobs, key)
        return batch | {"x": batch["x"] * knobs.lr}

    scaled.reads = ("lr",)
    study = replace(perceptron, task=scaled)
    children = []
    for mode in ("lanes", "compiled"):
        record = wb.run(study, lr=0.1, steps=20, mode=mode)
        parent, child = wb.fork(record, run=0, step=10, study=study, lr=0.3)
        assert json.loads(parent.attrs["layouts"])[0]["compiled"] == []
        np.testing.assert_allclose(parent.wb["train_loss"], record.wb["train_loss"][:, 10:], rtol=1e-4)
        children.append(child.wb["train_loss"])
    np.testing.assert_allclose(*children, rtol=1e-4)


def test_a_refusal_comes_before_training(monkeypatch):
    record = wb.run(student, steps=9)
    monkeypatch.setattr(type(student.learner), "step", None)
    with pytest.raises(InputError, match="Knob 'width' is fixed"):
        wb.fork(record, 0, 8, study=student, width=5)


def test_adapting_keeps_leaves_of_the_same_name(trained):
    learner, row = decoder.learner, wb.grid(seed=0).rows(decoder.knobs)[0]
    state = final_states(decoder, [row], 3)[0]
    ready = wb.engine.plan(decoder, [row, row | {"qk_norm": True}], 5)
    old, new = (wb.study.Terms(cohort.knobs, cohort.shared) for cohort in ready.cohorts)
    adapted = learner.adapt(state, wb.noise.key_of(0), old, new)
    assert adapted["params"].keys() - state["params"].keys() == {f"blocks.0.attention.{word}_norm.weight" for word in ("query", "key")}
    for part, place in ((part, name) for part in ("m", "v") for name in state["params"]):
        assert torch.equal(adapted["params"][place], state["params"][place])
        assert torch.equal(adapted["optimizer"][part][place], state["optimizer"][part][place])
    assert adapted["optimizer"]["count"] == 3


@pytest.mark.parametrize("sigma_init", ["spectral", "one"])
def test_switching_sigma_reparam_on_or_off_leaves_the_function_as_it_is(sigma_init):
    record = wb.run(decoder, sigma_reparam=[False, True], sigma_init=sigma_init, lr=0.03, steps=20, mode="loop")
    for run, switched in ((0, True), (1, False)):
        parent, child = wb.fork(record, run, 12, study=decoder, sigma_reparam=switched)
        loss = parent.wb["train_loss"].values[0], child.wb["train_loss"].values[0]
        assert abs(loss[0][0] - loss[1][0]) < 1e-5 < abs(loss[0][-1] - loss[1][-1])


# Kept states


def test_a_kept_state_is_what_training_again_gives(tmp_path):
    settings = dict(lr=[0.01, 0.1], seed=[0, 1], steps=30, mode="loop")
    kept = wb.run(decoder, out=tmp_path / "kept.nc", keep=8, **settings)
    bare = wb.run(decoder, **settings)
    assert len(list((tmp_path / "kept.nc.checkpoints").iterdir())) == 4
    for record in (kept, wb.open(tmp_path / "kept.nc")):
        for ours, theirs in zip(wb.fork(record, 2, 21, study=decoder, lr=0.02), wb.fork(bare, 2, 21, study=decoder, lr=0.02), strict=True):
            assert_twins(ours, theirs)


def test_a_fork_starts_at_the_nearest_kept_state(tmp_path):
    wb.run(parabola, out=tmp_path / "kept.nc", keep=10, steps=30)
    steps = []

    class Counted(type(parabola.learner)):
        def step(self, state, batch, knobs, shared, now):
            steps.append(int(now.step))
            return super().step(state, batch, knobs, shared, now)

    wb.fork(wb.open(tmp_path / "kept.nc"), 0, 23, study=replace(parabola, learner=Counted()))
    assert set(steps) == set(range(20, 31))


def test_states_kept_in_several_files_a_step_are_found(tmp_path):
    wb.run(perceptron, seed=range(3), out=tmp_path / "kept.nc", keep=5, steps=12, mode="lanes", memory=1.0)
    assert len(list((tmp_path / "kept.nc.checkpoints").iterdir())) == 9
    record = wb.open(tmp_path / "kept.nc")
    for run in range(3):
        parent, _ = wb.fork(record, run, 5, study=perceptron)
        assert max(json.loads(parent.attrs["deviation"]).values()) < 1e-5


def test_a_damaged_kept_state_is_named(tmp_path):
    wb.run(perceptron, out=tmp_path / "kept.nc", keep=10, steps=20)
    record = wb.open(tmp_path / "kept.nc")
    (file,) = (tmp_path / "kept.nc.checkpoints").glob("step_00000010*")
    file.write_bytes(file.read_bytes()[:-100])
    wb.fork(record, 0, 5, study=perceptron)
    wb.fork(record, 0, 15, study=perceptron)  # unreadable: the one before it serves
    with pytest.raises(InputError, match="does not fit the study"):
        wb.fork(
            record,
            0,
            5,
            study=replace(
                perceptron, learner=student.learner, task=student.task, knobs=type("K", (perceptron.knobs,), {}), phases=student.phases
            ),
        )


def test_a_state_of_more_than_tensors_cannot_be_kept_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match=r"holds a float at \['clock'\], and only tensors can be kept; run it without keep="):
        wb.run(server, steps=5, keep=2, out=tmp_path / "server.nc")
    assert not list(tmp_path.iterdir())


# Refusals


@pytest.mark.parametrize(
    ("run", "step", "knobs", "sentence"),
    [
        (4, 5, {}, "There is no run 4; the record has runs 0 to 3"),
        (-1, 5, {}, "There is no run -1"),
        (0, 30, {}, r"Step 30 is outside the record, which trains from step 0 to 30; fork from 0 to 29"),
        (0, -1, {}, "Step -1 is outside the record"),
        (0, 5, dict(steps=5), "steps is 5, which is not after the fork at step 5"),
        (0, 5, dict(width=32), "Knob 'width' is fixed for a run .here 16.; begin a new run with width=32"),
        (0, 5, dict(qk_norm=True, context=8), "Knob 'context' is fixed for a run"),
        (0, 5, dict(init_scale=2.0), "Knob 'init_scale' acts when a run begins and cannot be forked"),
        (0, 5, dict(ir=0.1), "There is no knob 'ir'; did you mean 'lr'"),
        (0, 5, dict(lr=0.0), "Knob 'lr' is 0.0; it must be above 0"),
    ],
)
def test_what_cannot_be_forked_is_refused_in_a_sentence(trained, run, step, knobs, sentence):
    with pytest.raises(InputError, match=sentence):
        wb.fork(trained, run, step, study=decoder, **knobs)


def test_a_learner_that_cannot_adapt_says_so():
    knobs = type(
        "Switched", (parabola.knobs,), {"__annotations__": {"kind": bool}, "kind": wb.knobs.knob(False, acts="switch", doc="kind")}
    )
    study = replace(parabola, knobs=knobs)
    with pytest.raises(InputError, match="Knob 'kind' cannot change while this learner trains"):
        wb.fork(wb.run(study, steps=5), 0, 2, study=study, kind=True)


def test_a_run_is_found_by_its_number_in_a_part_of_the_record(trained):
    part = trained.wb.where(seed=1)
    assert part["run"].values.tolist() == [1, 3]
    parent, _ = wb.fork(part, 3, 10, study=decoder)
    assert set(json.loads(parent.attrs["deviation"]).values()) == {0.0}
    with pytest.raises(InputError, match="There is no run 2; the record has runs 1, 3"):
        wb.fork(part, 2, 10, study=decoder)
