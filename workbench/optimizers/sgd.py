"""Stochastic gradient descent with momentum."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..knobs import between, knob
from .decay import Decay, decayed_gradient, decayed_update
from .protocol import Optimizer, Params, State, Traits


class Momentum(Decay, defaults={"weight_decay_kind": "l2"}):
    """Settings of `sgd`, by default those of torch.optim.SGD."""

    momentum: float = knob(0.9, 0.0, 0.99, valid=between(0.0, 1.0), group="optimizer", doc="momentum of SGD")


def sgd(traits: Traits | None = None) -> Optimizer:
    """b <- momentum b + g, then a step of -rate b, as torch.optim.SGD. State: `{"momentum": {name: b}}`."""
    traits = traits or Traits()
    return Optimizer(partial(_init, traits), partial(_update, traits))


def _init(traits: Traits, params: Params) -> State:
    traits.check(params)
    return {"momentum": {name: torch.zeros_like(p) for name, p in params.items()}}


def _update(
    traits: Traits, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    updates, buffers = {}, {}
    for name, p in params.items():
        buffers[name] = knobs.momentum * state["momentum"][name] + decayed_gradient(name, grads[name], p, knobs, traits)
        updates[name] = decayed_update(name, buffers[name], p, knobs, traits, rate)
    return updates, {"momentum": buffers}
