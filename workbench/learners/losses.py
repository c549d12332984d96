"""Losses of supervised learners, and the knob of the z-loss."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..knobs import Knobs, knob
from ..models import log_z


class Loss(Knobs):
    """What is added to the loss."""

    z_loss: float = knob(0.0, 0.0, 1e-2, group="optimizer", doc="weight of the z-loss, the mean of log(Z)^2 of the output softmax")


def cross_entropy(readout: Tensor, batch: Any, knobs: Any = None) -> Tensor:
    """Mean cross-entropy in nats of logits (..., classes) against integers `batch["y"]` (...); `batch["weight"]` weighs them."""
    losses = F.cross_entropy(readout.flatten(0, -2), batch["y"].flatten(), reduction="none")
    if "weight" not in batch:
        return losses.mean()
    weight = batch["weight"].flatten()
    return (losses * weight).sum() / weight.sum()


def z_penalty(readout: Tensor, knobs: Any) -> Tensor:
    """z-loss: `z_loss` times the mean of log(Z)^2 (arXiv 2309.14322, weight 1e-4 there)."""
    return knobs.z_loss * (log_z(readout) ** 2).mean()
