"""What `adabelief` computes and claims, against closed forms, numpy and records whose answer is known by hand."""

import numpy as np
import pytest
import torch

from workbench import models, noise, optimizers
from workbench.design import axes
from workbench.errors import InputError
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import adabelief as ab
from workbench.study import Now, Terms
from workbench.tasks import Images

STEPS = 300
CLOCKS = {"train_loss": 10, "train_accuracy": 10, "step_ratio": 10, "momentum_cosine": 10}
CLOCKS |= {"validation_accuracy": 100, "validation_loss": 100}
SMALL = {"width": 8, "batch": 16, "samples": 50}


def settings(network, variant, **knobs):
    return {**ab.SIZES[network], **ab.OF_NETWORK[network][variant], **knobs}


def best(network, variants=None):
    """Each variant of a net at its best rate."""
    return [settings(network, name, lr=rate) for name, rate in ab.BEST[network].items() if variants is None or name in variants]


def made(runs, seeds=(4, 5), **of_run):
    """A record of these runs; each variable is a function of (row), 1 if not given; the loss begins 1 higher."""
    rows = [vars(ab.Settings()) | {"seed": seed} | run for run in runs for seed in seeds]
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(ab.Settings).items()}
    variables = [Variable(name, clock, (), "float64", {}) for name, clock in CLOCKS.items()]
    record = blank(Schema(rows, columns, variables, {}, [("train", 0)], 0, STEPS, {"start": 0, "study": "adabelief"}))
    for name, clock in CLOCKS.items():
        ticks = [*range(0, STEPS + 1, clock)]
        ends = [of_run.get(name, lambda row: 1.0)(row) for row in rows]
        fill(
            record,
            Slab(
                range(len(rows)),
                clock,
                ticks,
                {name: np.array([[end + (t == 0 and name == "train_loss") for t in ticks] for end in ends])},
                {},
            ),
        )
    fill(record, Progress(range(len(rows)), STEPS, [-1] * len(rows)))
    return record


def begun(**knobs):
    """(state, knobs, shared, key) of a small run before its first update."""
    knobs = ab.Settings(**SMALL | knobs)
    shared = ab.study.learner.prepare(knobs, noise.key_of(0))
    return ab.study.learner.init(noise.key_of(1), knobs, shared), knobs, shared, noise.key_of(2)


def updated(state, knobs, shared, key, step=0):
    at = noise.fold(key, step)
    return ab.study.learner.step(state, ab.study.task(knobs, at), knobs, shared, Now(torch.tensor(float(step)), at, "train"))


def descended(gradients, **knobs):
    """Last state and update of AdaBelief or Adam that gets these gradients (step, parameter) one after another, at rate 1."""
    knobs = ab.Settings(weight_decay=0.0, **knobs)
    optimizer = optimizers.chosen(knobs)
    params = {"w": torch.zeros(gradients.shape[1], dtype=torch.float64)}
    state = optimizer.init(params)
    for g in gradients:
        updates, state = optimizer.update({"w": g}, state, params, knobs, None, 1.0)
    return state, updates["w"]


def test_a_constant_slope_is_believed_and_an_alternating_one_is_not():
    """|x| + |y|, where y oscillates: the paper's example. Adam's denominators are the same, AdaBelief's are those of its text."""
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(200)
    gradients = torch.stack([torch.ones_like(signs), signs], 1)
    adam, _ = descended(gradients, optimizer="adamw", beta2=0.99)
    assert adam["v"]["w"][0] == adam["v"]["w"][1]
    belief, update = descended(gradients, epsilon=1e-16, beta2=0.99)
    t = np.arange(1, 401)
    constant = 0.01 * (0.99 ** (400 - t) * 0.9 ** (2 * t)).sum()
    alternating = (2 * 0.9 / 1.9) ** 2
    assert belief["s"]["w"].tolist() == pytest.approx([constant, alternating], rel=0.02)
    assert -update[0].item() == pytest.approx(((1 - 0.99**400) / constant) ** 0.5, rel=1e-6)


def test_of_gradients_that_are_noise_the_step_is_a_constant_multiple_of_adams():
    gradients = torch.stack([noise.normal(noise.fold(noise.key_of(3), t), "g", (2000,)) for t in range(600)]).double()
    belief, _ = descended(gradients, epsilon=1e-16, beta2=0.99)
    adam, _ = descended(gradients, optimizer="adamw", beta2=0.99)
    found = (adam["v"]["w"].mean() / belief["s"]["w"].mean()).sqrt().item()
    assert found == pytest.approx(ab.noise_ratio(0.9), rel=0.005)
    assert ab.noise_ratio(0.9) == pytest.approx(1.083, abs=5e-4)


def test_epsilon_at_every_step_is_a_floor_of_the_denominator():
    """Gradients far below it get the step of SGD with momentum, over sqrt(epsilon / (1 - beta2)): 3.2e-3 as published."""
    gradients = 1e-6 * torch.tensor([[1.0, -3.0]], dtype=torch.float64).repeat(4000, 1)
    _, update = descended(gradients, epsilon=1e-8, beta2=0.999)
    assert update.tolist() == pytest.approx([-1e-6 / 1e-5**0.5, 3e-6 / 1e-5**0.5], rel=0.03)
    _, once = descended(gradients[:20], epsilon=1e-8, beta2=0.999, adabelief_adds_epsilon=False)
    assert (abs(once) > 1).all()


@pytest.mark.parametrize(("adds", "clip"), [(True, 0.0), (False, 0.0), (True, 0.5)])
def test_the_ratio_is_that_of_the_two_denominators(adds, clip):
    state, knobs, shared, key = begun(adabelief_adds_epsilon=adds, weight_decay=0.1, epsilon=1e-6, clip=clip)
    mean, s, v = ({name: np.zeros(p.shape) for name, p in state["params"].items()} for _ in range(3))
    for step in range(4):
        new, moment = updated(state, knobs, shared, key, step)
        norm = np.sqrt(sum((g.double() ** 2).sum().item() for g in moment.grads.values()))
        assert norm > 0.5
        for name, p in state["params"].items():
            decayed = shared["roles"][name] in ("matrix", "embedding", "readout")
            g = moment.grads[name].double().numpy() * (clip / norm if clip else 1) + 0.1 * p.double().numpy() * decayed
            mean[name] = 0.9 * mean[name] + 0.1 * g
            s[name] = 0.999 * s[name] + 0.001 * (g - mean[name]) ** 2 + 1e-6 * adds
            v[name] = 0.999 * v[name] + 0.001 * g**2
        state = new
    second = 1 - 0.999**4
    logs = [
        np.log((np.sqrt(v[n] / second) + 1e-8) / (np.sqrt(s[n] / second) + 1e-6)).ravel() for n in ("layers.0.weight", "layers.1.weight")
    ]
    assert ab.step_ratio(moment).item() == pytest.approx(np.exp(np.concatenate(logs).mean()), rel=1e-4)


def test_other_optimizers_have_no_ratio_and_sgd_goes_along_its_mean():
    for name, lowest, highest in (("sgd", 0.9999, 1.0001), ("adamw", 0.3, 0.95)):
        state, *rest = begun(optimizer=name)
        after, moment = updated(state, *rest)
        assert state["adam"] == after["adam"] == {} and ab.step_ratio(moment).isnan()
        assert lowest < ab.momentum_cosine(moment).item() < highest


def test_the_first_step_of_adam_is_the_sign():
    state, *rest = begun(optimizer="adamw", weight_decay=0.0)
    _, moment = updated(state, *rest)
    g = np.concatenate([moment.grads[name].double().numpy().ravel() for name in state["params"]])
    g = g * (abs(g) > 1e-6)
    assert ab.momentum_cosine(moment).item() == pytest.approx(abs(g).sum() / np.sqrt((g**2).sum() * (g != 0).sum()), rel=0.01)


def test_adams_state_comes_and_goes_with_adabelief():
    state, knobs, shared, key = begun()
    state, _ = updated(state, knobs, shared, key)
    learner, sgd = ab.study.learner, knobs.replace(optimizer="sgd")
    away = learner.adapt(state, key, Terms(knobs, shared), Terms(sgd, shared))
    assert away["adam"] == {}
    back = learner.adapt(away, key, Terms(sgd, shared), Terms(knobs, shared))["adam"]
    assert set(back["v"]) == set(state["params"]) and back["count"] == 0 and all((v == 0).all() for v in back["v"].values())
    once = knobs.replace(adabelief_adds_epsilon=False)
    kept = learner.adapt(state, key, Terms(knobs, shared), Terms(once, shared))["adam"]
    assert kept["count"] == 1 and all(torch.equal(kept["v"][name], v) for name, v in state["adam"]["v"].items())


def test_pictures_are_the_first_of_the_training_set():
    few, many = (ab.Settings(samples=samples, batch=256) for samples in (100, 10_000))
    pixels, labels = ab._first(ab.inputs.images("fashion-mnist"), 100, torch.device("cpu"))
    batch = ab.IMAGES(few, noise.key_of(5))
    places_of = [(pixels == x).all((1, 2)).nonzero()[0, 0].item() for x in batch["x"]]
    assert batch["y"].tolist() == labels[places_of].tolist() and len(set(places_of)) > 80
    whole = Images()(many, noise.key_of(5))
    assert all(torch.equal(x, ab.IMAGES(many, noise.key_of(5))[name]) for name, x in whole.items())
    with pytest.raises(InputError, match="there are 10000 images"):
        ab.IMAGES(ab.Settings(samples=10_001), noise.key_of(5))


@pytest.mark.parametrize(("network", "width", "shape"), [("mlp", 8, (5, 10)), ("convnet", 8, (5, 10)), ("decoder", 16, None)])
def test_each_net_reads_its_task(network, width, shape):
    knobs = ab.Settings(network=network, width=width, context=8, batch=5, depth=1)
    shell = models.build(ab.model, knobs)
    batch = ab.study.task(knobs, noise.key_of(0))
    readout = models.apply(shell, *models.initialize(shell, noise.key_of(1), knobs), batch["x"], knobs=knobs)
    assert readout.shape == (shape or (5, 8, ab.TEXT.vocabulary(knobs)))


def test_variants_are_compared_at_their_best_rates_and_paired_by_seed():
    gain = {"sgd": 0.8, "adamw": 0.7, "adabelief": 0.75}
    elsewhere = [settings("mlp", name, lr=2e-4) for name in ab.VARIANTS]
    record = made(
        best("mlp") + elsewhere + best("decoder"),
        validation_accuracy=lambda row: (row["lr"] != 2e-4) * gain[row["optimizer"]] + 0.01 * row["seed"] * (row["optimizer"] == "sgd"),
        validation_loss=lambda row: 2 - gain[row["optimizer"]],
        train_loss=lambda row: 1 / gain[row["optimizer"]] if row["lr"] != 2e-4 else 9.0,
    )
    np.testing.assert_allclose(ab.better(record, ab.accuracy, "mlp", "AdaBelief", "SGD"), [-9, -10])
    np.testing.assert_allclose(ab.better(record, ab.accuracy, "mlp", "AdaBelief", "Adam"), [5, 5])
    np.testing.assert_allclose(ab.better(record, ab.held_out_loss, "decoder", "AdaBelief", "SGD"), [0.05, 0.05])
    first_fifth = {name: 1 / gain[name] + 1 / 6 for name in gain}  # 6 of 31 measurements, one of them 1 higher
    np.testing.assert_allclose(ab.slower(record, "AdaBelief", "Adam"), first_fifth["adabelief"] / first_fifth["adamw"])


def test_a_run_that_diverged_has_no_accuracy():
    record = made(best("mlp"), validation_accuracy=lambda row: np.nan if (row["optimizer"], row["seed"]) == ("adabelief", 4) else 0.5)
    assert np.isnan(ab.better(record, ab.accuracy, "mlp", "AdaBelief", "SGD")).values.tolist() == [True, False]


def test_the_gap_is_held_out_minus_training_loss():
    record = made(best("mlp", ["SGD"]), train_loss=lambda row: 0.25, validation_loss=lambda row: 0.5 + row["seed"])
    np.testing.assert_allclose(ab.generalization_gap(record), [4.25, 5.25])


def test_growth_over_the_batch_is_an_exponent():
    runs = [settings("mlp", "epsilon once", lr=ab.PUBLISHED_RATE, batch=batch) for batch in ab.BATCHES]
    record = made(runs + best("mlp", ["SGD", "AdaBelief"]), step_ratio=lambda row: row["seed"] * row["batch"] ** 0.25)
    assert ab.over_batch(record, ab.with_batches(record)).sizes == {"batch": 3, "seed": 2}
    np.testing.assert_allclose(ab.growth_over_batch(record), 0.25)


def test_the_direction_is_compared_at_the_published_rate():
    runs = [settings("mlp", name, lr=ab.PUBLISHED_RATE) for name in ("Adam", "AdaBelief", "epsilon once")]
    record = made(runs, momentum_cosine=lambda row: {"adamw": 0.5}.get(row["optimizer"], 0.6 + 0.2 * row["adabelief_adds_epsilon"]))
    np.testing.assert_allclose(ab.nearer(record, "AdaBelief", "Adam"), 0.3)
    np.testing.assert_allclose(ab.nearer(record, "epsilon once", "Adam"), 0.1)


def test_the_summary_names_the_best_rate_of_each_variant():
    runs = [settings("mlp", "SGD", lr=lr) for lr in (0.01, 0.1)] + best("decoder", ["Adam"])
    record = made(runs, validation_accuracy=lambda row: 0.5 + row["lr"], validation_loss=lambda row: 2.25)
    assert ab.summary(record) == [
        "6 runs of 300 steps; means over runs at the best rate:",
        "mlp, SGD, rate 0.1: 60.0 %.",
        f"decoder, Adam, rate {ab.number(ab.BEST['decoder']['Adam'])}: 2.250 nat.",
    ]


@pytest.mark.parametrize(("loss", "answer"), [(0.05, 0), (0.2, 1), (2.3, 2), (np.nan, 2)])
def test_the_prediction_is_settled_by_the_training_loss(loss, answer):
    assert ab.loss_reached(made(best("mlp", ["SGD"]), train_loss=lambda row: loss)) == answer


@pytest.mark.parametrize("view", ab.study.views, ids=lambda view: view.name)
def test_views_show_any_part_of_a_record(view):
    others = [dict(optimizer="adabelief", lr=lr, beta1=0.5) for lr in (1e-3, 1e-2)]
    for runs in (best("mlp") + best("decoder"), best("decoder"), best("mlp", ["SGD"]), others):
        view(made(runs)).to_dict()
