"""The knobs of tasks that train on a fixed share of a small set, all of it at every step."""

from ..errors import InputError
from ..knobs import Knobs, between, knob

_ROUNDING = 1e-9  # 0.29 of 100 must be 29


class Split(Knobs):
    """Which examples are trained on. Defaults are those of arXiv 2501.04697."""

    train_share: float = knob(0.4, 0.1, 0.9, valid=between(0.0, 1.0), acts="shape", group="data", doc="share of the examples trained on")
    split_seed: int = knob(42, 0, 100, group="data", doc="which examples are trained on; the same for runs of all seeds")


def trained_on(share: float, examples: int) -> int:
    """int(share examples); InputError unless this leaves an example to train on and one to test."""
    count = int(share * examples + _ROUNDING)
    if not 0 < count < examples:
        raise InputError(
            f"Knob 'train_share' is {share}, which leaves {count} of {examples} examples to train on; choose a share that leaves one to "
            "train on and one to test."
        )
    return count
