"""Lion: the sign of an interpolated mean of gradients (arXiv 2302.06675)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .decay import decayed_gradient, decayed_update
from .protocol import Optimizer, Params, State, Traits, numbers


def lion(traits: Traits | None = None) -> Optimizer:
    """A step along sign(beta1 m + (1 - beta1) g), then m <- beta2 m + (1 - beta2) g (arXiv 2302.06675). State: `{"m": {name: mean}}`.

    Reads beta1, beta2 and weight decay of `Adam`; published are betas .9 and .99, and against AdamW a rate 3 to 10 times lower with a
    decay as many times higher. An entry whose gradients were all 0 does not move: sign(0) = 0.
    """
    traits = traits or Traits()
    return Optimizer(partial(_init, traits), partial(_update, traits))


def _init(traits: Traits, params: Params) -> State:
    traits.check(params)
    return {"m": {name: torch.zeros_like(p) for name, p in params.items()}}


def _update(
    traits: Traits, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    updates, m = {}, {}
    for name, p in params.items():
        old = state["m"][name]
        beta1, beta2 = numbers(old, knobs.beta1, knobs.beta2)
        g = decayed_gradient(name, grads[name], p, knobs, traits)
        updates[name] = decayed_update(name, torch.sign(beta1 * old + (1 - beta1) * g), p, knobs, traits, rate)
        m[name] = beta2 * old + (1 - beta2) * g
    return updates, {"m": m}
