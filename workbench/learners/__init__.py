"""Learners: pure training steps of one run."""

from .losses import Loss, cross_entropy, softmax_loss, softmax_losses, squared_error
from .supervised import Supervised

__all__ = ["Loss", "Supervised", "cross_entropy", "softmax_loss", "softmax_losses", "squared_error"]
