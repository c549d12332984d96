"""Gradients as the optimizer gets them: rounded if gradients are, not yet clipped."""

import torch

from ..errors import InputError
from ..optimizers import global_norm
from ..probe import probe
from .layers import by_layer, norms, rms


@probe("layer", every=10)
def gradient_norm(m):
    """L2 norm of the gradient of a layer"""
    return norms(m.grads)


@probe()
def gradient_norm_total(m):
    """L2 norm of the gradient of all parameters"""
    return global_norm(m.grads)


@probe(every=10)
def gradient_weight_cosine(m):
    """Cosine of the negative gradient and the weights, all parameters together

    1 where descent only scales the weights: naive loss minimization in arXiv 2501.04697. In float64, as squares of small gradients vanish.
    """
    g, w = (torch.cat([x.double().flatten() for x in tree.values()]) for tree in (m.grads, m.params))
    return -(g @ w) / (torch.linalg.vector_norm(g) * torch.linalg.vector_norm(w))


@probe("tensor", every=10)
def gradient_rms(m):
    """Root mean square of the gradient, to be compared with Adam's epsilon"""
    return torch.stack([rms(g) for g in m.grads.values()])


@probe("layer", every=100)
def mlp_gradient_rms(m):
    """Root mean square of the gradient of a block's first feed-forward matrix"""
    return torch.stack([rms(_inner(layer, i)) for i, layer in enumerate(by_layer(m.grads))])


def _inner(layer, i):
    name = f"blocks.{i}.mlp.inner.weight"
    if name not in layer:
        raise InputError(f"No parameter of this model is called {name}; leave out the probe mlp_gradient_rms.")
    return layer[name]
