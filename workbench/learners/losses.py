"""Losses of supervised learners, and the knob of the z-loss."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..knobs import Knobs, knob
from ..models import log_z
from ..numerics import log_probabilities


class Loss(Knobs):
    """What is added to the loss."""

    z_loss: float = knob(0.0, 0.0, 1e-2, group="optimizer", doc="weight of the z-loss, the mean of log(Z)^2 of the output softmax")


def softmax_loss(readout: Tensor, batch: Any, knobs: Any) -> Tensor:
    """Mean of `softmax_losses`, in the readout's dtype; `batch["weight"]` weighs them."""
    return _weighted_mean(softmax_losses(readout, batch["y"], knobs).to(readout.dtype), batch)


def softmax_losses(readout: Tensor, y: Tensor, knobs: Any) -> Tensor:
    """-log of the probability of each integer y (...) by logits (..., classes), in nats; softmax and precision are those of the knobs."""
    return -log_probabilities(readout, knobs).gather(-1, y.unsqueeze(-1)).squeeze(-1)


def cross_entropy(readout: Tensor, batch: Any, knobs: Any = None) -> Tensor:
    """Mean cross-entropy in nats of logits (..., classes) against integers `batch["y"]` (...); `batch["weight"]` weighs them."""
    return _weighted_mean(F.cross_entropy(readout.flatten(0, -2), batch["y"].flatten(), reduction="none"), batch)


def squared_error(readout: Tensor, batch: Any, knobs: Any = None) -> Tensor:
    """Squared distance of outputs (..., classes) from the one-hot vectors of integers `batch["y"]` (...), mean over all entries."""
    classes = torch.arange(readout.shape[-1], device=readout.device)
    target = (batch["y"].unsqueeze(-1) == classes).to(readout.dtype)
    return (readout - target).square().mean()


def z_penalty(readout: Tensor, knobs: Any) -> Tensor:
    """z-loss: `z_loss` times the mean of log(Z)^2 (arXiv 2309.14322, weight 1e-4 there)."""
    return knobs.z_loss * (log_z(readout) ** 2).mean()


def _weighted_mean(losses: Tensor, batch: Any) -> Tensor:
    if "weight" not in batch:
        return losses.mean()
    weight = batch["weight"].reshape(losses.shape)
    return (losses * weight).sum() / weight.sum()
