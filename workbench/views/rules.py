"""Reference lines: numbers to compare with, in each panel its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .extras import alt
from .layout import Factor
from .panels import panel_factors
from .span import Span
from .theme import number

References = Mapping[str, float | np.ndarray]


@dataclass(frozen=True)
class Rules:
    """For each label one number a panel, kept at the place of the panel's first run; NaN elsewhere and where it is not known."""

    places: Mapping[str, np.ndarray]

    @property
    def values(self) -> list[float]:
        """All numbers, of all panels."""
        return [value for at in self.places.values() for value in at[np.isfinite(at)].tolist()]

    def columns(self, axis: Span) -> dict[str, Any]:
        """Columns for a table with a row a run: where each rule stands, if on the axis, and what it says."""
        drawn = {text: np.where((at >= axis.low) & (at <= axis.high), at, np.nan) for text, at in self.places.items()}
        heights = {f"rule_{i}": at for i, at in enumerate(drawn.values())}
        return heights | {f"rule_{i}_text": [f"{text} {number(value)}" for value in at] for i, (text, at) in enumerate(drawn.items())}

    def layers(self, y: Any) -> list[Any]:
        """Dashed rules with their labels, for a chart whose table has the columns."""
        layers = []
        for i in range(len(self.places)):
            there = alt.Chart().transform_filter(f"datum.rule_{i} !== null").transform_calculate(value=f"datum.rule_{i}")
            words = there.mark_text(align="right", baseline="bottom", dx=-4, dy=-3, fontSize=11)
            layers += [
                there.mark_rule(strokeDash=[5, 4]).encode(y=y),
                words.encode(y=y, x=alt.value("width"), text=alt.Text(f"rule_{i}_text:N")),
            ]
        return layers

    def notes(self, axis: Span) -> list[str]:
        """What is beyond the axis and therefore not drawn."""
        found = []
        for text, at in self.places.items():
            for where, beyond in (("above", at[at > axis.high]), ("below", at[at < axis.low])):
                if beyond.size:
                    found.append(f"{text} is {' and '.join(sorted(set(map(number, beyond))))}, {where} this axis")
        return found


def rules(references: References, factors: Sequence[Factor], runs: int) -> Rules:
    """The median of each reference over the runs of each panel; `references` are numbers, or arrays of one number a run."""
    panel = pd.DataFrame({str(i): factor.codes for i, factor in enumerate(panel_factors(factors))} | {"": np.zeros(runs, int)})
    panel = panel.groupby(list(panel)).ngroup()
    places = {}
    for text, value in references.items():
        each = pd.Series(np.broadcast_to(np.asarray(value, float), runs)).replace([np.inf, -np.inf], np.nan)
        places[text] = each.groupby(panel).transform("median").mask(panel.duplicated()).to_numpy()
    return Rules(places)
