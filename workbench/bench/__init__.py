"""Benchmarks: this package beside a plain PyTorch loop and JAX, and what measuring, drawing, storing and importing take.

Each part is a module with `measure(asked) -> Dataset` and `tables(Dataset)`, which says the same in words and numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

PARTS = ("speed", "probes", "draws", "beginning", "store", "imports")


@dataclass(frozen=True)
class Asked:
    """What a person asked for: names of cases (none: all that a part has), rounds, seconds of one round, device.

    `say` is told what is being measured.
    """

    cases: tuple[str, ...] = ()
    pairs: int = 9
    seconds: float = 1.0
    device: str = "cpu"
    say: Callable[[str], None] = lambda text: None
