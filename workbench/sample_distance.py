"""How far two sets of points are from each other, and what of a mixture a set covers. All are functions of tensors, all results 0-dim
unless said.
"""

import math

import torch
from torch import Tensor

DIRECTIONS = 64
NEAR = 3.0
LEAST = 1 / 5  # of its share, from which a mode counts as covered
NEIGHBOUR = 3


def sliced_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Sliced Wasserstein-1 distance of two sets of as many points of the plane, (count, 2) each.

    Mean over 64 directions, evenly spaced over a half turn, of the mean distance between the sorted projections. For two points a distance
    d apart it is 2 d / pi but for 0.02 %. Of two sets of one distribution it is not 0 but falls with the root of their size.
    """
    angle = math.pi * (torch.arange(DIRECTIONS, device=a.device, dtype=a.dtype) + 0.5) / DIRECTIONS
    along = torch.stack([angle.cos(), angle.sin()])
    return ((a @ along).sort(0).values - (b @ along).sort(0).values).abs().mean()


def mode_shares(points: Tensor, modes: Tensor, width: float | Tensor = math.inf) -> Tensor:
    """Share of all points (count, d) that have a mode (modes, d) as their nearest, and lie within three widths of it; (modes,)."""
    distance, nearest = distances(points, modes).min(1)
    is_of = nearest.unsqueeze(1) == torch.arange(len(modes), device=points.device)
    return (is_of & (distance <= NEAR * width).unsqueeze(1)).to(points.dtype).mean(0)


def modes_covered(shares: Tensor) -> Tensor:
    """Modes whose share (modes,) is at least a fifth of 1 / modes."""
    return (shares >= LEAST / len(shares)).sum()


def precision(generated: Tensor, real: Tensor) -> Tensor:
    """Share of the generated points within reach of the real ones (arXiv 1904.06991); with the sets exchanged it is recall.

    A real point reaches as far as its third nearest neighbour among the real ones.
    """
    reach = distances(real, real).kthvalue(NEIGHBOUR + 1, 1).values  # the nearest is the point itself
    return (distances(generated, real) <= reach).any(1).to(real.dtype).mean()


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of each of `a` (m, d) from each of `b` (n, d): (m, n)."""
    return torch.linalg.vector_norm(a.unsqueeze(1) - b, dim=-1)


def density(points: Tensor, half: float, cells: int) -> Tensor:
    """How many points (count, 2) lie in each cell of a square of side 2 half around 0, the upper row first: (cells, cells)."""
    place = torch.floor((points + half) / (2 * half) * cells)
    is_in = (place.unsqueeze(-1) == torch.arange(cells, device=points.device)).to(points.dtype)
    return (is_in[:, 1].T @ is_in[:, 0]).flip(0)
