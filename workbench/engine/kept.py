"""States kept in memory to go back to: bounded in bytes, thinned so that what stays is spread evenly."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .lanes import size_in_bytes


@dataclass(frozen=True)
class State:
    """The states of a branch's runs as update `step` - 1 left them, before any change made at `step`; and when each diverged (-1: not)."""

    step: int
    runs: tuple[Any, ...]
    diverged: np.ndarray

    @property
    def bytes(self) -> int:
        """What it holds."""
        return sum(map(size_in_bytes, self.runs))


@dataclass
class Shelf:
    """The kept states of all branches, by the number of the branch and the step; at most `budget` bytes unless none may go."""

    budget: int
    states: dict[tuple[int, int], State] = field(default_factory=dict)
    bytes: int = 0

    def keep(self, branch: int, state: State, needed: Iterable[tuple[int, int]]) -> None:
        """Keep a state, then let go of those that leave the smallest gaps until all fit; `needed` ones and each branch's latest stay."""
        self.drop(branch, state.step)
        self.states[branch, state.step] = state
        self.bytes += state.bytes
        needed = set(needed)
        while self.bytes > self.budget and (least := self._least(needed)):
            self.drop(*least)

    def drop(self, branch: int, step: int | None = None) -> None:
        """Let go of a state, or of all of a branch."""
        for place in [place for place in self.states if place[0] == branch and step in (None, place[1])]:
            self.bytes -= self.states.pop(place).bytes

    def of(self, branch: int) -> list[int]:
        """The steps of a branch at which states are kept, ascending."""
        return sorted(step for number, step in self.states if number == branch)

    def nearest(self, branch: int, step: int) -> State:
        """The latest state of a branch that is not after `step`."""
        return self.states[branch, max(at for at in self.of(branch) if at <= step)]

    def _least(self, needed: set[tuple[int, int]]) -> tuple[int, int] | None:
        """The state without which the gap between its neighbours is smallest."""
        found = []
        for branch in {branch for branch, _ in self.states}:
            steps = self.of(branch)
            gaps = zip(steps[:-2], steps[1:-1], steps[2:], strict=True)
            found += [(after - before, branch, at) for before, at, after in gaps if (branch, at) not in needed]
        return min(found)[1:] if found else None
