"""Sharpness of the loss in the logits of an autoregressive model, of which it has a closed form."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..probe import probe

EPSILON = 5e-4


@probe(units="%", every=10)
def logit_sharpness(m):
    """Sharpness in the last token's logits: largest rise of the loss nearby

    See `sharpness_in_logits`: of the last position of each sequence, where the readout has positions.
    """
    y, targets = m.taps["readout"], m.batch["y"]
    return sharpness_in_logits(y[:, -1], targets[:, -1]) if targets.ndim > 1 else sharpness_in_logits(y, targets)


def sharpness_in_logits(y: Tensor, targets: Tensor, epsilon: float = EPSILON) -> Tensor:
    """100 (max L(y + z) - L(y)) / (1 + L(y)) over all z with |z_i| <= epsilon (|y_i| + 1), exactly; 0-dim.

    L is the mean cross-entropy in nats of logits (..., classes) against integers (...). The measure is that of arXiv 2405.18710, who
    search the box with L-BFGS-B. Cross-entropy falls in the target's logit and rises in every other, so the largest value is at the
    corner where the target t is lowered and all others are raised. With p the softmax of y the loss rises there by
    log(1 + sum over the others of p_j (exp(z_j - z_t) - 1)), a sum of positive terms, so that no digits cancel.
    """
    reach = epsilon * (y.abs() + 1)
    is_target = F.one_hot(targets, y.shape[-1]).bool()
    apart = reach + torch.where(is_target, reach, 0.0).sum(-1, keepdim=True)
    log_p = torch.log_softmax(y, -1)
    added = torch.where(is_target, -torch.inf, log_p + apart + torch.log(-torch.expm1(-apart)))
    rise = F.softplus(torch.logsumexp(added, -1))
    loss = -torch.where(is_target, log_p, 0.0).sum(-1)
    return 100 * rise.mean() / (1 + loss.mean())
