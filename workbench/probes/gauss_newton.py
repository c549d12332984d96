"""The Gauss-Newton matrix of half the mean squared error of one output, from the gradients of that output at each sample.

With a row of J for the gradient at each of n samples it is G = J^T J / n. It is the Hessian but for a part that vanishes with the
errors, so at a minimum that fits every sample it is the Hessian. Both numbers here are exact: nothing is estimated.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import grad, vmap

Params = Mapping[str, Tensor]


def per_sample_gradients(output_at: Callable[[Params, Tensor], Tensor], params: Params, x: Tensor) -> Tensor:
    """Gradients of `output_at(params, x)`, which gives one number a sample (B,), at each sample of x: (B, parameters)."""

    def one(at: Params, sample: Tensor) -> Tensor:
        return output_at(at, sample[None]).sum()

    gradients = vmap(grad(one), (None, 0))(dict(params), x)
    return torch.cat([each.reshape(len(x), -1) for each in gradients.values()], 1)


def trace(gradients: Tensor) -> Tensor:
    """Trace of G, the mean of the gradients' squared lengths; 0-dim."""
    return gradients.square().sum(1).mean()


def frobenius_norm(gradients: Tensor) -> Tensor:
    """Frobenius norm of G, by way of the n x n matrix J J^T / n, which has the same; 0-dim."""
    return torch.linalg.vector_norm(gradients @ gradients.T / len(gradients))
