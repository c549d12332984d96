"""Loss scaling: step by step as torch.amp.GradScaler, exact where nothing over- or underflows, carried over switches."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments_for_tests import advanced, begun
from learners_for_tests import Vectors, perceptron
from torch.amp import GradScaler

import workbench as wb
from workbench import noise, probes
from workbench.models import MLP
from workbench.numerics import LossScaling, format_of, round_to
from workbench.numerics.loss_scaling import BACKOFF, GROWTH, updated
from workbench.study import Now, Terms
from workbench.testing import check_learner

KEY = noise.key_of(0)


class Settings(Vectors, LossScaling):
    pass


study = replace(perceptron, knobs=Settings, probes=(*perceptron.probes, probes.applied_loss_scale, probes.update_skipped))
learner = perceptron.learner


def prepared(**values):
    knobs = Settings(**values)
    shared = learner.prepare(knobs, KEY)
    return knobs, shared, learner.init(noise.key_of(1), knobs, shared)


def batch_at(step):
    """Inputs so large that gradients overflow at the largest scales."""
    batch = perceptron.task(Settings(), noise.fold(KEY, step))
    return dict(batch, x=30 * batch["x"])


def stepped(state, knobs, shared, step=0):
    return learner.step(state, batch_at(step), knobs, shared, Now(torch.tensor(float(step)), noise.fold(KEY, step), "train"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("begin", [2.0**15, 2.0**127])
def test_dynamic_scaling_is_that_of_torch_s_grad_scaler(optimizer, begin):
    """With the scale at first far too large, so that gradients overflow in float32 and updates are skipped."""
    knobs, shared, state = prepared(loss_scaling="dynamic", loss_scale=begin, loss_scale_interval=3, optimizer=optimizer, lr=0.01, warmup=0)
    model = MLP(knobs, 4, 2)
    model.load_state_dict(state["params"])
    theirs = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.01, momentum=knobs.momentum),
        "adamw": lambda: torch.optim.AdamW(
            model.parameters(), lr=0.01, betas=(knobs.beta1, knobs.beta2), eps=knobs.epsilon, weight_decay=0
        ),
    }[optimizer]()
    scaler = GradScaler("cpu", init_scale=begin, growth_factor=GROWTH, backoff_factor=BACKOFF, growth_interval=3)
    skipped = 0
    for step in range(25):
        batch = batch_at(step)
        theirs.zero_grad()
        scaler.scale(torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])).backward()
        scaler.step(theirs)
        state, moment = stepped(state, knobs, shared, step)
        assert moment.loss_scale == scaler.get_scale()
        scaler.update()
        assert state["loss_scale"]["scale"] == scaler.get_scale()
        assert state["loss_scale"]["good_steps"] == scaler._get_growth_tracker()
        for name, p in model.named_parameters():
            torch.testing.assert_close(state["params"][name], p.detach(), rtol=1e-5, atol=1e-7)
        skipped += int(moment.skipped)
    assert (skipped > 1) == (begin > 2.0**100)


def test_a_skipped_update_leaves_everything_but_the_scale():
    knobs, shared, state = prepared(loss_scaling="dynamic", loss_scale=2.0**127)
    after, moment = stepped(state, knobs, shared)
    assert moment.skipped and not all(g.isfinite().all() for g in moment.grads.values()) and moment.loss.isfinite()
    assert all((u == 0).all() for u in moment.updates.values())
    for name in ("params", "buffers"):
        assert all(torch.equal(after[name][k], state[name][k]) for k in state[name])
    assert after["optimizer"]["count"] == 0 and all(torch.equal(v, state["optimizer"]["v"][k]) for k, v in after["optimizer"]["v"].items())
    assert after["loss_scale"] == dict(scale=torch.tensor(2.0**126), good_steps=torch.tensor(0.0))


def test_a_scale_does_not_grow_beyond_its_dtype():
    state = dict(scale=torch.tensor(2.0**127), good_steps=torch.tensor(4.0))
    assert updated(state, torch.tensor(False), 5) == dict(scale=torch.tensor(2.0**127), good_steps=torch.tensor(0.0))
    fewer = updated(dict(scale=torch.tensor(8.0), good_steps=torch.tensor(40.0)), torch.tensor(False), 5)
    assert fewer == dict(scale=torch.tensor(16.0), good_steps=torch.tensor(0.0))


def test_a_static_power_of_two_changes_nothing_that_does_not_underflow():
    runs = [
        wb.run(study, steps=15, seed=[0, 1], progress=False, mode="loop", loss_scaling=kind, loss_scale=2.0**12)
        for kind in ("none", "static", "dynamic")
    ]
    for record in runs[1:]:
        for name in ("train_loss", "weight_norm_total"):
            np.testing.assert_array_equal(record.wb[name], runs[0].wb[name])
    assert [float(record.wb["applied_loss_scale"].mean()) for record in runs] == [1, 2.0**12, 2.0**12]
    assert all((record.wb["update_skipped"] == 0).all() for record in runs)


def test_a_scale_saves_gradients_that_rounding_would_set_to_zero():
    """In e4m3, whose smallest number is 2^-9: of gradients of some 1e-3 unscaled, most are lost."""
    lost = {}
    for kind in ("none", "static"):
        knobs, shared, state = prepared(loss_scaling=kind, loss_scale=2.0**10, round_gradients="e4m3", saturate=True, init_scale=0.1)
        grads = stepped(state, knobs, shared)[1].grads
        lost[kind] = torch.cat([g.flatten() for g in grads.values()]).eq(0).float().mean()
    assert lost["static"] < 0.5 * lost["none"] and lost["none"] > 0.3


def test_gradients_are_rounded_as_scaled():
    knobs, shared, state = prepared(loss_scaling="static", loss_scale=1000.0, round_gradients="e5m2")
    for g in stepped(state, knobs, shared)[1].grads.values():
        torch.testing.assert_close(round_to(g * 1000, format_of("e5m2")), g * 1000, rtol=1e-6, atol=0)


def test_dynamic_scaling_finds_the_largest_scale_that_a_format_bears():
    record = wb.run(
        study, steps=60, seed=0, progress=False, loss_scaling="dynamic", loss_scale_interval=5, round_gradients="e4m3", loss_scale=2.0**22
    )
    scale, skipped = record.wb["applied_loss_scale"].values[0], record.wb["update_skipped"].values[0].astype(bool)
    assert skipped[:5].all() and skipped.sum() < 30
    assert (scale[1:][skipped[:-1]] == scale[:-1][skipped[:-1]] / 2).all()
    assert np.isnan(record["events"]["diverged_step"]).all() and np.isfinite(record.wb["train_loss"]).all()
    norm = record.wb["weight_norm_total"]
    assert np.isfinite(norm).all()


def test_the_scale_is_carried_where_it_goes_on_and_begins_where_it_does_not():
    knobs, shared, state = prepared(loss_scaling="dynamic", loss_scale=2.0**127)
    state, _ = stepped(state, knobs, shared)

    def carried(state, old, **new):
        other = old.replace(**new)
        return learner.adapt(state, KEY, Terms(old, shared), Terms(other, learner.prepare(other, KEY)))

    same = carried(state, knobs, round_gradients="e5m2", loss_scale=8.0)
    assert same["loss_scale"] is state["loss_scale"] and same["loss_scale"]["scale"] == 2.0**126
    static = carried(state, knobs, loss_scaling="static")
    assert "loss_scale" not in static
    again = carried(static, knobs.replace(loss_scaling="static"), loss_scaling="dynamic", loss_scale=8.0)
    assert again["loss_scale"] == dict(scale=torch.tensor(8.0), good_steps=torch.tensor(0.0))


def test_loss_scaling_switches_while_a_run_trains():
    experiment = begun(study, 6)
    experiment.change(loss_scaling="dynamic", loss_scale=64.0)
    assert set(experiment.carried.new) == {"['loss_scale']['scale']", "['loss_scale']['good_steps']"}
    advanced(experiment, 3)
    experiment.change(loss_scaling="none")
    advanced(experiment, 3)
    steps, values = experiment.track.series("applied_loss_scale")
    assert steps.tolist() == list(range(12)) and values[0].tolist() == [1] * 6 + [64] * 3 + [1] * 3


def test_a_learner_with_dynamic_scaling_conforms():
    knobs = Settings(loss_scaling="dynamic", loss_scale=2.0**20, loss_scale_interval=2, round_gradients="e5m2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_learner(learner, perceptron.task, knobs) == []
