"""What two players do to each other: losses, scores, and the eigenvalues of the field that both move along."""

import torch
from torch import Tensor
from torch.func import jacrev

from ..errors import InputError
from ..learners.adversarial import PLAYERS
from ..optimizers import global_norm
from ..probe import probe

MOST_EXACT = 500


@probe("player")
def player_loss(m):
    """Loss of each player, without the penalty"""
    return m.losses


@probe("player")
def player_gradient_norm(m):
    """L2 norm of each player's gradient, with the penalty's"""
    return torch.stack([global_norm({name: g for name, g in m.grads.items() if name.startswith(f"{player}.")}) for player in PLAYERS])


@probe()
def score_gap(m):
    """Mean score of real samples less that of generated ones"""
    return m.scores["real"].mean() - m.scores["generated"].mean()


@probe(every=10, cost="curvature")
def field_growth(m):
    """Largest real part of the eigenvalues of the field's Jacobian

    The field is minus each player's gradient of its own loss, on the batch (arXiv 1801.04406). Above 0 both move away from where they are.
    """
    return field_eigenvalues(m).real.amax()


@probe(every=10, cost="curvature")
def field_rotation(m):
    """Largest imaginary part of the eigenvalues of the field's Jacobian"""
    return field_eigenvalues(m).imag.amax()


def field_eigenvalues(m) -> Tensor:
    """Eigenvalues of the Jacobian of `m.field` at the parameters, complex (parameters,); NaN where it is not finite.

    Exact, for at most 500 parameters of both players together; InputError for more.
    """
    sizes = {name: p.shape for name, p in m.params.items()}
    flat = torch.cat([p.flatten() for p in m.params.values()])
    if flat.numel() > MOST_EXACT:
        raise InputError(
            f"The players have {flat.numel()} parameters, and the eigenvalues of their field are computed up to {MOST_EXACT}; "
            "make the nets smaller, or leave out the probes field_growth and field_rotation."
        )

    def field(at: Tensor) -> Tensor:
        parts = at.split([size.numel() for size in sizes.values()])
        moved = m.field({name: part.view(size) for (name, size), part in zip(sizes.items(), parts, strict=True)})
        return torch.cat([moved[name].flatten() for name in sizes])

    jacobian = jacrev(field)(flat)
    finite = torch.isfinite(jacobian).all()  # LAPACK refuses others, and one diverged lane must not stop the rest
    return torch.where(finite, torch.linalg.eigvals(torch.where(finite, jacobian, 0.0)), complex("nan+nanj"))
