"""The stretch of an axis: which values it covers, and whether in powers of ten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .extras import alt
from .theme import number

RATIO = 30
MARGIN = 0.05


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
        return alt.Scale(type="log" if self.logarithmic else "linear", domain=[self.low, self.high], nice=False, zero=False, clamp=True)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of this axis."""
        return [f"values above {number(self.high)} are drawn at the upper edge"] if self.cut else []

    def at(self, share: float) -> float:
        """The value at this share of the axis' length."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)

    def raised(self, share: float) -> Span:
        """The same with free room above, as a share of the length."""
        return Span(self.low, self.at(1 + share), self.logarithmic, self.cut)


def is_logarithmic(values: Any, ratio: float = RATIO) -> bool:
    """Whether finite values ask for a logarithmic axis: none negative, and the positive ones spanning at least `ratio`."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    return bool(positive.size and values.min() >= 0 and positive.max() / positive.min() >= ratio)


def span(values: Any, also: Iterable[float] = (), ceiling: float | None = None) -> Span:
    """The axis for these values and for the points that must be on it `also`; `ceiling` bounds it from above."""
    values = np.append(np.asarray(values, float).ravel(), list(also))
    values = values[np.isfinite(values)]
    if not values.size:
        return Span(0.0, 1.0, False)
    cut = ceiling is not None and values.max() > ceiling > values.min()
    values = values[values <= ceiling] if cut else values
    if is_logarithmic(values):
        low, high = values[values > 0].min(), values.max()
        margin = (high / low) ** MARGIN
        return Span(float(low / margin), float(ceiling if cut else high * margin), True, cut)
    low = min(values.min(), 0.0) if values.min() < values.max() / 2 else values.min()
    margin = MARGIN * (values.max() - low) or 0.5
    return Span(float(low - margin * (low != 0)), float(ceiling if cut else values.max() + margin), False, cut)
