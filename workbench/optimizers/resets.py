"""Moments that are set back to 0 from time to time, and how often they have been updated since."""

import torch
from torch import Tensor


def is_due(count: Tensor, interval: Tensor) -> Tensor:
    """Whether update number `count` (the first is 1) begins anew: every `interval` updates; never if that is 0. 0-dim bool."""
    return (interval > 0) & (torch.remainder(count, interval.clamp(min=1)) == 0)


def updates_since(count: Tensor, reset: Tensor) -> Tensor:
    """Updates of the moments up to number `count`, that one included, since they began at 0 with number `reset` (0: with the first)."""
    return count - reset.clamp(min=1) + 1
