"""AdaBelief: Adam that divides by how far gradients lie from their mean (arXiv 2010.07468)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..knobs import knob
from .adam import Adam, adam, correction, denominator
from .decay import decayed_gradient, decayed_update
from .protocol import Optimizer, Params, State, Traits, numbers

_LEAST = 5.0  # length of the moving average from which RAdam divides by it


class AdaBelief(Adam):
    """Settings of `adabelief`. Published: epsilon 1e-8 (images), 1e-12 (small GANs), 1e-16 (transformers; the released default)."""

    epsilon: float = knob(1e-16, 1e-20, 1e-3, log=True, group="optimizer", doc="what AdaBelief adds to the mean square and to its root")
    adabelief_adds_epsilon: bool = knob(
        True, acts="switch", group="optimizer", doc="AdaBelief adds epsilon to its mean square too, at every step"
    )
    adabelief_rectify: bool = knob(False, acts="switch", group="optimizer", doc="AdaBelief begins as SGD with momentum, as RAdam")


def adabelief(traits: Traits | None = None) -> Optimizer:
    """Adam with s, the mean square of g - m, in the place of v (arXiv 2010.07468).

    s <- beta2 s + (1 - beta2) (g - m)^2 + epsilon with m updated before. Added at every step, epsilon weighs up to 1 / (1 - beta2) times in
    s: so have it the paper's text and the released code, but not its appendix nor its first version (issue 61 of
    juntang-zhuang/Adabelief-Optimizer), for which `adabelief_adds_epsilon` is off. Step: m_hat / (sqrt(s_hat) + epsilon).
    `adabelief_rectify`, the released default, is not in the paper's algorithm. With n = 2 / (1 - beta2) - 1 and
    r = n - 2 t beta2^t / (1 - beta2^t), steps of m_hat while r < 5, later of
    m_hat sqrt((1 - beta2^t) (r - 4) (r - 2) n / ((n - 4) (n - 2) r)) / (sqrt(s) + epsilon): the first are those of SGD with momentum.
    State: `{"count", "m", "s"}`.
    """
    traits = traits or Traits()
    return Optimizer(partial(_init, traits), partial(_update, traits))


def effective_step(state: State, knobs: Any, rate: float | Tensor, traits: Traits) -> dict[str, Tensor]:
    """The step per unit of m_hat: geometric mean over the elements of each parameter; 0-dim each."""
    count = state["count"].clamp(min=1)
    beta2, epsilon = numbers(count, knobs.beta2, knobs.epsilon)
    logs = {name: torch.log(_factor(s, count, beta2, epsilon, knobs)).mean() for name, s in state["s"].items()}
    return {name: rate * traits.scale(name) * torch.exp(log) for name, log in logs.items()}


def _init(traits: Traits, params: Params) -> State:
    state = adam(traits).init(params)
    return {"count": state["count"], "m": state["m"], "s": state["v"]}


def _update(
    traits: Traits, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    count = state["count"] + 1
    beta1, beta2, epsilon = numbers(count, knobs.beta1, knobs.beta2, knobs.epsilon)
    added = epsilon if knobs.adabelief_adds_epsilon else 0.0
    first = correction(beta1, count)
    updates, m, s = {}, {}, {}
    for name, p in params.items():
        g = decayed_gradient(name, grads[name], p, knobs, traits)
        m[name] = beta1 * state["m"][name] + (1 - beta1) * g
        s[name] = beta2 * state["s"][name] + (1 - beta2) * (g - m[name]).square() + added
        updates[name] = decayed_update(name, m[name] / first * _factor(s[name], count, beta2, epsilon, knobs), p, knobs, traits, rate)
    return updates, {"count": count, "m": m, "s": s}


def _factor(s: Tensor, count: Tensor, beta2: Tensor, epsilon: Tensor, knobs: Any) -> Tensor:
    """What m_hat is multiplied by; of the shape of `s`."""
    second = correction(beta2, count)
    if not knobs.adabelief_rectify:
        return 1 / denominator(s, second, epsilon)
    most = 2 / (1 - beta2) - 1
    length = most - 2 * count * (1 - second) / second
    ratio = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
    return torch.where(length >= _LEAST, torch.sqrt(second * ratio.clamp(min=0)) / (torch.sqrt(s) + epsilon), 1.0)
