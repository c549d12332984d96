"""What the optimizer adds to the parameters, and how large its steps are."""

import torch
from torch import Tensor

from ..optimizers import effective_step as steps_of_parameters
from ..optimizers import global_norm
from ..probe import probe
from .layers import by_layer, norms, rms


@probe()
def learning_rate(m):
    """Learning rate applied"""
    return torch.as_tensor(m.rate)


@probe("layer", every=10)
def update_norm(m):
    """L2 norm of the update of a layer"""
    return norms(m.updates)


@probe(every=10)
def update_norm_total(m):
    """L2 norm of the update of all parameters"""
    return global_norm(m.updates)


@probe("tensor", every=10)
def update_rms(m):
    """Root mean square of the update"""
    return torch.stack([rms(u) for u in m.updates.values()])


@probe("layer", every=10)
def effective_step(m):
    """Adam's step per unit of mean gradient

    rate / (sqrt(v_hat) + epsilon), or what takes its place in SPAM, Stable-SPAM and AdaBelief: geometric mean over the parameters of a
    layer. NaN for an optimizer that keeps no mean square.
    """
    layers = by_layer(m.params)
    steps = steps_of_parameters(m.optimizer, m.knobs, m.rate, m.shared["traits"])
    if steps is None:
        return m.loss.new_full((len(layers),), torch.nan)
    return torch.stack([_geometric_mean({name: steps[name] for name in layer}, layer) for layer in layers])


def _geometric_mean(values: dict[str, Tensor], sizes: dict[str, Tensor]) -> Tensor:
    """Of one value a tensor, each as often as the tensor has elements."""
    total = sum(x.numel() for x in sizes.values())
    return torch.exp(torch.stack([sizes[name].numel() / total * value.log() for name, value in values.items()]).sum())
