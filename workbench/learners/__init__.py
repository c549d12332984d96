"""Learners: pure training steps of one run."""

from .adversarial import PLAYERS, Adversarial, Game
from .losses import Loss, cross_entropy, softmax_loss, softmax_losses, squared_error
from .own_samples import OwnSamples
from .spikes import Spiked, Spikes, hit, spiked
from .supervised import Supervised

__all__ = [
    "PLAYERS",
    "Adversarial",
    "Game",
    "Loss",
    "OwnSamples",
    "Spiked",
    "Spikes",
    "Supervised",
    "cross_entropy",
    "hit",
    "softmax_loss",
    "softmax_losses",
    "spiked",
    "squared_error",
]
