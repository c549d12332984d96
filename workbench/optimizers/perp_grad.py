"""perpGrad: gradients without their component along the weights (arXiv 2501.04697)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..knobs import Knobs, knob
from .protocol import Changed, Optimizer, Params, State

_TINY = 1e-30


class PerpGrad(Knobs):
    """Whether `chosen` wraps the optimizer in `perp_grad`."""

    perp_grad: bool = knob(False, acts="switch", group="optimizer", doc="only what of the gradient is across the weights, at its full norm")


def perp_grad(optimizer: Optimizer) -> Optimizer:
    """`optimizer`, fed with the part of each parameter's gradient that is orthogonal to the parameter, scaled to the gradient's norm.

    With w and g one tensor: p = g - (w.g) / (w.w + 1e-30) w, then g <- |g| / (|p| + 1e-30) p (arXiv 2501.04697). Decay stays that of
    `optimizer`. Where g is parallel to w, as it always is for a parameter of one element, p is rounding noise or 0, and the noise is scaled
    to the full norm. The released code forwards only rate and decay: its AdamW has beta2 .999 and epsilon 1e-8 whatever was set.
    """
    return Optimizer(optimizer.init, partial(_update, optimizer))


def orthogonal(grad: Tensor, param: Tensor) -> Tensor:
    """What of a gradient is orthogonal to its parameter, at the gradient's norm; of their shape."""
    across = grad - (param * grad).sum() / (param.square().sum() + _TINY) * param
    return across * (torch.linalg.vector_norm(grad) / (torch.linalg.vector_norm(across) + _TINY))


def _update(
    inner: Optimizer, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    across = Changed(grads, lambda name, grad: orthogonal(grad, params[name]))
    return inner.update(across, state, params, knobs, key, rate)
