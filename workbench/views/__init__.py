"""Views: what a record looks like. Each works on any record that holds the variables it needs."""

from .curves import curves, decimate, entropy, entropy_curves, loss_curves, uniform_entropy
from .heatmaps import entropy_map, event_shares, heat_map, lowest_and_twin
from .intervals import intervals
from .sweep import final, final_loss_against_lr, sweep
from .verdicts import claims, forest, verdicts_of

GENERAL = (final_loss_against_lr, event_shares, loss_curves, entropy_curves, entropy_map)

__all__ = [
    "GENERAL",
    "claims",
    "curves",
    "decimate",
    "entropy",
    "entropy_curves",
    "entropy_map",
    "event_shares",
    "final",
    "final_loss_against_lr",
    "forest",
    "heat_map",
    "intervals",
    "loss_curves",
    "lowest_and_twin",
    "sweep",
    "uniform_entropy",
    "verdicts_of",
]
