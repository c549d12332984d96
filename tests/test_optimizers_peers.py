"""Each optimizer, step by step, against the implementation of it in kozistr's pytorch_optimizer; where they differ, why."""

import math
from functools import partial

import pytest
import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer import spam as their_spam
from pytorch_optimizer.optimizer.muon import base as their_muon

from workbench import noise
from workbench.learners import Supervised
from workbench.models import MLP, Perceptron
from workbench.optimizers import EveryOptimizer, Traits, chosen, orthogonalized, spam_scale
from workbench.schedules import Schedule
from workbench.testing import check_learner

SHAPES = {"tall": (5, 3), "wide": (3, 7), "vector": (4,), "scalar": ()}
MATRICES = frozenset({"tall", "wide"})
STEPS = 80
SPIKES = {30: 300.0, 45: 1000.0}  # factors of single gradients
LR = 0.01


class Settings(EveryOptimizer, Schedule, defaults={"lr": LR}):
    pass


def draws(source: torch.Generator) -> dict:
    return {name: torch.randn(shape, generator=source, dtype=torch.float64) for name, shape in SHAPES.items()}


SOURCE = torch.Generator().manual_seed(1)
START = draws(SOURCE)
GRADIENTS = [{name: SPIKES.get(step, 1.0) * g for name, g in draws(SOURCE).items()} for step in range(STEPS)]


def ours(gradients: list[dict] = GRADIENTS, key: torch.Tensor | None = None, **values) -> list[dict]:
    knobs, params, path = Settings(**values), START, []
    optimizer = chosen(knobs, Traits(matrices=MATRICES))
    state = optimizer.init(params)
    for grads in gradients:
        updates, state = optimizer.update(grads, state, params, knobs, key, LR)
        params = {name: p + updates[name] for name, p in params.items()}
        path.append(params)
    return path


def theirs(make, gradients: list[dict] = GRADIENTS) -> list[dict]:
    params = {name: torch.nn.Parameter(p.clone()) for name, p in START.items()}
    optimizer, path = make(params), []
    for grads in gradients:
        for name, p in params.items():
            p.grad = grads[name].clone()
        optimizer.step()
        path.append({name: p.detach().clone() for name, p in params.items()})
    return path


def assert_same(mine: list[dict], other: list[dict], names=tuple(SHAPES), tolerance: float = 1e-11) -> None:
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close({n: a[n] for n in names}, {n: b[n] for n in names}, rtol=tolerance, atol=tolerance)


def first_difference(mine: list[dict], other: list[dict]) -> int:
    """The first update after which any parameter differs."""
    return next(i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if any((a[n] - b[n]).abs().max() > 1e-9 for n in SHAPES))


# Lion, AdaBelief


@pytest.mark.parametrize("kind", ["l2", "coupled"])
def test_lion(kind):
    mine = ours(optimizer="lion", beta2=0.99, weight_decay=0.1, weight_decay_kind=kind)
    assert_same(mine, theirs(lambda p: pytorch_optimizer.Lion(p.values(), LR, weight_decay=0.1, weight_decouple=kind == "coupled")))


@pytest.mark.parametrize("epsilon", [1e-16, 1e-3])
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("kind", ["l2", "coupled"])
def test_adabelief(kind, rectify, epsilon):
    mine = ours(optimizer="adabelief", epsilon=epsilon, adabelief_rectify=rectify, weight_decay=0.1, weight_decay_kind=kind)
    options = dict(eps=epsilon, rectify=rectify, weight_decay=0.1, weight_decouple=kind == "coupled")
    assert_same(mine, theirs(lambda p: pytorch_optimizer.AdaBelief(p.values(), LR, **options)))


# SPAM: theirs is the released code, with the cosine of the warmup one step ahead.

SPAM = dict(optimizer="spam", epsilon=1e-6, spam_interval=25, spam_warmup=8, spam_patience=6, spam_threshold=50.0)


def their_spam_of(**options):
    return lambda p: pytorch_optimizer.SPAM(
        p.values(), LR, update_proj_gap=25, warmup_epoch=8, grad_accu_steps=6, threshold=50, **{"eps": 1e-6, **options}
    )


def closed_form(decay, step: int) -> float:
    """Of the cosine that SPAM's released code takes from torch's scheduler by step(epoch)."""
    share = (1 + math.cos(math.pi * step / (decay.t_max + 1))) / 2
    return decay.eta_min + (decay.sgd.defaults["lr"] - decay.eta_min) * share if step < decay.t_max else decay.eta_min


@pytest.fixture
def warmup_in_step(monkeypatch):
    monkeypatch.setattr(their_spam.CosineDecay, "get_death_rate", closed_form)


def test_their_warmup_after_a_reset_is_one_step_ahead():
    decay, reset, warmup = their_spam.CosineDecay(0.99, 8), torch.tensor(25.0), torch.tensor(8.0)
    for step in range(8):
        assert spam_scale(reset + step, reset, warmup).item() == pytest.approx(_scale(step))
        assert 1 - decay.get_death_rate(step) == pytest.approx(_scale(step + 1))
    assert first_difference(ours(**SPAM, spam_released=True), theirs(their_spam_of())) == 24  # at the first reset


def _scale(step: int) -> float:
    return 1 - 0.99 * (1 + math.cos(math.pi * step / 9)) / 2


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_spam_as_released(weight_decay, warmup_in_step):
    mine = ours(**SPAM, spam_released=True, weight_decay=weight_decay)
    assert_same(mine, theirs(their_spam_of(weight_decay=weight_decay)))


def test_spam_differs_from_its_released_code_in_where_epsilon_stands_only(warmup_in_step):
    without = {**SPAM, "epsilon": 1e-300}
    assert_same(ours(**without), theirs(their_spam_of(eps=0.0)))
    assert first_difference(ours(**SPAM), theirs(their_spam_of())) == 0


def test_spam_decays_the_weights_of_before_the_step_but_its_released_code_those_of_after(warmup_in_step):
    decay = 0.1
    mine, other = ours(**{**SPAM, "epsilon": 1e-300}, weight_decay=decay), theirs(their_spam_of(eps=0.0, weight_decay=decay))
    for name, start in START.items():
        step = mine[0][name] - start * (1 - LR * decay)
        torch.testing.assert_close(other[0][name], (start + step) * (1 - LR * decay), rtol=1e-12, atol=1e-12)


def test_sparse_spam(warmup_in_step, monkeypatch):
    """Given our subsets: theirs first has exactly the share, later subsets are drawn entry by entry as ours."""
    key = noise.key_of(3)
    by_shape = {SHAPES[name]: noise.uniform(key, f"spam:{name}", SHAPES[name]) for name in MATRICES}
    monkeypatch.setattr(torch, "rand_like", lambda p: by_shape[tuple(p.shape)])
    monkeypatch.setattr(
        pytorch_optimizer.SPAM,
        "initialize_random_rank_boolean_tensor",
        staticmethod(lambda m, n, density, device: by_shape[m, n] < density),
    )
    mine = ours(key=key, **SPAM, spam_released=True, spam_density=0.4, weight_decay=0.1)
    assert_same(mine, theirs(their_spam_of(density=0.4, weight_decay=0.1)))


# Stable-SPAM: theirs is what the paper says, not what its authors released.

STABLE = dict(optimizer="stable_spam", stable_spam_interval=25, weight_decay=0.1)


def their_stable_spam(p, **options):
    return pytorch_optimizer.StableSPAM(p.values(), LR, update_proj_gap=25, weight_decay=0.1, **options)


def test_stable_spam():
    assert_same(ours(**STABLE), theirs(their_stable_spam))


def test_stable_spam_with_falling_betas(warmup_in_step):
    mine = ours(**STABLE, stable_spam_fall=100, stable_spam_share=0.4)
    assert_same(mine, theirs(partial(their_stable_spam, t_max=100, eta_min=0.4)))


def test_a_gradient_of_zero_stops_their_stable_spam_and_lets_ours_coast():
    gradients = [*GRADIENTS[:10], {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}]
    mine, other = (
        ours(gradients, **{**STABLE, "weight_decay": 0.0}),
        theirs(lambda p: pytorch_optimizer.StableSPAM(p.values(), LR), gradients),
    )
    for name in SHAPES:
        assert torch.equal(other[10][name], other[9][name])
        assert (mine[10][name] != mine[9][name]).all()


def written_out(gamma1=0.7, gamma2=0.9, gamma3=0.999, interval=25, beta1=0.9, beta2=0.999, epsilon=1e-8) -> list[dict]:
    """Stable-SPAM's released code in its own order: one counter for all corrections, a reset that keeps the old buffers in use."""
    params, path = START, []
    each = {name: dict(step=0, m=0.0 * p, v=0.0 * p, most=0.0, norm=0.0, square=0.0) for name, p in START.items()}
    for t, grads in enumerate(GRADIENTS, start=1):
        moved = {}
        for name, p in params.items():
            s, g = each[name], grads[name].clone()
            s["step"] += 1
            peak = g.abs().max()
            s["most"] = gamma3 * s["most"] + (1 - gamma3) * peak
            limit = s["most"] / (1 - gamma3 ** s["step"])
            g[g.abs() > limit] *= limit / peak
            length = g.norm()
            s["norm"] = gamma1 * s["norm"] + (1 - gamma1) * length
            s["square"] = gamma2 * s["square"] + (1 - gamma2) * length**2
            g *= s["norm"] / (1 - gamma1 ** s["step"]) / ((s["square"] / (1 - gamma2 ** s["step"])).sqrt() + epsilon) / length
            m, v = s["m"], s["v"]
            if t % interval == 0:
                s.update(step=1, m=0.0 * p, v=0.0 * p)
            m.mul_(beta1).add_((1 - beta1) * g)
            v.mul_(beta2).add_((1 - beta2) * g * g)
            divisor = (v / (1 - beta2 ** s["step"])).sqrt() + epsilon
            moved[name] = p * (1 - LR * 0.1) - LR * m / (1 - beta1 ** s["step"]) / divisor
        params = moved
        path.append(params)
    return path


def test_stable_spam_as_released():
    assert_same(ours(**STABLE, stable_spam_released=True), written_out())
    assert first_difference(ours(**STABLE), written_out()) == 24


# Muon: theirs iterates in bfloat16, as released.


def their_muon_of(p, **options):
    matrices, rest = ([x for name, x in p.items() if (name in MATRICES) is inside] for inside in (True, False))
    groups = [dict(params=matrices, lr=LR, use_muon=True), dict(params=rest, lr=0.02 * LR, betas=(0.9, 0.95), eps=1e-8, use_muon=False)]
    return pytorch_optimizer.Muon([{**group, "weight_decay": 0.1, **options} for group in groups])


MUON = dict(optimizer="muon", beta2=0.95, muon_rest=0.02, weight_decay=0.1)


@pytest.mark.parametrize(("scale", "options"), [("shape", {}), ("rms", dict(use_adjusted_lr=True))])
def test_muon(scale, options, monkeypatch):
    assert_same(ours(**MUON, muon_scale=scale, muon_bfloat16=True), theirs(partial(their_muon_of, **options)))
    in_bfloat16 = their_muon.zero_power_via_newton_schulz_5
    monkeypatch.setattr(their_muon, "zero_power_via_newton_schulz_5", partial(in_bfloat16, dtype=torch.float64))
    assert_same(ours(**MUON, muon_scale=scale), theirs(partial(their_muon_of, **options)))


def test_bfloat16_changes_an_update_of_muon_by_some_percent():
    for g in (grads[name] for grads in GRADIENTS for name in MATRICES):
        difference = orthogonalized(g.bfloat16()).double() - orthogonalized(g)
        assert 1e-3 < difference.norm() / orthogonalized(g).norm() < 0.1


# perpGrad


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("inner", ["adamw", "sgd"])
def test_perp_grad(inner, weight_decay):
    """Except for the scalar: its gradient is parallel to it. Published, the rounding noise is scaled up; theirs puts 0 in its place."""
    makes = dict(
        adamw=lambda p: torch.optim.AdamW(p.values(), LR, weight_decay=weight_decay),
        sgd=lambda p: torch.optim.SGD(p.values(), LR, momentum=0.9, weight_decay=weight_decay),
    )
    kind = "coupled" if inner == "adamw" else "l2"
    mine = ours(optimizer=inner, perp_grad=True, weight_decay=weight_decay, weight_decay_kind=kind)
    other = theirs(lambda p: pytorch_optimizer.OrthoGrad(makes[inner](p)))
    assert_same(mine, other, [name for name in SHAPES if name != "scalar"])
    if not weight_decay:
        assert all(path["scalar"] == START["scalar"] for path in other)
        assert mine[-1]["scalar"] != START["scalar"]


# The battery


class Small(EveryOptimizer, Schedule, Perceptron, defaults={"width": 5, "depth": 2}):
    pass


def ring(knobs, key):
    x = noise.normal(key, "x", (8, 6))
    return dict(x=x, y=(x.square().sum(1) > 6).long())


@pytest.mark.parametrize(
    "values",
    [
        dict(optimizer="adabelief", adabelief_rectify=True),
        dict(optimizer="lion"),
        dict(optimizer="muon"),
        dict(optimizer="spam", spam_interval=3, spam_patience=2, spam_density=0.5),
        dict(optimizer="stable_spam", stable_spam_interval=3, stable_spam_released=True),
        dict(perp_grad=True),
    ],
    ids=lambda values: values.get("optimizer", "perp_grad"),
)
def test_a_learner_with_it_passes_the_battery(values):
    assert check_learner(Supervised(lambda knobs: MLP(knobs, 6, 2)), ring, Small(**values)) == []
