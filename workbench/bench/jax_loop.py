"""The same runs in JAX: one update mapped over runs by vmap, compiled by jit, the state given away to it."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..engine.step import initial_states
from .cases import Case
from .jax_models import FORWARD, cross_entropy
from .plain import drawing

Batch = tuple[Array, Array]


class Jax:
    """The runs of a case, from the engine's own first weights; batches lie ready before the time is taken."""

    def __init__(self, case: Case) -> None:
        ready = case.plan()
        (cohort,) = ready.cohorts
        self.runs, knobs, shared = ready.runs, cohort.knobs, cohort.shared
        states = initial_states(cohort, range(self.runs), ready.setting)
        params, buffers = (_stacked([state[part] for state in states]) for part in ("params", "buffers"))
        m, v = (jax.tree.map(jnp.zeros_like, params) for _ in "mv")
        self.state = dict(params=params, buffers=buffers, m=m, v=v, count=jnp.zeros(self.runs), rate=jnp.array(cohort.lanes["lr"]))
        forward = partial(FORWARD[type(shared["model"])], knobs)
        decays = {name: knobs.weight_decay * shared["traits"].decays(name) for name in params}
        constant = bool(getattr(case.study.task, "constant", ""))
        mapped = jax.vmap(partial(_update, forward, knobs, decays), in_axes=(0, None if constant else 0))
        self.update = jax.jit(mapped, donate_argnums=0)
        draw = drawing(case, knobs, ready.setting.device)
        self.draw: Callable[[], Batch] = partial(_given, draw) if constant else partial(_of_each_run, draw, self.runs)
        self.losses: list[np.ndarray] = []

    def train(self, steps: int) -> float:
        """Make so many updates of every run; the seconds they took. The first time they are compiled."""
        batches, losses = [self.draw() for _ in range(steps)], []
        began = time.perf_counter()
        for batch in batches:
            self.state, loss = self.update(self.state, batch)
            losses.append(loss)
        self.losses.append(np.stack(losses, 1))
        jax.block_until_ready(self.state)
        return time.perf_counter() - began


def _update(forward: Callable[..., Any], knobs: Any, decays: dict[str, float], state: dict[str, Any], batch: Batch) -> tuple[Any, Array]:
    """One update of one run by AdamW: its new state, and the loss before."""
    x, y = batch

    def objective(params: Any) -> tuple[Array, Any]:
        logits, buffers = forward(params, state["buffers"], x)
        return cross_entropy(logits, y), buffers

    (loss, buffers), grads = jax.value_and_grad(objective, has_aux=True)(state["params"])
    count, rate = state["count"] + 1, state["rate"]
    m = jax.tree.map(lambda m, g: knobs.beta1 * m + (1 - knobs.beta1) * g, state["m"], grads)
    v = jax.tree.map(lambda v, g: knobs.beta2 * v + (1 - knobs.beta2) * g * g, state["v"], grads)
    first, second = 1 - knobs.beta1**count, 1 - knobs.beta2**count
    params = {
        name: p * (1 - rate * decays[name]) - rate * (m[name] / first) / (jnp.sqrt(v[name] / second) + knobs.epsilon)
        for name, p in state["params"].items()
    }
    return dict(params=params, buffers=buffers, m=m, v=v, count=count, rate=rate), loss


def _stacked(trees: list[dict[str, Any]]) -> dict[str, Array]:
    return {name: jnp.array(np.stack([tree[name].numpy() for tree in trees])) for name in trees[0]}


def _given(draw: Callable[[], Any]) -> Batch:
    x, y = draw()
    return jnp.array(x.numpy()), jnp.array(y.numpy(), jnp.int32)


def _of_each_run(draw: Callable[[], Any], runs: int) -> Batch:
    x, y = (np.stack([part.numpy() for part in parts]) for parts in zip(*(draw() for _ in range(runs)), strict=True))
    return jax.device_put((x if x.dtype == np.float32 else x.astype(np.int32), y.astype(np.int32)))
