"""Tracks: what has been measured of the runs of one branch so far, growing step by step. Arrays only, neither torch nor xarray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from .schema import Change, Variable

FIRST = 256
MOST_PICTURES = 48


class Series:
    """Measurements of one variable that grow: ascending steps, and values (step, run, *dims).

    With `most` there are never more than that many: the first, those a number of measurements apart that doubles as they fill up, and
    the latest.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most, self.size = most, 0
        self._seen, self._apart = 0, 1
        self._steps = np.empty(0, np.int64)
        self._values = np.empty(0)

    @classmethod
    def of(cls, steps: np.ndarray, values: np.ndarray) -> Self:
        """A series that is complete: steps, and values (step, run, *dims)."""
        series = cls()
        series._steps, series._values, series.size = steps, values, len(steps)
        return series

    @property
    def steps(self) -> np.ndarray:
        """The steps measured at."""
        return self._steps[: self.size]

    @property
    def values(self) -> np.ndarray:
        """The values, (step, run, *dims)."""
        return self._values[: self.size]

    def append(self, step: int, values: np.ndarray) -> None:
        """Add the values (run, *dims) of a later step."""
        if (self._seen - 1) % self._apart:  # the one before was there as the latest only
            self.size -= 1
        if self.size == self.most:
            self._thin()
        if self.size == len(self._steps):
            self._grow(values)
        self._steps[self.size], self._values[self.size] = step, values
        self.size += 1
        self._seen += 1

    def _thin(self) -> None:
        kept = (self.size + 1) // 2
        self._steps[:kept], self._values[:kept] = self.steps[::2].copy(), self.values[::2].copy()
        self.size, self._apart = kept, 2 * self._apart

    def _grow(self, like: np.ndarray) -> None:
        room = max(self.most or FIRST, 2 * self.size)
        steps, values = np.empty(room, np.int64), np.empty((room, *like.shape), like.dtype)
        if self.size:
            steps[: self.size], values[: self.size] = self.steps, self.values
        self._steps, self._values = steps, values


@dataclass(eq=False)  # two tracks with equal numbers are still two
class Track:
    """The runs of one branch: who they are, where they left which other branch, and what was measured of them since.

    `row` are the knobs now and `first` those at step 0; `changes` lists all that was changed in between, on this branch and before it
    left its parent. `diverged` is the step at which each run did (-1: it did not). `kind` says how the branch came about.
    """

    number: int
    name: str
    kind: str
    seeds: tuple[int, ...]
    first: Mapping[str, Any]
    row: Mapping[str, Any]
    variables: Mapping[str, Variable]
    labels: Mapping[str, Sequence[Any]]
    start: int = 0
    parent: "Track | None" = None
    step: int = 0
    changes: list[Change] = field(default_factory=list)
    diverged: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    own: dict[str, Series] = field(default_factory=dict)

    def add(self, name: str, step: int, values: np.ndarray) -> None:
        """Take in the values (run, *dims) of a variable at a step."""
        if name not in self.own:
            self.own[name] = Series(MOST_PICTURES if is_picture(self.variables[name]) else None)
        self.own[name].append(step, values)

    def series(self, name: str, until: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Steps, and values (run, step, *dims), of a variable from step 0 to before `until`, the parent's before the start included."""
        parts = []
        track, end = self, np.inf if until is None else until
        while track is not None:
            if name in track.own:
                series = track.own[name]
                count = int(np.searchsorted(series.steps, end))
                parts.append((series.steps[:count], self._relabelled(name, series.values[:count], track)))
            track, end = track.parent, min(track.start, end)
        parts = [part for part in reversed(parts) if len(part[0])]
        if not parts:
            return np.empty(0, int), np.empty((len(self.seeds), 0, *(len(self.labels.get(d, ())) for d in self.variables[name].dims)))
        steps, values = (np.concatenate(each) if len(parts) > 1 else each[0] for each in zip(*parts, strict=True))
        return steps, np.moveaxis(values, 0, 1)

    def _relabelled(self, name: str, values: np.ndarray, track: "Track") -> np.ndarray:
        """Values of another track with the labels of this one; NaN where that has no such label."""
        for axis, dim in enumerate(self.variables[name].dims, start=2):
            own, theirs = list(self.labels.get(dim, ())), list(track.labels.get(dim, ()))
            if own != theirs:
                found = np.full((*values.shape[:axis], len(own), *values.shape[axis + 1 :]), np.nan, np.float32)
                shared = [label for label in own if label in theirs]
                here, there = ((slice(None),) * axis + ([labels.index(each) for each in shared],) for labels in (own, theirs))
                found[here] = values[there]
                values = found
        return values

    def row_at(self, update: int) -> dict[str, Any]:
        """The knobs with which update number `update` was made."""
        return dict(self.first) | {c.knob: c.new for c in self.changes if c.step <= update}

    def row_before(self, update: int) -> dict[str, Any]:
        """The knobs that the state before update number `update` comes from."""
        return self.row_at(update - 1)

    @property
    def ancestors(self) -> list["Track"]:
        """The tracks it came from, nearest first."""
        found, track = [], self.parent
        while track is not None:
            found.append(track)
            track = track.parent
        return found


def reduced(values: np.ndarray, dims: Sequence[str], over: Mapping[str, str]) -> np.ndarray:
    """Values (run, step, *dims) with the named dimensions reduced in their order, and the mean over the rest: (run, step)."""
    left = list(dims)
    for dim, how in {**over, **dict.fromkeys([d for d in dims if d not in over], "mean")}.items():
        if dim in left:
            values = getattr(np, how)(values, axis=2 + left.index(dim))
            left.remove(dim)
    return values


def is_picture(variable: Variable) -> bool:
    """Whether a variable is looked at rather than read: bytes with rows and columns."""
    return variable.dtype == "uint8" and variable.dims[-2:] == ("y", "x")
