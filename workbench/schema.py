"""The schema of a record: what the engine will measure, known before the first step. No torch, no xarray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .probe import CLOCKS

VERSION = 1


@dataclass(frozen=True)
class Variable:
    """One variable over (run, step, *dims), measured on `clock`."""

    name: str
    clock: int
    dims: tuple[str, ...]
    dtype: str
    attrs: Mapping[str, str]


@dataclass(frozen=True)
class Schema:
    """Runs, variables, dimension labels and attributes of a record to be."""

    rows: Sequence[Mapping[str, Any]]
    columns: Mapping[str, Mapping[str, Any]]
    variables: Sequence[Variable]
    labels: Mapping[str, Sequence[Any]]
    phases: Sequence[tuple[str, int]]
    start: int
    stop: int
    attrs: Mapping[str, Any]

    def clocks(self) -> list[int]:
        """The clocks that have a variable."""
        return sorted({v.clock for v in self.variables})


@dataclass(frozen=True)
class Change:
    """A knob changed while training, before update `step`; `parent` is the run forked from, in the record it came from (-1: none)."""

    run: int
    step: int
    knob: str
    old: Any
    new: Any
    parent: int = -1


@dataclass(frozen=True)
class Slab:
    """Measured numbers of some runs over a stretch: per variable an array (runs, steps, *dims)."""

    runs: Sequence[int]
    clock: int
    steps: Sequence[int]
    values: Mapping[str, Any]
    labels: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Progress:
    """How far some runs are: `done` updates made, and the step at which each diverged (-1: it did not)."""

    runs: Sequence[int]
    done: int
    diverged: Sequence[int]


@dataclass(frozen=True)
class Busy:
    """What is being done before some runs can train."""

    doing: str


def ticks(clock: int, start: int, stop: int) -> list[int]:
    """The steps from `start` to `stop` at which a clock fires: its multiples, and the end."""
    first = -(-start // clock) * clock
    return sorted({*range(first, stop + 1, clock), stop})


def due(step: int, stop: int) -> frozenset[int]:
    """The clocks that fire at `step`."""
    return frozenset(c for c in CLOCKS if step % c == 0 or step == stop)
