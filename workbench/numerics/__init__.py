"""Number formats, rounding to them, where in a training step to round, and loss scaling.

All formats are simulated: numbers are rounded to the values a format has and stay in float32 or float64, where sums and products
are then computed.
"""

from .formats import FORMATS, Bits, Format, Integer, format_of
from .loss_scaling import LossScaling
from .places import Place, Rounding, edits, is_on, round_tree
from .rounding import round_to, straight_through
from .softmax import OutputSoftmax, is_saturated, log_probabilities

__all__ = [
    "FORMATS",
    "Bits",
    "Format",
    "Integer",
    "LossScaling",
    "OutputSoftmax",
    "Place",
    "Rounding",
    "edits",
    "format_of",
    "is_on",
    "is_saturated",
    "log_probabilities",
    "round_to",
    "round_tree",
    "straight_through",
]
