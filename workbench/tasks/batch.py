"""The knob that every task shares."""

from ..knobs import Knobs, at_least, knob


class Batch(Knobs):
    """How many examples an update sees."""

    batch: int = knob(16, 1, 256, valid=at_least(1), units="example", doc="Examples in one update", group="data")
