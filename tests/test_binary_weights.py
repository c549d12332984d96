"""What `binary_weights` computes and claims, against torch's autograd, closed forms and records whose answer is known by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from workbench import models, noise
from workbench.design import axes
from workbench.numerics import binary
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import binary_weights as bw
from workbench.study import Now
from workbench.taps import recording

STEPS = 300
CLOCKS = {"train_loss": 10, "estimating_error": 10, "gradient_variance": 10, "validation_accuracy": 100}


def made(powers=bw.POWERS, **of_run):
    """A record of two seeds, and a run of ste each; each variable is a function of (estimator, power, seed), 1 if not given."""
    kinds = [("reste", power) for power in powers] + [("ste", 1.0)]
    rows = [vars(bw.Settings()) | {"seed": seed, "power": power, "estimator": kind} for kind, power in kinds for seed in (4, 5)]
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(bw.Settings).items()}
    variables = [Variable(name, clock, (), "float64", {}) for name, clock in CLOCKS.items()]
    record = blank(Schema(rows, columns, variables, {}, [("train", 0)], 0, STEPS, {"start": 0, "study": "binary_weights"}))
    for name, clock in CLOCKS.items():
        ticks = [*range(0, STEPS + 1, clock)]
        ends = [of_run.get(name, lambda *run: 1.0)(row["estimator"], row["power"], row["seed"]) for row in rows]
        values = np.array([[end + (step == 0) for step in ticks] for end in ends])
        fill(record, Slab(range(len(rows)), clock, ticks, {name: values}, {}))
    fill(record, Progress(range(len(rows)), STEPS, [-1] * len(rows)))
    return record


def begun(**knobs):
    """(state, knobs, shared, key) of a small run before its first update."""
    knobs = bw.Settings(**{"width": 8, "batch": 16} | knobs)
    shared = bw.study.learner.prepare(knobs, noise.key_of(0))
    return bw.study.learner.init(noise.key_of(1), knobs, shared), knobs, shared, noise.key_of(2)


def updated(state, knobs, shared, key, step=0.0):
    return bw.study.learner.step(state, bw.study.task(knobs, key), knobs, shared, Now(torch.tensor(step), key, "train"))


def slope_at(x, **knobs):
    return binary.slope(torch.tensor(x), bw.Settings(**knobs)).tolist()


def test_the_slope_is_that_of_the_paper():
    for power in (1.0, 2.0, 3.0):
        x = torch.tensor([-1.4, -0.3, 0.2, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
        (torch.sign(x.detach()) * x.abs() ** (1 / power)).sum().backward()
        assert slope_at([-1.4, -0.3, 0.2, 1.0, 1.5], power=power) == pytest.approx(x.grad.abs().tolist(), rel=1e-5)
        assert slope_at([0.0, 0.05, -0.1], power=power) == pytest.approx([0.1 ** (1 / power) / 0.1] * 3, rel=1e-5)
        assert slope_at([1.501, -2.0], power=power) == [0, 0]
    assert slope_at([0.0, -1.0, 1.001], estimator="ste") == [1, 1, 0]


def test_the_sign_is_exact_and_its_derivative_the_slope():
    knobs = bw.Settings(power=3.0)
    x = torch.tensor([-2.0, -0.7, 0.0, 0.01, 1e-30, 0.9], requires_grad=True)
    y = binary.binarized(x, knobs)
    assert y.tolist() == [-1, -1, 0, 1, 1, 1]
    y.sum().backward()
    assert torch.equal(x.grad, binary.slope(x, knobs))
    forward = torch.func.jvp(lambda x: binary.binarized(x, knobs), (x.detach(),), (torch.ones(6),))
    assert torch.equal(forward[1], x.grad)


def test_powers_may_differ_between_runs():
    x, powers = torch.linspace(-2, 2, 9), torch.tensor([1.0, 3.0])
    at_once = torch.vmap(lambda power: binary.slope(x, bw.Settings().filled({"power": power})))(powers)
    for found, power in zip(at_once, powers, strict=True):
        torch.testing.assert_close(found, binary.slope(x, bw.Settings(power=power.item())))


def test_inner_weights_are_signs_times_their_mean_size_and_all_else_is_as_it_was():
    state, knobs, shared, _ = begun(depth=3)
    with recording(binary.edits(knobs), knobs) as frame:
        models.apply(shared["evaluator"], state["params"], state["buffers"], noise.normal(noise.key_of(5), "x", (5, 28, 28)))
    for i in (1, 2):
        weight = state["params"][f"layers.{i}.weight"]
        torch.testing.assert_close(frame.seen[f"layers.{i}.weight"], torch.sign(weight) * weight.abs().mean())
    assert "layers.0.weight" not in frame.seen and "readout.weight" not in frame.seen
    assert [set(frame.seen[f"{i}.hidden"].unique().tolist()) <= {-1.0, 0.0, 1.0} for i in range(3)] == [True, True, False]


def test_without_signs_it_is_the_perceptron_of_full_precision():
    state, knobs, shared, _ = begun(binary_weights=False, binary_activations=False)
    plain = models.build(lambda k: bw.MLP(k, bw.PICTURE, 10), knobs)
    x = noise.normal(noise.key_of(5), "x", (5, 28, 28))
    found, expected = (models.apply(shell, state["params"], state["buffers"], x) for shell in (shared["model"], plain))
    assert torch.equal(found, expected)
    first, again = begun()[0]["params"], state["params"]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_gradients_flow_through_signs_and_scale_as_in_the_released_code():
    """Of sum(c * sign(w) * mean|w|): c slope(w) mean|w| through the sign, and sum(c sign w) sign(w) / count through the scale."""
    knobs = bw.Settings(power=2.0)
    weight = torch.tensor([[0.05, -0.4], [1.2, -2.0]], requires_grad=True)
    c = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    (c * binary.edits(knobs)["weight"](weight, SimpleNamespace(knobs=knobs))).sum().backward()
    size = (0.05 + 0.4 + 1.2 + 2.0) / 4
    slopes = torch.tensor([[0.1**-0.5, 0.4**-0.5 / 2], [1.2**-0.5 / 2, 0.0]])
    torch.testing.assert_close(weight.grad, c * slopes * size + (1 - 2 + 3 + 4) * torch.sign(weight.detach()) / 4)


def test_the_power_rises_as_in_the_released_code():
    knobs = bw.Settings(power=3.0, horizon=100)
    found = [round(bw.power_at(knobs, torch.tensor(float(step))).item(), 3) for step in (0, 25, 50, 75, 100, 200)]
    assert found == [1, 1.152, 1.586, 2.235, 3, 3]
    assert bw.power_at(knobs.replace(power_course="constant"), torch.tensor(0.0)) == 3


def test_indicators_are_those_of_the_paper():
    state, knobs, shared, key = begun(power=3.0, horizon=100, depth=3)
    _, moment = updated(state, knobs, shared, key, 50.0)
    power = bw.applied_power(moment).item()
    assert power == pytest.approx(1.586, abs=1e-3)
    weights = [state["params"][f"layers.{i}.weight"].numpy() for i in (1, 2)]
    error = sum(math.sqrt((((np.abs(w) ** (1 / power)) - 1) ** 2).sum()) for w in weights)
    assert bw.estimating_error(moment).item() == pytest.approx(error, rel=1e-5)
    variance = sum(np.abs(moment.grads[f"layers.{i}.weight"].numpy()).var(ddof=1) for i in (1, 2))
    assert bw.gradient_variance(moment).item() == pytest.approx(variance, rel=1e-4)


def test_a_flip_is_a_sign_that_the_update_changes():
    state, knobs, shared, key = begun(depth=3, lr=1.0)
    after, moment = updated(state, knobs, shared, key)
    pairs = [(state["params"][f"layers.{i}.weight"], after["params"][f"layers.{i}.weight"]) for i in (1, 2)]
    expected = [(torch.sign(a) * torch.sign(b) < 0).float().mean().item() for a, b in pairs]
    assert max(expected) > 0 and bw.flipped_share(moment).tolist() == pytest.approx(expected)


def test_exponents_are_over_the_power():
    record = made(
        estimating_error=lambda kind, power, seed: seed * power**-0.5 if kind == "reste" else 7.0,
        gradient_variance=lambda kind, power, seed: power**2.0,
    )
    np.testing.assert_allclose(bw.error_over_power(record), -0.5)
    np.testing.assert_allclose(bw.variance_over_power(record), 2.0)


def test_gains_and_excesses_are_paired_by_seed():
    record = made(
        validation_accuracy=lambda kind, power, seed: 0.6 if kind == "ste" else 0.8 - 0.01 * power + 0.01 * seed * (power == 3),
        train_loss=lambda kind, power, seed: 0.4 + 0.1 * abs(power - bw.MIDDLE) + 0.01 * seed,
    )
    np.testing.assert_allclose(bw.gain(record, bw.LOWEST), [2, 3])
    np.testing.assert_allclose(bw.gain(record, bw.HIGHEST), [31, 32])
    np.testing.assert_allclose(bw.gain_over_ste(record), [21, 22])
    np.testing.assert_allclose(bw.excess(record, bw.LOWEST), [0.1, 0.1])
    np.testing.assert_allclose(bw.excess(record, bw.ABOVE), [0.3, 0.3])


def test_a_run_that_diverged_has_no_accuracy():
    record = made(validation_accuracy=lambda kind, power, seed: np.nan if (power, seed) == (3.0, 4) else 0.5)
    assert np.isnan(bw.gain(record, bw.LOWEST)).values.tolist() == [True, False]


def test_the_summary_lists_estimators_and_powers():
    record = made(powers=(1.0, 3.0), validation_accuracy=lambda kind, power, seed: 0.5 + 0.01 * power)
    assert bw.summary(record)[:2] == [
        "6 runs of 300 steps; at the end, mean over runs:",
        "held-out accuracy in %: reste 1: 51.0, reste 3: 53.0, ste 1: 51.0.",
    ]


@pytest.mark.parametrize(("loss", "answer"), [(0.4, 0), (0.65, 1), (2.3, 2), (np.nan, 2)])
def test_the_prediction_is_settled_by_the_training_loss(loss, answer):
    assert bw.loss_reached(made(powers=(3.0,), train_loss=lambda *run: loss)) == answer


@pytest.mark.parametrize("view", bw.study.views, ids=lambda view: view.name)
def test_views_show_powers_of_either_estimator(view):
    record = made()
    for shown in (record, record.wb.where(estimator="ste"), record.wb.where(estimator="reste", power=3.0)):
        view(shown).to_dict()
