import math

import pytest
import torch
from torch.func import vmap
from torch.optim.lr_scheduler import LambdaLR

from workbench.errors import InputError
from workbench.knobs import Knobs, prefixed, specs
from workbench.optimizers import (
    ROLES,
    Adam,
    Clipping,
    Momentum,
    Optimizer,
    Optimizers,
    Traits,
    adam,
    chosen,
    clip_global_norm,
    effective_step,
    of_role,
    sgd,
)
from workbench.schedules import Schedule, rate

SHAPES = {"w": (3, 4), "b": (4,), "gain": ()}
STEPS = 25


class Settings(Optimizers, Schedule):
    pass


def draws(source: torch.Generator) -> dict:
    return {name: torch.randn(shape, generator=source, dtype=torch.float64) for name, shape in SHAPES.items()}


SOURCE = torch.Generator().manual_seed(0)
START, GRADIENTS = draws(SOURCE), [draws(SOURCE) for _ in range(STEPS)]


def cast(tree: dict, dtype: torch.dtype) -> dict:
    return {name: x.to(dtype) for name, x in tree.items()}


def ours(optimizer: Optimizer, knobs: Knobs, dtype: torch.dtype = torch.float64) -> list[dict]:
    params, path = cast(START, dtype), []
    state = optimizer.init(params)
    for step, grads in enumerate(GRADIENTS):
        updates, state = optimizer.update(cast(grads, dtype), state, params, knobs, None, rate(knobs, torch.tensor(step, dtype=dtype)))
        params = {name: p + updates[name] for name, p in params.items()}
        path.append(params)
    return path


def theirs(make, warmup: int = 0, clip: float = 0.0, groups=None) -> list[dict]:
    params = {name: torch.nn.Parameter(p.clone()) for name, p in START.items()}
    optimizer = make(groups(params) if groups else params.values())
    schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(warmup, 1)))
    path = []
    for grads in GRADIENTS:
        for name, p in params.items():
            p.grad = grads[name].clone()
        if clip:
            torch.nn.utils.clip_grad_norm_(params.values(), clip)
        optimizer.step()
        schedule.step()
        path.append({name: p.detach().clone() for name, p in params.items()})
    return path


def assert_same(ours: list[dict], truth: list[dict], rtol: float = 1e-11) -> None:
    for mine, other in zip(ours, truth, strict=True):
        torch.testing.assert_close(mine, other, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_equals_torch(momentum, weight_decay, warmup):
    knobs = Settings(optimizer="sgd", lr=0.05, momentum=momentum, weight_decay=weight_decay, weight_decay_kind="l2", warmup=warmup)
    truth = theirs(lambda p: torch.optim.SGD(p, lr=0.05, momentum=momentum, weight_decay=weight_decay), warmup)
    assert_same(ours(chosen(knobs), knobs), truth)


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("settings", [{}, dict(beta1=0.0, beta2=0.95), dict(beta1=0.8, beta2=0.0, epsilon=1e-3)])
@pytest.mark.parametrize("kind", ["l2", "coupled"])
def test_adam_and_adamw_equal_torch(kind, settings, warmup):
    knobs = Settings(lr=0.05, weight_decay=0.1, weight_decay_kind=kind, warmup=warmup, **settings)
    reference = torch.optim.Adam if kind == "l2" else torch.optim.AdamW
    betas = (knobs.beta1, knobs.beta2)
    truth = theirs(lambda p: reference(p, lr=0.05, betas=betas, eps=knobs.epsilon, weight_decay=0.1), warmup)
    assert_same(ours(chosen(knobs), knobs), truth)


def test_adam_in_float32_follows_float64():
    knobs = Settings(lr=0.05)
    close = ours(chosen(knobs), knobs, torch.float32)
    for mine, truth in zip(close, ours(chosen(knobs), knobs), strict=True):
        torch.testing.assert_close(cast(mine, torch.float64), truth, rtol=1e-5, atol=1e-5)


def test_multipliers_and_undecayed_parameters_are_torchs_parameter_groups():
    knobs = Settings(lr=0.05, weight_decay=0.1, warmup=10)
    roles = {"w": "matrix", "b": "bias", "gain": "gain"}
    traits = Traits(scales={"w": 0.25}, decayed=of_role(roles, "matrix", "embedding"))

    def groups(params):
        plain = dict(params=[params["b"], params["gain"]], weight_decay=0.0)
        return [dict(params=[params["w"]], lr=0.05 * 0.25, weight_decay=0.1), plain]

    assert_same(ours(chosen(knobs, traits), knobs), theirs(lambda g: torch.optim.AdamW(g, lr=0.05), 10, groups=groups))
    knobs = knobs.replace(optimizer="sgd", weight_decay_kind="l2")
    assert_same(ours(chosen(knobs, traits), knobs), theirs(lambda g: torch.optim.SGD(g, lr=0.05, momentum=0.9), 10, groups=groups))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_independent_decay_follows_the_schedule_but_not_the_rate(optimizer):
    knobs = Settings(optimizer=optimizer, lr=0.05, warmup=10, weight_decay=0.01, weight_decay_kind="independent")
    traits = Traits(scales={"w": 0.25}, decayed=frozenset({"w", "b"}))
    decaying, plain = ours(chosen(knobs, traits), knobs), ours(chosen(knobs, traits), knobs.replace(weight_decay=0.0))
    for name in SHAPES:
        decay, previous, previous_plain = 0.01 if name in traits.decayed else 0.0, START[name], START[name]
        for step in range(STEPS):
            delta = plain[step][name] - previous_plain
            expected = previous + delta - min(1.0, (step + 1) / 10) * decay * previous
            torch.testing.assert_close(decaying[step][name], expected, rtol=1e-11, atol=1e-11)
            previous, previous_plain = decaying[step][name], plain[step][name]


@pytest.mark.parametrize("clip", [0.5, 4.0, 100.0])
def test_clipping_equals_torch(clip):
    knobs = Settings(optimizer="sgd", lr=0.05, clip=clip)
    assert_same(ours(chosen(knobs), knobs), theirs(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), clip=clip))


def test_no_limit_changes_nothing():
    knobs = Settings(lr=0.05)
    unclipped = ours(adam(), knobs)
    for clip in (0.0, torch.tensor(0.0), torch.tensor(math.inf)):
        assert_same(ours(clip_global_norm(adam()), knobs.replace(clip=clip)), unclipped, rtol=0)


LANES = dict(
    lr=[0.1, 0.01, 0.03],
    beta1=[0.9, 0.0, 0.5],
    beta2=[0.999, 0.9, 0.0],
    epsilon=[1e-8, 1e-3, 1e-15],
    momentum=[0.0, 0.9, 0.5],
    weight_decay=[0.0, 0.1, 0.3],
    clip=[0.0, 1.0, 3.0],
    warmup=[0, 5, 50],
)


@pytest.mark.parametrize("kind", ["l2", "coupled", "independent"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_lanes_equal_the_loop(optimizer, kind):
    static = Settings(optimizer=optimizer, weight_decay_kind=kind)
    stacked = {name: torch.tensor(values, dtype=torch.float64) for name, values in LANES.items()}

    def trained(lane):
        return ours(chosen(static), static.filled(lane))[-1]

    at_once = vmap(trained)(stacked)
    for run in range(3):
        alone = ours(chosen(static), static.replace(**{name: values[run] for name, values in LANES.items()}))[-1]
        torch.testing.assert_close({name: p[run] for name, p in at_once.items()}, alone, rtol=1e-11, atol=1e-11)


def test_a_step_compiles_without_a_graph_break():
    static = Settings(schedule="cosine")

    def step(params, grads, state, lanes):
        knobs = static.filled(lanes)
        return chosen(static).update(grads, state, params, knobs, None, rate(knobs, state["count"]))

    params = {name: torch.stack([p, 2 * p]) for name, p in START.items()}
    state = vmap(adam().init)(params)
    lanes = {"lr": torch.tensor([0.1, 0.2]), "clip": torch.tensor([0.0, 1.0]), "beta2": torch.tensor([0.9, 0.99])}
    compiled = torch.compile(lambda *a: vmap(step)(*a), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(params, params, state, lanes), vmap(step)(params, params, state, lanes))


def test_adam_keeps_two_numbers_a_parameter_and_sgd_one():
    params = START
    count = sum(p.numel() for p in params.values())
    state = adam().init(params)
    assert set(state) == {"count", "m", "v"} and state["count"].shape == ()
    assert sum(x.numel() for tree in (state["m"], state["v"]) for x in tree.values()) == 2 * count
    assert sum(x.numel() for x in sgd().init(params)["momentum"].values()) == count


def test_update_leaves_its_arguments_alone():
    params, grads = {name: p.clone() for name, p in START.items()}, GRADIENTS[0]
    for optimizer in (adam(), sgd()):
        state = optimizer.init(params)
        optimizer.update(grads, state, params, Settings(weight_decay=0.1, weight_decay_kind="l2"), None, 0.1)
        assert all(not x.any() for tree in state.values() for x in (tree.values() if isinstance(tree, dict) else [tree]))
        torch.testing.assert_close(params, START, rtol=0, atol=0)


def test_effective_step_of_a_constant_gradient():
    params = {"w": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}
    grads = {"w": torch.tensor([0.01, -4.0], dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}
    knobs, optimizer = Settings(epsilon=1e-6), adam()
    state = optimizer.init(params)
    at_start = effective_step(state, knobs, 0.1)
    assert (at_start["w"].item(), at_start["b"].item()) == pytest.approx((1e5, 1e5))
    for _ in range(7):
        _, state = optimizer.update(grads, state, params, knobs, None, 0.1)
    after = effective_step(state, knobs, 0.1, Traits(scales={"b": 0.5}))
    assert after["w"].item() == pytest.approx(0.1 / math.sqrt((0.01 + 1e-6) * (4 + 1e-6)))
    assert after["b"].item() == pytest.approx(0.5e5)


def test_a_study_mixes_in_what_it_needs():
    class OnlyAdam(Adam, Schedule):
        pass

    class OnlySgd(Momentum, Clipping, Schedule):
        pass

    class Players(prefixed("critic", Optimizers), Schedule):
        pass

    assert (OnlyAdam().weight_decay_kind, OnlySgd().weight_decay_kind, Settings().weight_decay_kind) == ("coupled", "l2", "coupled")
    params = START
    assert set(chosen(OnlyAdam()).init(params)) == {"count", "m", "v"}
    assert set(chosen(OnlySgd()).init(params)) == {"momentum"}
    assert set(chosen(Players(critic_optimizer="sgd").view("critic")).init(params)) == {"momentum"}
    live = {name for name, spec in specs(Settings).items() if spec.acts == "live"}
    assert {"beta1", "beta2", "epsilon", "momentum", "weight_decay", "clip", "lr", "warmup", "warmup_from", "horizon"} <= live


def test_bad_names_are_named():
    with pytest.raises(InputError, match="parameter 'weigth'"):
        adam(Traits(scales={"weigth": 2.0})).init({"weight": torch.zeros(2)})
    with pytest.raises(InputError, match="parameter role 'matrx'; did you mean 'matrix'"):
        of_role({"w": "matrix"}, "matrx")
    with pytest.raises(InputError, match="describe no optimizer"):
        chosen(Schedule())
    assert set(ROLES) == {"matrix", "embedding", "readout", "gain", "bias"}
