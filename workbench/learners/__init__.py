"""Learners: pure training steps of one run."""

from .losses import Loss, cross_entropy
from .supervised import Supervised

__all__ = ["Loss", "Supervised", "cross_entropy"]
