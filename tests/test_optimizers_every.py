"""What the optimizers beside AdamW and SGD do at spikes, at resets, in lanes, in a compiled step and when a run changes to them."""

import itertools
import math

import pytest
import torch
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from workbench import noise
from workbench.errors import InputError
from workbench.knobs import specs
from workbench.learners import Supervised
from workbench.models import MLP, Perceptron
from workbench.numerics import Rounding, round_tree
from workbench.optimizers import (
    AdaBelief,
    EveryOptimizer,
    Muon,
    Optimizers,
    PerpGrad,
    Spam,
    StableSpam,
    Traits,
    chosen,
    effective_step,
    orthogonalized,
    perp_grad,
    same_kind,
    sgd,
    spam_scale,
)
from workbench.optimizers.perp_grad import orthogonal
from workbench.schedules import Schedule
from workbench.study import Terms

NAMES = ("adamw", "sgd", "adabelief", "lion", "muon", "spam", "stable_spam")
NEW = NAMES[2:]
SHAPES = {"w": (3, 4), "b": (4,), "gain": ()}
TRAITS = Traits(matrices=frozenset({"w"}))
STEPS = 60
KEY = noise.key_of(0)
DOUBLE = torch.float64


class Settings(EveryOptimizer, Schedule, defaults={"lr": 0.01}):
    pass


def normal(name: str, shape=(), step: int = 0) -> torch.Tensor:
    return noise.normal(noise.fold(noise.key_of(5), step), name, shape, DOUBLE)


START = {name: normal(f"start {name}", shape) for name, shape in SHAPES.items()}
GRADIENTS = [{name: (200.0 if step == 33 else 1.0) * normal(name, shape, step) for name, shape in SHAPES.items()} for step in range(STEPS)]


def trained(knobs, gradients=GRADIENTS, traits=TRAITS, start=START, key=KEY, changed=None) -> tuple[list[dict], list[dict]]:
    """Parameters and states after each update; `changed(step)` gives other knobs from a step on."""
    params, paths, states = start, [], []
    state = chosen(knobs, traits).init(params)
    for step, grads in enumerate(gradients):
        now = changed(step) if changed else knobs
        updates, state = chosen(now, traits).update(grads, state, params, now, noise.fold(key, step), now.lr)
        params = {name: p + updates[name] for name, p in params.items()}
        paths.append(params)
        states.append(state)
    return paths, states


# What holds for all


def test_the_knobs_of_every_optimizer_contain_those_of_two():
    assert {*specs(Optimizers)} < {*specs(EveryOptimizer)}
    for name in specs(Optimizers):
        if name != "optimizer":
            assert getattr(EveryOptimizer(), name) == getattr(Optimizers(), name)
    assert specs(EveryOptimizer)["optimizer"].choices == NAMES
    for group in (EveryOptimizer, Spam, StableSpam, AdaBelief, Muon, PerpGrad):
        for spec in specs(group).values():
            assert spec.acts in ("live", "switch") and spec.group == "optimizer", spec.name


@pytest.mark.parametrize(
    ("group", "leaves"),
    [
        (Spam, {"count", "m", "v", "reset", "draw"}),
        (StableSpam, {"count", "m", "v", "reset", "largest", "norm", "square"}),
        (AdaBelief, {"count", "m", "s"}),
        (Muon, {"momentum", "rest"}),
    ],
)
def test_a_group_alone_is_its_optimizer(group, leaves):
    assert set(chosen(group(), TRAITS).init(START)) == leaves


def test_an_unknown_optimizer_is_named():
    with pytest.raises(InputError, match="optimizer 'adamm'"):
        chosen(Settings().filled({"optimizer": "adamm"}))


LANES = dict(
    lr=[0.1, 0.01, 0.03],
    beta1=[0.9, 0.0, 0.5],
    beta2=[0.999, 0.9, 0.99],
    epsilon=[1e-8, 1e-3, 1e-15],
    weight_decay=[0.0, 0.1, 0.3],
    clip=[0.0, 1.0, 3.0],
    spam_threshold=[50.0, 0.0, 5000.0],
    spam_interval=[20, 0, 7],
    spam_warmup=[5, 5, 0],
    spam_patience=[3, 3, 20],
    stable_spam_gamma1=[0.7, 0.0, 0.85],
    stable_spam_gamma2=[0.9, 0.0, 0.99999],
    stable_spam_gamma3=[0.999, 0.0, 0.9],
    stable_spam_interval=[20, 0, 7],
    stable_spam_fall=[0, 30, 100],
    stable_spam_share=[0.5, 0.5, 0.1],
    muon_momentum=[0.95, 0.0, 0.9],
    muon_rest=[0.015, 1.0, 0.1],
)
VARIANTS = {
    **{name: dict(optimizer=name) for name in NEW},
    "adabelief, rectified": dict(optimizer="adabelief", adabelief_rectify=True, adabelief_adds_epsilon=False),
    "muon, rms, decay independent": dict(optimizer="muon", muon_scale="rms", weight_decay_kind="independent"),
    "spam, released, decay l2": dict(optimizer="spam", spam_released=True, weight_decay_kind="l2"),
    "spam, sparse, restarted": dict(optimizer="spam", spam_density=0.5, spam_bias_correction="restarted"),
    "stable_spam, released": dict(optimizer="stable_spam", stable_spam_released=True),
    "perpGrad on adamw": dict(perp_grad=True),
    "perpGrad on muon": dict(optimizer="muon", perp_grad=True),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_lanes_equal_the_loop(variant):
    static, loose = Settings(**VARIANTS[variant]), Traits({"b": 0.5}, frozenset({"w", "b"}), frozenset({"w"}))
    keys = noise.key_of(torch.arange(3))
    stacked = {name: torch.tensor(values, dtype=DOUBLE) for name, values in LANES.items()}
    start = {name: p for name, p in START.items() if name != "gain"}  # perpGrad makes noise of a scalar's gradient
    gradients = [{name: grads[name] for name in start} for grads in GRADIENTS]

    def one(lanes, key):
        return trained(static.filled(lanes), gradients, loose, start, key)[0][-1]

    at_once = vmap(one)(stacked, keys)
    for run in range(3):
        knobs = static.replace(**{name: values[run] for name, values in LANES.items()})
        alone = trained(knobs, gradients, loose, start, keys[run])[0][-1]
        torch.testing.assert_close({name: p[run] for name, p in at_once.items()}, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_update_traces_as_one_graph(variant):
    static = Settings(**VARIANTS[variant])

    def step(params, grads, state, lanes, key):
        knobs = static.filled(lanes)
        return chosen(static, TRAITS).update(grads, state, params, knobs, key, knobs.lr)

    states = vmap(chosen(static, TRAITS).init)({name: torch.stack([p, p]) for name, p in START.items()})
    params, grads = ({name: torch.stack([p, 2 * p]) for name, p in tree.items()} for tree in (START, GRADIENTS[0]))
    lanes = {name: torch.tensor(values[:2], dtype=DOUBLE) for name, values in LANES.items()}
    arguments = (params, grads, states, lanes, noise.key_of(torch.arange(2)))
    traced = make_fx(vmap(step), tracing_mode="fake")(*arguments)
    torch.testing.assert_close(traced(*arguments), vmap(step)(*arguments), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_follows_float64(variant):
    knobs = Settings(**VARIANTS[variant])
    start, *gradients = ({name: p for name, p in tree.items() if name != "gain"} for tree in (START, *GRADIENTS[:25]))
    single = [{name: p.float() for name, p in tree.items()} for tree in (start, *gradients)]
    close, _ = trained(knobs, single[1:], start=single[0])
    assert {p.dtype for p in close[-1].values()} == {torch.float32}
    for mine, truth in zip(close, trained(knobs, gradients, start=start)[0], strict=True):
        torch.testing.assert_close({name: p.double() for name, p in mine.items()}, truth, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", NEW)
def test_update_leaves_its_arguments_alone(name):
    knobs = Settings(optimizer=name, weight_decay=0.1)
    _, states = trained(knobs, GRADIENTS[:2])
    before = [{k: v.clone() for k, v in tree.items()} for tree in (states[0].get("m", {}), GRADIENTS[2], START)]
    chosen(knobs, TRAITS).update(GRADIENTS[2], states[0], START, knobs, KEY, 0.01)
    torch.testing.assert_close([states[0].get("m", {}), GRADIENTS[2], START], before, rtol=0, atol=0)


class Rounded(EveryOptimizer, Rounding):
    pass


@pytest.mark.parametrize("name", ["spam", "stable_spam"])
def test_where_a_state_is_rounded_its_counters_and_its_key_are_not(name):
    _, states = trained(Settings(optimizer=name, spam_interval=21, stable_spam_interval=21, spam_density=0.5))
    rounded = round_tree(states[39], Rounded(round_optimizer_state="e2m1"), "optimizer_state")
    assert (rounded["count"], rounded["reset"]) == (40, 21)
    assert not torch.equal(rounded["m"]["w"], states[39]["m"]["w"])
    if name == "spam":
        assert torch.equal(rounded["draw"], noise.fold(KEY, 20))


# perpGrad


def test_perp_grad_is_orthogonal_and_keeps_the_norm():
    w, g = normal("w", (30, 20)), normal("g", (30, 20))
    across = orthogonal(g, w)
    assert abs((w * across).sum()) < 1e-13 * w.norm() * g.norm()
    assert across.norm().item() == pytest.approx(g.norm().item(), rel=1e-14)
    projected = g - (w * g).sum() / w.square().sum() * w
    torch.testing.assert_close(across, projected * (g.norm() / projected.norm()), rtol=1e-12, atol=1e-12)


def test_perp_grad_acts_on_each_tensor_by_itself_and_leaves_the_decay_as_it_was():
    knobs = Settings(optimizer="sgd", momentum=0.0, perp_grad=True, weight_decay=0.1)
    (after, *_), _ = trained(knobs, GRADIENTS[:1])
    for name, p in START.items():
        torch.testing.assert_close(after[name], p - 0.01 * orthogonal(GRADIENTS[0][name], p) - 0.01 * 0.1 * p, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_along_the_weights_becomes_noise_of_full_norm(dtype):
    """The hazard of the published formula, which divides by the norm of what is left: rounding noise, or exactly nothing."""
    noisy = 0
    for trial in range(20):
        w = normal("w", (50,), trial).to(dtype)
        across = orthogonal(3 * w, w)
        assert torch.isfinite(across).all()
        if across.any():
            noisy += 1
            assert across.norm().item() == pytest.approx(3 * w.norm().item(), rel=1e-5)
    assert noisy > 10
    assert not orthogonal(torch.zeros(5), torch.ones(5)).any()
    torch.testing.assert_close(orthogonal(torch.ones(5), torch.zeros(5)), torch.ones(5))


def test_perp_grad_wraps_any_optimizer():
    params = {"w": normal("w", (6,))}
    inner = sgd()
    wrapped = perp_grad(inner)
    assert wrapped.init is inner.init
    updates, _ = wrapped.update({"w": normal("g", (6,))}, inner.init(params), params, Settings(momentum=0.0), None, 0.5)
    assert abs((updates["w"] * params["w"]).sum()) < 1e-14


# SPAM

QUICK = dict(optimizer="spam", spam_interval=20, spam_warmup=6, spam_patience=5, spam_threshold=50.0)
SPIKE = 33


def test_the_warmup_of_spam():
    count, warmup = torch.tensor(500.0), torch.tensor(150.0)
    published = {0: 0.010, 1: 0.0101, 10: 0.0207, 50: 0.2545, 75: 0.4999, 100: 0.7465, 149: 0.9996, 150: 1.0, 400: 1.0}
    for since, scale in published.items():
        assert spam_scale(count + since, count, warmup).item() == pytest.approx(scale, abs=6e-5)
    assert spam_scale(torch.tensor(3.0), torch.tensor(0.0), warmup) == 1  # none at the start
    assert spam_scale(count, count, torch.tensor(0.0)) == 1


def test_a_spike_is_clipped():
    knobs = Settings(**QUICK).replace(spam_threshold=5000.0)
    (_, states), (_, unclipped) = trained(knobs), trained(knobs.replace(spam_threshold=0.0))
    for name in SHAPES:
        before, after, spiked = (s["v"][name] for s in (states[SPIKE - 1], states[SPIKE], unclipped[SPIKE]))
        assert (after <= before * (0.999 + 0.001 * 5000) + 1e-15).all()
        assert (spiked > 3 * after).any()
        torch.testing.assert_close(states[SPIKE - 1]["v"][name], unclipped[SPIKE - 1]["v"][name])  # nothing else was


def test_a_spike_is_let_through_for_a_while_after_the_start_and_after_a_reset():
    for spike, is_clipped in {3: False, 5: True, 19: False, 23: False, 24: True}.items():  # update number spike + 1; resets at 20, 40
        gradients = [{"b": torch.full((4,), 100.0 if step == spike else 1.0, dtype=DOUBLE)} for step in range(30)]
        _, states = trained(Settings(**QUICK), gradients, Traits(), {"b": START["b"]})
        grown = states[spike]["v"]["b"] - 0.999 * (0 if spike == 19 else states[spike - 1]["v"]["b"])
        assert (grown < 0.001 * 100**2 * 0.99).all() == is_clipped, spike


def test_spam_resets_its_moments_every_interval():
    _, states = trained(Settings(**QUICK))
    assert [int(state["reset"]) for state in states] == [0] * 19 + [20] * 20 + [40] * 20 + [60]
    for number in (20, 40, 60):
        for name in SHAPES:
            torch.testing.assert_close(states[number - 1]["m"][name], 0.1 * GRADIENTS[number - 1][name])
            torch.testing.assert_close(states[number - 1]["v"][name], 0.001 * GRADIENTS[number - 1][name] ** 2)
    _, never = trained(Settings(**QUICK).replace(spam_interval=0))
    assert {int(state["reset"]) for state in never} == {0}


def test_spam_without_reset_and_threshold_is_adam():
    mine, _ = trained(Settings(optimizer="spam", spam_interval=0, spam_threshold=0.0, weight_decay=0.1))
    for a, b in zip(mine, trained(Settings(weight_decay=0.1))[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_after_a_reset_a_constant_gradient_moves_weights_by_more_than_the_rate_unless_the_bias_correction_restarts():
    gradients, start = [{"b": torch.ones(4, dtype=DOUBLE)}] * 460, {"b": START["b"]}
    moved = {}
    for kind in ("running", "restarted"):
        knobs = Settings(optimizer="spam", spam_interval=300, spam_warmup=0, spam_bias_correction=kind)
        paths, _ = trained(knobs, gradients, Traits(), start)
        moved[kind] = [(paths[i - 1]["b"] - paths[i]["b"])[0].item() / 0.01 for i in (298, 299, 449)]
    assert moved["restarted"] == pytest.approx([1, 1, 1], rel=1e-6)
    at_once, later = 0.1 * math.sqrt((1 - 0.999**300) / 0.001), math.sqrt((1 - 0.999**450) / (1 - 0.999**151))
    assert moved["running"] == pytest.approx([1, at_once, later], rel=1e-5)


def test_an_entry_without_gradient_at_first_stays_where_it_is_until_the_next_reset():
    """Clipping at sqrt(threshold v) is clipping at 0 where v is 0. So does the released code."""
    gradients = [{"b": torch.tensor([1.0, 0.0 if step < 6 else 1.0], dtype=DOUBLE)} for step in range(24)]
    paths, _ = trained(Settings(**QUICK), gradients, Traits(), {"b": torch.zeros(2, dtype=DOUBLE)})
    assert paths[18]["b"][0] != 0 and paths[18]["b"][1] == 0
    assert paths[23]["b"][1] != 0


def test_the_interval_may_change_in_mid_run():
    _, states = trained(Settings(**QUICK), changed=lambda step: Settings(**QUICK).replace(spam_interval=20 if step < 30 else 9))
    assert sorted({int(state["reset"]) for state in states}) == [0, 20, 36, 45, 54]


def test_sparse_spam_moves_a_subset_that_is_drawn_again_at_each_reset():
    start = {"w": normal("w", (40, 50)), "b": START["b"]}
    gradients = [{name: normal(name, tuple(p.shape), step) for name, p in start.items()} for step in range(45)]
    knobs = Settings(**QUICK, spam_density=0.3, weight_decay=0.1)
    paths, states = trained(knobs, gradients, start=start)
    spans = [(start, paths[18]), (paths[18], paths[38]), (paths[38], paths[44])]
    subsets = [before["w"] != after["w"] for before, after in spans]
    for subset, state in zip(subsets, (states[18], states[38], states[44]), strict=True):
        assert subset.double().mean().item() == pytest.approx(0.3, abs=0.04)
        assert torch.equal(state["v"]["w"] != 0, subset)
    assert (subsets[0] & subsets[1]).double().mean().item() == pytest.approx(0.09, abs=0.03)
    assert all((after["b"] != before["b"]).all() for before, after in spans)  # no matrix
    again, _ = trained(knobs, gradients, start=start)
    other, _ = trained(knobs, gradients, start=start, key=noise.key_of(1))
    assert torch.equal(again[-1]["w"], paths[-1]["w"]) and not torch.equal(other[18]["w"] != start["w"], subsets[0])


# Stable-SPAM

STEADY = dict(optimizer="stable_spam", stable_spam_interval=20)


def test_stable_spam_bounds_a_spike_whatever_its_size():
    def after(size):
        gradients = [{"b": (size if step == 30 else 1.0) * normal("b", (4,), step)} for step in range(31)]
        return trained(Settings(**STEADY), gradients, Traits(), {"b": START["b"]})[0]

    hundred, billion = after(1e2), after(1e9)
    last = [(paths[30]["b"] - paths[29]["b"]).norm() for paths in (hundred, billion)]
    usual = (hundred[29]["b"] - hundred[28]["b"]).norm()
    assert max(last) < 3 * usual and abs(last[0] - last[1]) < 0.5 * usual


def test_stable_spam_does_not_care_for_the_scale_of_gradients():
    paths, scaled = (
        trained(Settings(optimizer="stable_spam", epsilon=1e-30), [{n: c * g for n, g in grads.items()} for grads in GRADIENTS])[0]
        for c in (1.0, 1e-3)
    )
    torch.testing.assert_close(paths[-1], scaled[-1], rtol=1e-9, atol=1e-9)


def test_after_a_reset_the_released_stable_spam_clips_nothing():
    gradients = [{"b": torch.full((4,), 20.0 if step == 202 else 1.0, dtype=DOUBLE)} for step in range(203)]
    norms = {}
    for released in (False, True):
        knobs = Settings(optimizer="stable_spam", stable_spam_interval=200, stable_spam_gamma3=0.99, stable_spam_released=released)
        _, states = trained(knobs, gradients, Traits(), {"b": START["b"]})
        norms[released] = (states[202]["norm"]["b"] - 0.7 * states[201]["norm"]["b"]).item() / 0.3
    assert norms[True] == pytest.approx(40)  # 20 in each of four entries
    assert norms[False] < 3


def test_a_gradient_of_zero_is_harmless():
    still = {name: torch.zeros_like(p) for name, p in START.items()}
    for name in NAMES:
        paths, _ = trained(Settings(optimizer=name), [still] * 3)
        torch.testing.assert_close(paths[-1], START, rtol=0, atol=0)


# AdaBelief


def test_adabelief_of_a_constant_gradient():
    gradients, start = [{"b": torch.full((2,), 2.0, dtype=DOUBLE)}] * 400, {"b": torch.zeros(2, dtype=DOUBLE)}
    for adds in (True, False):
        knobs = Settings(optimizer="adabelief", epsilon=1e-6, beta2=0.9, adabelief_adds_epsilon=adds)
        _, states = trained(knobs, gradients, Traits(), start)
        torch.testing.assert_close(states[-1]["s"]["b"], torch.full((2,), 1e-5 if adds else 0.0, dtype=DOUBLE), rtol=1e-6, atol=1e-12)


def test_rectified_adabelief_begins_with_steps_of_the_gradients_size():
    knobs = Settings(optimizer="adabelief", adabelief_rectify=True)
    (first, *_), _ = trained(knobs, GRADIENTS[:1])
    torch.testing.assert_close(first, {name: p - 0.01 * GRADIENTS[0][name] for name, p in START.items()}, rtol=1e-12, atol=1e-12)


# Lion, Muon


def test_lion_moves_every_entry_by_the_rate():
    paths, _ = trained(Settings(optimizer="lion"))
    for before, after in itertools.pairwise(paths):
        for name in SHAPES:
            torch.testing.assert_close((after[name] - before[name]).abs(), torch.full_like(after[name], 0.01), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 4), (4, 9), (8, 8)])
def test_orthogonalized(shape):
    matrix = normal("matrix", shape)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    out = orthogonalized(matrix)
    inner = u.mT @ out @ vh.mT
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), rtol=0, atol=1e-12)  # the same singular vectors
    large = inner.diagonal()[s > 1.6e-3 * s.norm()]
    assert large.min() > 0.68 and large.max() < 1.21
    torch.testing.assert_close(orthogonalized(1e-3 * matrix), out)


def test_muon_moves_matrices_and_leaves_the_rest_to_adamw():
    knobs = Settings(optimizer="muon", muon_rest=0.1, lr=0.02, weight_decay=0.1)
    paths, _ = trained(knobs)
    rest = {name: p for name, p in START.items() if name != "w"}
    plain, _ = trained(Settings(lr=0.002, weight_decay=0.1), [{name: grads[name] for name in rest} for grads in GRADIENTS], Traits(), rest)
    torch.testing.assert_close({name: paths[-1][name] for name in rest}, plain[-1], rtol=1e-12, atol=1e-12)
    step = (paths[0]["w"] - START["w"] * (1 - 0.02 * 0.1)) / -0.02
    torch.testing.assert_close(step, orthogonalized(GRADIENTS[0]["w"]), rtol=1e-9, atol=1e-9)
    wide, _ = trained(knobs.replace(muon_scale="rms", weight_decay=0.0))
    assert ((wide[0]["w"] - START["w"]) / 0.02).square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


def test_muon_without_matrices_says_so():
    with pytest.raises(InputError, match="has none that it knows of; choose another optimizer"):
        chosen(Settings(optimizer="muon")).init(START)


def test_muon_moves_a_net_of_nothing_but_matrices():
    start = {name: START[name] for name in ("w",)}
    knobs = Settings(optimizer="muon", lr=0.1)
    paths, _ = trained(knobs, [{"w": GRADIENTS[0]["w"]}], Traits(matrices=frozenset(start)), start)
    assert not torch.equal(paths[0]["w"], start["w"])


def test_spam_trains_at_the_least_patience_and_says_what_it_draws_with():
    knobs = Settings(optimizer="spam", spam_patience=2, spam_interval=0)
    paths, _ = trained(knobs, [{"b": torch.full((2,), 2.0, dtype=DOUBLE)}] * 30, Traits(), {"b": torch.zeros(2, dtype=DOUBLE)})
    assert (paths[-1]["b"] < -20 * knobs.lr).all()
    with pytest.raises(InputError, match="it must be at least 2"):
        Settings(spam_patience=1)
    with pytest.raises(InputError, match="has no key here"):
        sparse = Settings(optimizer="spam", spam_density=0.5)
        chosen(sparse).update(START, chosen(sparse).init(START), START, sparse, None, 0.1)


# Effective step


def test_what_the_released_stable_spam_divided_by_at_a_reset_is_gone():
    knobs = Settings(optimizer="stable_spam", stable_spam_interval=5, stable_spam_released=True)
    _, states = trained(knobs)
    found = [effective_step(state, knobs, 0.01, TRAITS)["w"].isnan().item() for state in states[:12]]
    assert [i + 1 for i, gone in enumerate(found) if gone] == [5, 10]


@pytest.mark.parametrize(
    "variant", ["spam", "spam, released, decay l2", "spam, sparse, restarted", "stable_spam", "adabelief", "adabelief, rectified"]
)
def test_the_effective_step_maps_mean_gradients_to_updates(variant):
    knobs = Settings(**VARIANTS[variant]).replace(beta1=0.0, spam_density=1.0, spam_interval=20, stable_spam_interval=20)
    traits = Traits({"gain": 3.0})
    params, state = START, chosen(knobs, traits).init(START)
    for step, grads in enumerate(GRADIENTS):
        updates, state = chosen(knobs, traits).update(grads, state, params, knobs, KEY, 0.01)
        found = effective_step(state, knobs, 0.01, traits)
        for name in SHAPES:
            m, v = state["m"][name], updates[name]
            expected = torch.exp(torch.log(v.abs() / m.abs()).mean())  # with beta1 = 0 m_hat is m
            assert found[name].item() == pytest.approx(expected.item(), rel=1e-9), (step, name)


@pytest.mark.parametrize("name", ["sgd", "lion", "muon"])
def test_without_mean_squares_there_is_no_effective_step(name):
    knobs = Settings(optimizer=name)
    assert effective_step(chosen(knobs, TRAITS).init(START), knobs, 0.01, TRAITS) is None


def test_the_effective_step_of_sparse_spam_is_of_what_moves():
    start = {"w": normal("w", (40, 50))}
    gradients = [{"w": normal("w", (40, 50), step)} for step in range(3)]
    knobs = Settings(optimizer="spam", spam_density=0.3, beta1=0.0)
    paths, states = trained(knobs, gradients, start=start)
    moves = paths[2]["w"] != paths[1]["w"]
    expected = torch.exp(torch.log(((paths[2]["w"] - paths[1]["w"]) / states[2]["m"]["w"])[moves].abs()).mean())
    torch.testing.assert_close(effective_step(states[2], knobs, 0.01, TRAITS)["w"], expected)


# A run that changes its optimizer


class Small(EveryOptimizer, Schedule, Perceptron):
    pass


LEARNER = Supervised(lambda knobs: MLP(knobs, 6, 3))


def switched(old: dict, new: dict, updates: int = 3) -> tuple[dict, dict]:
    """The states of the optimizer before and after a switch."""
    knobs, after = Small(width=5, depth=2, **old), Small(width=5, depth=2, **new)
    shared, other = (LEARNER.prepare(each, KEY) for each in (knobs, after))
    state = LEARNER.init(KEY, knobs, shared)
    for step in range(updates):
        grads = {name: normal(name, tuple(p.shape), step).float() for name, p in state["params"].items()}
        moved, optimizer = chosen(knobs, shared["traits"]).update(grads, state["optimizer"], state["params"], knobs, KEY, 0.01)
        state = {**state, "optimizer": optimizer, "params": {name: p + moved[name] for name, p in state["params"].items()}}
    return state["optimizer"], LEARNER.adapt(state, KEY, Terms(knobs, shared), Terms(after, other))["optimizer"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (dict(optimizer="adamw"), dict(optimizer="spam")),
        (dict(optimizer="spam"), dict(optimizer="adamw")),
        (dict(optimizer="adamw"), dict(optimizer="adamw", perp_grad=True)),
        (dict(optimizer="spam"), dict(optimizer="spam", spam_released=True, spam_density=0.5)),
    ],
)
def test_moments_of_the_same_kind_are_kept(old, new):
    before, after = switched(old, new)
    torch.testing.assert_close(
        [after[leaf] for leaf in ("count", "m", "v")], [before[leaf] for leaf in ("count", "m", "v")], rtol=0, atol=0
    )
    assert ("reset" in after) == (new["optimizer"] == "spam")
    assert after.get("reset", 0) == 0


@pytest.mark.parametrize("old", NAMES)
@pytest.mark.parametrize("new", NAMES)
def test_moments_of_another_kind_begin_at_zero(old, new):
    before, after = switched(dict(optimizer=old), dict(optimizer=new))
    goes_on = old == new or {old, new} == {"adamw", "spam"}
    assert same_kind(before, after) == goes_on
    if not goes_on:
        torch.testing.assert_close(after, zeros_of(after), rtol=0, atol=0)


def zeros_of(state: dict) -> dict:
    return {name: zeros_of(value) if isinstance(value, dict) else torch.zeros_like(value) for name, value in state.items()}


def test_the_learner_says_which_parameters_are_matrices():
    traits = LEARNER.prepare(Small(width=5, depth=3), KEY)["traits"]
    assert traits.matrices == {"layers.0.weight", "layers.1.weight", "layers.2.weight"}
