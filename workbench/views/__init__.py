"""Views."""

from .curves import entropy_curves, loss_curves

__all__ = ["entropy_curves", "loss_curves"]
