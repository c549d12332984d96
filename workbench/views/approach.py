"""What a variable does before an event: curves of the runs that have it, aligned there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .extras import alt
from .layout import Factor
from .panels import categories, inline, ordered
from .span import span
from .theme import rounded

WIDTH, HEIGHT = 520, 280


def approach(values: Any, at: np.ndarray, group: Factor, *, title: str, event: str, within: int) -> Any:
    """Lines of `values` (run, step) over the last `within` steps before the step `at` of each run (NaN: no line); at 1 a rule.

    The thick line is the median over the runs at each distance. The axis is logarithmic.
    """
    table = _aligned(values, at, group, within)
    names = [name for name in group.names if (table["colour"] == name).any()]
    shades = ordered if group.ordered else categories
    colour = shades(Factor(group.title, tuple(names), np.zeros(0, int), group.ordered)) if names else alt.value("black")
    axis = span([*table["value"], 0.5, 2.0], logarithmic=True)
    x = alt.X("before:Q", title=f"step, counted from {event}", scale=alt.Scale(domain=[-within, 0]), axis=alt.Axis(grid=False, tickCount=6))
    y = alt.Y("value:Q", title=title, scale=axis.scale, axis=axis.marks)
    base = alt.Chart(inline(table)).encode(x=x, y=y)
    tooltip = [alt.Tooltip("colour:N", title=group.title), alt.Tooltip("run:O"), alt.Tooltip("value:Q", format=".3~g")]
    lines = base.mark_line(strokeWidth=0.9, opacity=0.5, point=alt.OverlayMarkDef(size=12, opacity=0.5))
    lines = lines.encode(color=colour, detail="run:N", tooltip=tooltip)
    middle = alt.Chart(inline(_medians(table))).mark_line(strokeWidth=3, color="black").encode(x=x, y=y)
    one = alt.Chart(alt.Data(values=[{"value": 1}])).mark_rule(strokeDash=[5, 4]).encode(y=y)
    return alt.layer(one, lines, middle).properties(width=WIDTH, height=HEIGHT, description=f"{title} before {event}")


def _aligned(values: Any, at: np.ndarray, group: Factor, within: int) -> pd.DataFrame:
    steps, heights = values["step"].values, np.asarray(values.transpose("run", "step").values, float)
    before = steps - at[:, None]
    runs, columns = np.nonzero((before < 0) & (before >= -within) & np.isfinite(heights) & (heights > 0))
    names = group.of_runs(group.names)
    found = {"run": runs, "before": before[runs, columns], "value": rounded(heights[runs, columns]), "colour": names[runs]}
    return pd.DataFrame(found).astype({"colour": object})


def _medians(table: pd.DataFrame) -> pd.DataFrame:
    """Over stretches of ten steps, since runs have the event at different distances from what was measured: of each run, then of all."""
    stretch = (np.floor(table["before"] / 10) * 10 + 5).rename("before")
    each = table["value"].groupby([stretch, table["run"]]).median()
    return each.groupby("before").median().reset_index()
