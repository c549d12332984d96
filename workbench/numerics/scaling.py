"""Scales: what a tensor, a channel or a block is divided by so that its values fit a format."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Scaling = Literal["none", "tensor", "channel", "block"]
BLOCK = 32  # numbers that share a scale (OCP Microscaling Formats 1.0, section 5.2)
FARTHEST = 2.0**127  # a shared scale is one of 2^-127 to 2^127 (E8M0)

_EXPONENT = {torch.float32: (torch.int32, 0xFF << 23), torch.float64: (torch.int64, 0x7FF << 52)}


def reach(x: Tensor, scaling: Scaling, channel: int) -> Tensor:
    """The largest finite size among the numbers that share a scale, broadcastable to x: 0 if there is none.

    "tensor": all numbers share one. "channel": those with the same index along axis `channel`, of a tensor of less than two axes all.
    "block": each 32 in a row along the last axis, the last ones of a row as many as are left.
    """
    size = torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0).abs()
    if scaling == "tensor" or x.ndim == 0 or (scaling == "channel" and x.ndim < 2):
        return size.amax()
    if scaling == "channel":
        return size.amax([axis for axis in range(x.ndim) if axis != channel % x.ndim], keepdim=True)
    length = x.shape[-1]
    blocks = F.pad(size, (0, -length % BLOCK)).unflatten(-1, (-1, BLOCK))
    return blocks.amax(-1, keepdim=True).expand_as(blocks).flatten(-2)[..., :length]


def power_scale(size: Tensor, largest: float | Tensor) -> Tensor:
    """The shared scale of OCP Microscaling 1.0, section 6.3: the power of two below `size` over that below the format's largest value."""
    top = power_of_two_below(largest) if isinstance(largest, Tensor) else 2.0 ** (math.frexp(largest)[1] - 1)
    return torch.clamp(power_of_two_below(size) / top, 1 / FARTHEST, FARTHEST)


def power_of_two_below(x: Tensor) -> Tensor:
    """The largest power of two that is at most |x|; 0 for subnormals and 0, infinity for what is not finite."""
    bits, mask = _EXPONENT[x.dtype]
    return (x.view(bits) & mask).view(x.dtype)
