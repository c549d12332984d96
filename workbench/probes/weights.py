"""Weights: their norms, and the matrices that the model applies."""

from typing import Any

import torch
from torch import Tensor

from .. import models, numerics
from ..errors import InputError
from ..optimizers import global_norm
from ..probe import probe
from .layers import norms


@probe("layer", every=10)
def weight_norm(m):
    """L2 norm of the parameters of a layer"""
    return norms(m.params)


@probe(every=10)
def weight_norm_total(m):
    """L2 norm of all parameters"""
    return global_norm(m.params)


@probe("matrix", every=100)
def spectral_norm(m):
    """Spectral norm of a weight matrix as applied

    With sigmaReparam that of gamma / sigma(W) * W; rounded if weights are. NaN for a matrix that is not finite.
    """
    roles = m.shared["roles"]
    matrices = [w for name, w in applied_weights(m).items() if w.ndim == 2 and roles[name] == "matrix"]
    if not matrices:
        raise InputError("This model has no matrix with two axes inside the network; leave out the probe 'spectral_norm'.")
    return torch.stack([top_singular_value(w) for w in matrices])


def applied_weights(m: Any) -> dict[str, Tensor]:
    """The parameters as the forward pass used them: rounded, then reparametrized."""
    return models.effective_weights(m.shared["model"], _rounded(m), m.buffers)


def _rounded(m: Any) -> dict[str, Tensor]:
    return numerics.round_tree(m.params, m.knobs, "weights", getattr(m, "key", None))


def top_singular_value(a: Tensor) -> Tensor:
    """Spectral norm of matrices (..., m, n), shape (...); NaN for one that is not finite.

    LAPACK refuses a batch with one such matrix, and a diverged lane must not stop the others.
    """
    finite = torch.isfinite(a).all(-1).all(-1)
    values = torch.linalg.svdvals(torch.where(finite[..., None, None], a, 0.0))
    return torch.where(finite, values[..., 0], torch.nan)
