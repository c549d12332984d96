"""Clipping of gradients before the optimizer sees them."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..knobs import Knobs, at_least, knob
from .protocol import Changed, Optimizer, Params, State


class Clipping(Knobs):
    """The limit of `clip_global_norm`."""

    clip: float = knob(
        0.0, 0.0, 10.0, valid=at_least(0.0), group="optimizer", doc="largest global gradient norm let through; 0 for no limit"
    )


def clip_global_norm(optimizer: Optimizer) -> Optimizer:
    """`optimizer` with all gradients scaled by min(1, clip / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; clip 0 does nothing."""
    return Optimizer(optimizer.init, partial(_update, optimizer))


def global_norm(tree: Params) -> Tensor:
    """Euclidean norm of all tensors together; 0-dim."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x) for x in tree.values()]))


def _update(
    inner: Optimizer, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    norm = global_norm(grads)
    clip = torch.as_tensor(knobs.clip, dtype=norm.dtype, device=norm.device)
    share = torch.where(clip > 0, (clip / (norm + 1e-6)).clamp(max=1), 1.0)
    return inner.update(Changed(grads, lambda _, grad: share * grad), state, params, knobs, key, rate)
