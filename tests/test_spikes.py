"""Injected spikes, against counts and a twin that is disturbed by hand."""

import pytest
import torch

from workbench import noise
from workbench.learners import Loss, Spiked, Spikes, Supervised, hit, spiked
from workbench.models import MLP, Perceptron
from workbench.optimizers import Optimizers
from workbench.schedules import Schedule
from workbench.study import Now

NAMES = [f"tensor_{i}" for i in range(10)]


class Settings(Perceptron, Schedule, Optimizers, Loss, Spikes, defaults={"width": 4, "depth": 1}):
    """A small perceptron under spikes."""


def now(step, seed=0):
    return Now(torch.tensor(float(step)), noise.fold(noise.key_of(seed), step), "train")


def counts(steps, **knobs):
    """How many tensors are hit at each of these steps."""
    return [sum(x.item() for x in hit(NAMES, Spikes(**knobs), now(step)).values()) for step in steps]


def test_without_a_rate_nothing_is_hit_and_with_rate_one_every_step():
    assert counts(range(20), spike_rate=0.0, spike_tensors=1.0) == [0] * 20
    assert counts(range(20), spike_rate=1.0, spike_tensors=1.0) == [10] * 20
    assert counts(range(20), spike_rate=1.0, spike_tensors=0.0) == [0] * 20


def test_rate_and_tensors_are_shares():
    at = [count for count in counts(range(200), spike_rate=0.25, spike_tensors=0.5) if count]
    assert len(at) == pytest.approx(50, abs=15) and sum(at) / len(at) == pytest.approx(5, abs=0.7)


def test_spikes_come_from_one_step_until_another():
    assert counts(range(10), spike_rate=1.0, spike_tensors=1.0, spike_from=3, spike_until=7) == [0] * 3 + [10] * 4 + [0] * 3


def test_spikes_are_those_of_the_key():
    knobs = Spikes(spike_rate=1.0, spike_tensors=0.5)
    first, again, other = (hit(NAMES, knobs, now(0, seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_gradients_that_are_hit_are_multiplied_and_the_others_are_as_they_were():
    knobs = Spikes(spike_size=1000.0, spike_rate=1.0, spike_tensors=0.5)
    grads = {name: torch.tensor([1.0, -2.0]) for name in NAMES}
    found, where = spiked(grads, knobs, now(0)), hit(NAMES, knobs, now(0))
    assert {tuple(x.tolist()) for name, x in found.items() if where[name]} == {(1000.0, -2000.0)}
    assert {tuple(x.tolist()) for name, x in found.items() if not where[name]} == {(1.0, -2.0)}


def test_the_moment_says_what_was_hit_and_what_the_optimizer_knew():
    knobs = Settings(spike_rate=1.0, spike_tensors=1.0, spike_size=100.0)
    batch = {"x": noise.normal(noise.key_of(3), "x", (8, 2)), "y": torch.tensor([0, 1] * 4)}
    learners = [kind(lambda k: MLP(k, inputs=2, outputs=2)) for kind in (Spiked, Supervised)]
    shared = learners[0].prepare(knobs, noise.key_of(0))
    state = learners[0].init(noise.key_of(1), knobs, shared)
    (after, moment), (_, plain) = (learner.step(state, batch, knobs, shared, now(0)) for learner in learners)
    assert all(moment.hit.values()) and set(moment.hit) == set(moment.grads)
    assert moment.before is state["optimizer"] and moment.optimizer is after["optimizer"]
    for name, grad in plain.grads.items():
        torch.testing.assert_close(moment.grads[name], 100 * grad)
