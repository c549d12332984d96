"""Curvature of the objective on the batch: the Hessian's largest eigenvalue and trace, and how far the update may go."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import grad, vjp

from .. import noise
from ..probe import probe

LANCZOS_STEPS = 16
HUTCHINSON_DRAWS = 16
LINE_SEARCH_PASSES = 10
FARTHEST = 20.0

Params = Mapping[str, Tensor]
Loss = Callable[[Params], Tensor]


@probe(every=100, cost="curvature")
def hessian_top_eigenvalue(m):
    """Largest eigenvalue of the objective's Hessian on the batch

    See `top_eigenvalue`. Gradient descent on a quadratic diverges where it exceeds 2 / learning rate.
    """
    return top_eigenvalue(m.loss_at, m.params)


@probe(every=100, cost="curvature")
def critical_sharpness(m):
    """Critical sharpness: 2 over the largest stable learning rate along the update

    2 / eta_c, where eta_c is the learning rate from which on the update, lengthened in proportion, raises the objective on the
    batch (Kalra et al. 2026, arXiv 2601.16979). Forward passes only. NaN where the rate is 0 or `critical_length` is NaN.
    """
    length = critical_length(m.loss_at, m.params, m.updates)
    rate = torch.as_tensor(m.rate, dtype=length.dtype, device=length.device)
    return torch.where(rate > 0, 2 / (length * rate), math.nan)


def top_eigenvalue(loss_at: Loss, params: Params, steps: int = LANCZOS_STEPS) -> Tensor:
    """Algebraically largest eigenvalue of the Hessian of `loss_at`, by Lanczos from one fixed random start; 0-dim.

    Each step is a Hessian-vector product, orthogonalized against all earlier vectors, twice. The result is never above the
    eigenvalue but for rounding, and rises to it with `steps`. Where the start spans fewer dimensions the recursion ends early:
    later entries repeat the first Rayleigh quotient, which cannot exceed the largest.
    """
    product, v = _hessian_product(loss_at, params)
    alive = torch.ones_like(v[0], dtype=torch.bool)
    vectors, diagonal, beside = [], [], []
    for _ in range(steps):
        vectors.append(v)
        w = product(v)
        diagonal.append(torch.where(alive, v @ w, diagonal[0] if diagonal else math.nan))
        negligible = 100 * torch.finfo(w.dtype).eps * torch.linalg.vector_norm(w)
        basis = torch.stack(vectors)
        for _ in range(2):
            # Not a second matrix product: its last bits depend on where in memory a lane lies, and twins must be equal.
            w = w - ((basis @ w)[:, None] * basis).sum(0)
        left = torch.linalg.vector_norm(w)
        alive = alive & (left > negligible)
        beside.append(torch.where(alive, left, 0.0))
        v = torch.where(alive, w / left, 0.0)
    return _top_of_tridiagonal(torch.stack(diagonal), torch.stack(beside[:-1]))


def hutchinson_trace(loss_at: Loss, params: Params, draws: int = HUTCHINSON_DRAWS) -> Tensor:
    """Trace of the Hessian of `loss_at`: mean of v.Hv over fixed random vectors v of signs (Hutchinson's estimator); 0-dim.

    Its variance is 2 / draws times the sum of the squared entries off the diagonal, so a diagonal Hessian is measured exactly.
    """
    product, like = _hessian_product(loss_at, params)
    key = noise.key_of(0, like.device)
    signs = [1 - 2 * (noise.bits(key, f"hutchinson {i}", like.shape) & 1).to(like.dtype) + 0 * like for i in range(draws)]
    return torch.stack([v @ product(v) for v in signs]).mean()


def critical_length(loss_at: Loss, params: Params, direction: Params, passes: int = LINE_SEARCH_PASSES) -> Tensor:
    """The multiple c of `direction` at which loss_at(params + c direction) rises above loss_at(params); 0-dim.

    From c = 1 the search goes up while the loss stays below and down while it does not, by 1, 2, 4, ... octaves, then halves the
    octaves between, one forward pass each; last it interpolates the mean slope (loss - first loss) / c, linear on a quadratic,
    so that there the result is exact. NaN if no change of sign lies within 2^-FARTHEST to 2^FARTHEST (uphill, flat, endless).
    """
    at_zero = loss_at(params)
    octave = torch.zeros_like(at_zero)
    low, high = torch.full_like(octave, -math.inf), torch.full_like(octave, math.inf)
    slope_low, slope_high = torch.zeros_like(octave), torch.zeros_like(octave)
    for n in range(passes):
        c = torch.exp2(octave)
        slope = (loss_at({name: p + c * direction[name] for name, p in params.items()}) - at_zero) / c
        stable = slope <= 0
        low, slope_low = torch.where(stable, octave, low), torch.where(stable, slope, slope_low)
        high, slope_high = torch.where(stable, high, octave), torch.where(stable, slope_high, slope)
        enclosed = torch.isfinite(low) & torch.isfinite(high)
        outward = (octave + torch.where(stable, 2.0**n, -(2.0**n))).clamp(-FARTHEST, FARTHEST)
        octave = torch.where(enclosed, (low + high) / 2, outward)
    share = -slope_low / (slope_high - slope_low)
    between = torch.exp2(low) + share * (torch.exp2(high) - torch.exp2(low))
    found = torch.where(torch.isfinite(slope_high), between, torch.exp2(octave))
    return torch.where(enclosed, found, math.nan)


def _hessian_product(loss_at: Loss, params: Params) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """v -> Hessian v on flat vectors, and a random unit vector."""
    _, pull = vjp(grad(loss_at), dict(params))
    names, shapes = list(params), [p.shape for p in params.values()]
    sizes = [p.numel() for p in params.values()]

    def product(v: Tensor) -> Tensor:
        parts = (part.reshape(shape) for part, shape in zip(v.split(sizes), shapes, strict=True))
        (image,) = pull(dict(zip(names, parts, strict=True)))
        return torch.cat([image[name].flatten() for name in names])

    flat = torch.cat([p.flatten() for p in params.values()])
    start = noise.normal(noise.key_of(0, flat.device), "lanczos", flat.shape, flat.dtype)
    # Under vmap the second derivative of LayerNorm wants a vector with a lane axis: hence the zero times the parameters.
    return product, start / torch.linalg.vector_norm(start) + 0 * flat


def _top_of_tridiagonal(diagonal: Tensor, beside: Tensor) -> Tensor:
    # LAPACK refuses a batch with one non-finite matrix, and a diverged lane must not stop the others.
    matrix = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
    finite = torch.isfinite(matrix).all()
    return torch.where(finite, torch.linalg.eigvalsh(torch.where(finite, matrix, 0.0))[-1], math.nan)
