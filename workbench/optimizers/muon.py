"""Muon: orthogonalized momentum for matrices, AdamW for the rest (kellerjordan.github.io/posts/muon)."""

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..knobs import above, between, knob
from .adam import Adam, adam
from .decay import decayed_gradient, decayed_update
from .protocol import Optimizer, Params, State, Traits, numbers

_QUINTIC = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_TINY = 1e-7


class Muon(Adam):
    """Settings of `muon`, by default the published ones, made for a rate of .02; Adam's are for what is no matrix."""

    muon_momentum: float = knob(
        0.95, 0.0, 0.99, valid=between(0.0, 0.999999), group="optimizer", doc="decay rate of Muon's mean of gradients"
    )
    muon_scale: Literal["shape", "rms"] = knob(
        "shape",
        acts="switch",
        group="optimizer",
        doc="Muon's step: orthogonal times sqrt(max(1, rows / columns)) (shape), or of root mean square 0.2, as AdamW's (rms)",
    )
    muon_rest: float = knob(
        0.015, 1e-3, 1.0, valid=above(0.0), log=True, group="optimizer", doc="rate of what Muon leaves to AdamW, as a share of its own"
    )
    muon_bfloat16: bool = knob(False, acts="switch", group="optimizer", doc="Muon orthogonalizes in bfloat16, as released")


def muon(traits: Traits | None = None) -> Optimizer:
    """Nesterov momentum, orthogonalized: for each of `traits.matrices`; `adam` for all other parameters, at `muon_rest` of the rate.

    b <- momentum b + (1 - momentum) g; a step of c orthogonalized((1 - momentum) g + momentum b) with c = sqrt(max(1, rows / columns))
    ("shape", the published rule), or .2 sqrt(max(rows, columns)) ("rms", arXiv 2502.16982, for which `muon_rest` is 1).
    State: `{"momentum": {name: b}, "rest": that of `adam`}`. InputError where there are no matrices.
    """
    traits = traits or Traits()
    return Optimizer(partial(_init, traits), partial(_update, traits))


def orthogonalized(matrix: Tensor) -> Tensor:
    """U V^T of a matrix U S V^T, roughly: five steps of a quintic Newton-Schulz iteration bring singular values to between .68 and 1.21.

    Shape (rows, columns). Singular values below 1.5e-3 of the norm, the root of the sum of their squares, stay smaller; 0 stays 0.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / torch.linalg.vector_norm(x).clamp(min=_TINY)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _init(traits: Traits, params: Params) -> State:
    if not traits.matrices:
        raise InputError("Muon moves matrices inside the network, and this model has none that it knows of; choose another optimizer.")
    traits.check(params)
    momentum = {name: torch.zeros_like(params[name]) for name in params if name in traits.matrices}
    rest = {name: p for name, p in params.items() if name not in traits.matrices}
    return {"momentum": momentum, "rest": adam().init(rest)}


def _update(
    traits: Traits, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    updates, momentum = {}, {}
    for name, old in state["momentum"].items():
        g = decayed_gradient(name, grads[name], params[name], knobs, traits)
        (beta,) = numbers(old, knobs.muon_momentum)
        momentum[name] = beta * old + (1 - beta) * g
        ahead = (1 - beta) * g + beta * momentum[name]
        direction = _scale(*ahead.shape, knobs) * orthogonalized(ahead.bfloat16() if knobs.muon_bfloat16 else ahead).to(ahead.dtype)
        updates[name] = decayed_update(name, direction, params[name], knobs, traits, rate)
    others = {name: p for name, p in params.items() if name not in momentum}
    slower = Traits({name: knobs.muon_rest * traits.scale(name) for name in others}, traits.decayed)
    moved, rest = adam(slower).update({name: grads[name] for name in others}, state["rest"], others, knobs, key, rate)
    return {name: {**updates, **moved}[name] for name in params}, {"momentum": momentum, "rest": rest}


def _scale(rows: int, columns: int, knobs: Any) -> float:
    return 0.2 * math.sqrt(max(rows, columns)) if knobs.muon_scale == "rms" else math.sqrt(max(1.0, rows / columns))
