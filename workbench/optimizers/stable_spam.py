"""Stable-SPAM: Adam on clipped and normalized gradients, with momentum reset (arXiv 2502.17055)."""

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..knobs import at_least, between, knob
from .adam import BELOW_ONE, Adam, adam, correction, denominator
from .decay import decayed_gradient, decayed_update
from .protocol import Optimizer, Params, State, Traits, numbers
from .resets import is_due, updates_since


class StableSpam(Adam):
    """Settings of `stable_spam`, by default those published."""

    stable_spam_gamma1: float = knob(
        0.7, 0.0, 0.99, valid=BELOW_ONE, group="optimizer", doc="decay rate of Stable-SPAM's mean of gradient norms"
    )
    stable_spam_gamma2: float = knob(
        0.9, 0.0, 0.9999, valid=BELOW_ONE, group="optimizer", doc="decay rate of Stable-SPAM's mean of squared gradient norms"
    )
    stable_spam_gamma3: float = knob(
        0.999,
        0.0,
        0.9999,
        valid=BELOW_ONE,
        group="optimizer",
        doc="decay rate of Stable-SPAM's mean of largest gradients, its limit",
    )
    stable_spam_interval: int = knob(
        1000, 0, 2000, valid=at_least(0), acts="live", units="step", group="optimizer", doc="steps between Stable-SPAM's resets; 0: none"
    )
    stable_spam_fall: int = knob(
        0,
        0,
        10_000,
        valid=at_least(0),
        acts="live",
        units="step",
        group="optimizer",
        doc="steps in which Stable-SPAM lowers beta1 and gamma1; 0: never",
    )
    stable_spam_share: float = knob(
        0.5, 0.0, 1.0, valid=between(0.0, 1.0), group="optimizer", doc="share of beta1 and gamma1 that Stable-SPAM lowers them to"
    )
    stable_spam_released: bool = knob(
        False, acts="switch", group="optimizer", doc="Stable-SPAM as released: a reset acts a step late and upsets the bias corrections"
    )


def stable_spam(traits: Traits | None = None) -> Optimizer:
    """Adam on gradients that are clipped at their usual maximum and scaled to a steady norm (arXiv 2502.17055).

    In update t, the first being 1, for each parameter with gradient g, gamma without its prefix:
    AdaClip: M = mean of max|g| (decay gamma3), M_hat bias-corrected; where |g| > M_hat, g <- M_hat g / max|g|.
    AdaGN: n = |g|, a and b = means of n (gamma1) and n^2 (gamma2); g <- (g / n) a_hat / (sqrt(b_hat) + epsilon).
    MoRet: t a multiple of `interval`: m = v = 0, and their bias correction counts from 1 again.
    Then Adam. beta1 and gamma1 are multiplied by a cosine from 1 to `share` in `fall` updates.
    `released`: all bias corrections count from the reset, so that right after it M_hat is up to 1 / (1 - gamma3^2) = 500 M and nothing is
    clipped for hundreds of updates; and the update of the reset still uses the moments of before, corrected as if they were new.
    State: that of `adam`, `reset`, the number of the update that reset last (0: none), and `largest`, `norm`, `square`: M, a and b.
    """
    traits = traits or Traits()
    return Optimizer(partial(_init, traits), partial(_update, traits))


def effective_step(state: State, knobs: Any, rate: float | Tensor, traits: Traits) -> dict[str, Tensor]:
    """The step per unit of m_hat, the mean of clipped and scaled gradients: geometric mean over each parameter's elements; 0-dim each.

    NaN right after the update in which the released code resets: what it divided by is gone.
    """
    count = state["count"].clamp(min=1)
    beta2, epsilon = numbers(count, knobs.beta2, knobs.epsilon)
    second = correction(beta2, updates_since(count, state["reset"]))
    logs = {name: torch.log(denominator(v, second, epsilon)).mean() for name, v in state["v"].items()}
    gone = (state["reset"] > 0) & (state["reset"] == count) if knobs.stable_spam_released else torch.zeros_like(count, dtype=torch.bool)
    return {name: torch.where(gone, torch.nan, rate * traits.scale(name) * torch.exp(-log)) for name, log in logs.items()}


class _Means(NamedTuple):
    """The running means of one parameter, or what they decay by or are corrected by; 0-dim each."""

    largest: Tensor
    norm: Tensor
    square: Tensor


def _init(traits: Traits, params: Params) -> State:
    state = adam(traits).init(params)
    zeros = {field: {name: torch.zeros_like(state["count"]) for name in params} for field in _Means._fields}
    return {**state, "reset": torch.zeros_like(state["count"]), **zeros}


def _update(
    traits: Traits, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    count = state["count"] + 1
    share = _share(count, knobs)
    beta1, beta2, epsilon, interval = numbers(count, share * knobs.beta1, knobs.beta2, knobs.epsilon, knobs.stable_spam_interval)
    gammas = _Means(*numbers(count, knobs.stable_spam_gamma3, share * knobs.stable_spam_gamma1, knobs.stable_spam_gamma2))
    anew = is_due(count, interval)
    reset = torch.where(anew, count, state["reset"])
    since = updates_since(count, reset)
    first, second = correction(beta1, since), correction(beta2, since)
    counted = updates_since(count, state["reset"]) if knobs.stable_spam_released else count
    corrections = _Means(*(correction(gamma, counted) for gamma in gammas))
    updates, m, v, means = {}, {}, {}, {}
    for name, p in params.items():
        g = decayed_gradient(name, grads[name], p, knobs, traits)
        g, means[name] = _steadied(g, _Means(*(state[field][name] for field in _Means._fields)), gammas, corrections, epsilon)
        old_m, old_v = (state[moment][name] for moment in "mv")
        if not knobs.stable_spam_released:
            old_m, old_v = torch.where(anew, 0.0, old_m), torch.where(anew, 0.0, old_v)
        new_m, new_v = beta1 * old_m + (1 - beta1) * g, beta2 * old_v + (1 - beta2) * g * g
        updates[name] = decayed_update(name, new_m / first / denominator(new_v, second, epsilon), p, knobs, traits, rate)
        if knobs.stable_spam_released:
            new_m, new_v = torch.where(anew, 0.0, new_m), torch.where(anew, 0.0, new_v)
        m[name], v[name] = new_m, new_v
    trees = {field: {name: getattr(each, field) for name, each in means.items()} for field in _Means._fields}
    return updates, {"count": count, "m": m, "v": v, "reset": reset, **trees}


def _share(count: Tensor, knobs: Any) -> Tensor:
    """What beta1 and gamma1 are multiplied by; 0-dim."""
    fall, share = numbers(count, knobs.stable_spam_fall, knobs.stable_spam_share)
    cosine = share + (1 - share) * (1 + torch.cos(math.pi * (count / (fall + 1)).clamp(max=1))) / 2
    return torch.where(fall > 0, cosine, 1.0)


def _steadied(g: Tensor, old: _Means, gammas: _Means, corrections: _Means, epsilon: Tensor) -> tuple[Tensor, _Means]:
    """A gradient clipped (AdaClip) and scaled (AdaGN), and the means that this takes, updated. A gradient of 0 stays 0."""
    peak = g.abs().amax()
    largest = gammas.largest * old.largest + (1 - gammas.largest) * peak
    limit = largest / corrections.largest
    g = torch.where(g.abs() > limit, g / torch.where(peak > 0, peak, 1.0) * limit, g)
    length = torch.linalg.vector_norm(g)
    norm = gammas.norm * old.norm + (1 - gammas.norm) * length
    square = gammas.square * old.square + (1 - gammas.square) * length * length
    g = g / torch.where(length > 0, length, 1.0) * (norm / corrections.norm / denominator(square, corrections.square, epsilon))
    return g, _Means(largest, norm, square)
