"""Activations: how large the residual stream is."""

import torch

from ..probe import probe
from .layers import rms, tapped


@probe("layer", every=10)
def residual_rms(m):
    """Root mean square of the residual stream after a layer"""
    return torch.stack([rms(x) for x in tapped(m, "residual")])
