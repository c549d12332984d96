"""Adam and AdamW."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..knobs import between, knob
from .decay import Decay, decayed_gradient, decayed_update
from .protocol import Optimizer, Params, State, Traits, numbers

BELOW_ONE = between(0.0, 0.999999)


class Adam(Decay):
    """Settings of `adam`, by default those of torch.optim.AdamW without decay."""

    beta1: float = knob(0.9, 0.0, 0.99, valid=BELOW_ONE, group="optimizer", doc="decay rate of Adam's mean of gradients")
    beta2: float = knob(0.999, 0.9, 0.9999, valid=BELOW_ONE, group="optimizer", doc="decay rate of Adam's mean of squared gradients")
    epsilon: float = knob(1e-8, 1e-15, 1e-3, log=True, group="optimizer", doc="what Adam adds to the root of the mean squared gradient")


def adam(traits: Traits | None = None) -> Optimizer:
    """Adam with bias correction, as torch.optim.Adam and AdamW. State: `{"count": 0-dim, "m": {name: mean}, "v": {name: mean square}}`."""
    traits = traits or Traits()
    return Optimizer(partial(_init, traits), partial(_update, traits))


def effective_step(state: State, knobs: Any, rate: float | Tensor, traits: Traits) -> dict[str, Tensor]:
    """Adam's step per unit of m_hat, c rate / (sqrt(v_hat) + epsilon): geometric mean over the elements of each parameter; 0-dim each."""
    beta2, epsilon = numbers(state["count"], knobs.beta2, knobs.epsilon)
    second = correction(beta2, state["count"].clamp(min=1))
    logs = {name: torch.log(denominator(v, second, epsilon)).mean() for name, v in state["v"].items()}
    return {name: rate * traits.scale(name) * torch.exp(-log) for name, log in logs.items()}


def _init(traits: Traits, params: Params) -> State:
    traits.check(params)
    count = next(iter(params.values()), torch.empty(0)).new_zeros(())
    m, v = ({name: torch.zeros_like(p) for name, p in params.items()} for _ in "mv")
    return {"count": count, "m": m, "v": v}


def _update(
    traits: Traits, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    count = state["count"] + 1
    beta1, beta2, epsilon = numbers(count, knobs.beta1, knobs.beta2, knobs.epsilon)
    first, second = correction(beta1, count), correction(beta2, count)
    updates, m, v = {}, {}, {}
    for name, p in params.items():
        g = decayed_gradient(name, grads[name], p, knobs, traits)
        m[name] = beta1 * state["m"][name] + (1 - beta1) * g
        v[name] = beta2 * state["v"][name] + (1 - beta2) * g * g
        del g  # a whole network may be one tensor: nothing of its size is held on to
        updates[name] = decayed_update(name, m[name] / first / denominator(v[name], second, epsilon), p, knobs, traits, rate)
    return updates, {"count": count, "m": m, "v": v}


def correction(beta: Tensor, count: Tensor) -> Tensor:
    """1 - beta^count without cancellation."""
    return -torch.expm1(count * torch.log(beta))


def denominator(v: Tensor, second: Tensor, epsilon: Tensor) -> Tensor:
    """sqrt(v_hat) + epsilon, with `second` the bias correction of v."""
    return torch.sqrt(v / second) + epsilon
