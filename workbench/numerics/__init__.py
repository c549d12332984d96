"""Number formats, rounding to them, and where in a training step to round.

All formats are simulated: numbers are rounded to the values a format has and stay in float32 or float64, where sums and products
are then computed.
"""

from .formats import FORMATS, Format, format_of
from .places import Rounding, edits, round_tree
from .rounding import round_to, straight_through

__all__ = ["FORMATS", "Format", "Rounding", "edits", "format_of", "round_to", "round_tree", "straight_through"]
