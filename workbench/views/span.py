"""The stretch of an axis: which values it covers, and whether in powers of ten."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .extras import alt
from .theme import number

RATIO = 10
MARGIN = 0.05
MOST_TICKS = 8
FAR = 2.0


@dataclass(frozen=True)
class Span:
    """From `low` to `high`; `cut` where values lie above, which are then drawn at the upper edge."""

    low: float
    high: float
    logarithmic: bool
    cut: bool = False

    @property
    def scale(self) -> alt.Scale:
        """The scale of this stretch. Values beyond it are drawn at its edges: 0, on a logarithmic one, at the lower."""
        kind = {"type": "log"} if self.logarithmic else {"type": "linear", "zero": False}
        return alt.Scale(domain=[self.low, self.high], nice=False, clamp=True, **kind)

    @property
    def marks(self) -> alt.Axis:
        """The axis' ticks: round numbers; on a logarithmic one powers of ten, or 1, 2 and 5 times them where it is short."""
        if not self.logarithmic:
            step = _round_step((self.high - self.low) / MOST_TICKS)
            marks = np.arange(np.ceil(self.low / step), np.floor(self.high / step) + 1) * step
            plain = step >= 1e-4 and np.abs(marks).max(initial=0) < 1e6
            return alt.Axis(values=marks.tolist(), format=f",.{max(0, -math.floor(math.log10(step)))}f" if plain else ".4~g")
        decades = 10.0 ** np.arange(np.floor(np.log10(self.low)), np.ceil(np.log10(self.high)) + 1)
        every = -(-len(decades) // MOST_TICKS)
        marks = np.outer(decades, [1, 2, 5]).ravel() if len(decades) <= MOST_TICKS // 2 else decades[::every]
        marks = [float(f"{mark:.4g}") for mark in marks if self.low <= mark <= self.high]
        return alt.Axis(values=marks, format=powers(marks))

    @property
    def notes(self) -> list[str]:
        """What a reader must know of this axis."""
        return [f"values above {number(self.high)} are drawn at the upper edge"] if self.cut else []

    def at(self, share: float) -> float:
        """The value at this share of the axis' length."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)

    def share(self, value: float) -> float:
        """Where a value stands, as a share of the axis' length."""
        if self.logarithmic:
            return float(np.log(value / self.low) / np.log(self.high / self.low)) if value > 0 else 0.0
        return (value - self.low) / (self.high - self.low)

    def reaching(self, values: Iterable[float]) -> Span:
        """The same, stretched to values above it that are not far; far ones would flatten what it shows."""
        near = [share for share in map(self.share, values) if 1 < share <= FAR]
        return self.raised(max(near) - 1 + 2 * MARGIN) if near else self

    def padded(self, share: float = 0.2) -> Span:
        """The same with free room on both sides, as a share of the length."""
        return Span(self.at(-share), self.at(1 + share), self.logarithmic, self.cut)

    def raised(self, share: float) -> Span:
        """The same with free room above, as a share of the length."""
        return Span(self.low, self.at(1 + share), self.logarithmic, self.cut)


def powers(marks: Iterable[float]) -> str:
    """The format of marks on a logarithmic axis: as powers of ten where they would be long otherwise."""
    return "~e" if any(mark >= 1e6 or mark < 1e-3 for mark in marks) else "~g"


def _round_step(step: float) -> float:
    """The next of 1, 2, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step * (1 - 1e-9))


def is_logarithmic(values: Any, ratio: float = RATIO) -> bool:
    """Whether finite values ask for a logarithmic axis: none negative, and the positive ones spanning at least `ratio`."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    return bool(positive.size and values.min() >= 0 and positive.max() / positive.min() >= ratio)


def span(values: Any, also: Iterable[float] = (), *, ceiling: float | None = None, logarithmic: bool | None = None) -> Span:
    """The axis for these values and for the points that must be on it `also`; `ceiling` bounds it from above.

    Whether it is logarithmic is seen from the values unless said.
    """
    values = np.append(np.asarray(values, float).ravel(), list(also))
    values = values[np.isfinite(values)]
    if not values.size:
        return Span(0.0, 1.0, False)
    cut = ceiling is not None and bool(values.max() > ceiling > values.min())
    values = np.append(values[values <= ceiling], ceiling) if cut else values
    high = values.max()
    if (is_logarithmic(values) if logarithmic is None else logarithmic) and high > 0:
        low = values[values > 0].min()
        margin = (high / low) ** MARGIN if high > low else 2.0
        return Span(float(low / margin), float(high if cut else high * margin), True, cut)
    low = min(values.min(), 0.0) if values.min() < high / 4 else values.min()
    margin = MARGIN * (high - low) or 0.5
    return Span(float(low - margin * (low != 0)), float(high if cut else high + margin), False, cut)
