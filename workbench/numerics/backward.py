"""Rounding of what flows back: an identity whose gradient is rounded where it arises."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd import Function

Rounder = Callable[..., Tensor]


def rounding_gradient(x: Tensor, rounder: Rounder, *lanes: Tensor) -> Tensor:
    """x itself; the gradient that arrives at it is replaced by `rounder(gradient, *lanes)`.

    All tensors that differ between runs must come as `lanes`. Of a second derivative too all that flows back here is rounded: curvature is
    to be taken of an objective without this. There is no forward-mode derivative.
    """
    return _Backward.apply(x, rounder, *lanes)


class _Backward(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rounder: Rounder, *lanes: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, ctx.rounder, *lanes = inputs
        ctx.save_for_backward(*lanes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        lanes = ctx.saved_tensors
        return ctx.rounder(gradient, *lanes), None, *(None for _ in lanes)
