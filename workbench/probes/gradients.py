"""Gradients as the optimizer gets them: rounded if gradients are, not yet clipped."""

import torch

from ..optimizers import global_norm
from ..probe import probe
from .layers import norms, rms


@probe("layer", every=10)
def gradient_norm(m):
    """L2 norm of the gradient of a layer"""
    return norms(m.grads)


@probe()
def gradient_norm_total(m):
    """L2 norm of the gradient of all parameters"""
    return global_norm(m.grads)


@probe("tensor", every=10)
def gradient_rms(m):
    """Root mean square of the gradient, to be compared with Adam's epsilon"""
    return torch.stack([rms(g) for g in m.grads.values()])
