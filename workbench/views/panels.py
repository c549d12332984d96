"""What charts of runs share: a table with one row a run, colours for groups, panels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .extras import alt
from .layout import Factor
from .theme import CATEGORIES, FAINT, shortened, word

MOST_PANELS = 12
MOST_COLOURS = 12
SIZES = {1: (560, 320), 2: (350, 260), 3: (250, 210)}
SMALLEST = (200, 170)


def run_table(record: Any, factors: Sequence[Factor]) -> pd.DataFrame:
    """One row a run: its number, its varied knobs as text (`knob_0`, ...), its panel (`panel_0`, `panel_1`)."""
    columns: dict[str, Any] = {"run": record["run"].values}
    for i, name in enumerate(record.wb.varied):
        found, codes = np.unique(record[name].values, return_inverse=True)
        columns[f"knob_{i}"] = np.array([word(value) for value in found], object)[codes]
    for i, factor in enumerate(panel_factors(factors)):
        columns[f"panel_{i}"] = factor.of_runs
    return pd.DataFrame(columns)


def panel_factors(factors: Sequence[Factor]) -> list[Factor]:
    """The factors that get panels of their own: the first two that are not too many."""
    return [factor.headed for factor in factors if 1 < len(factor.names) <= MOST_PANELS][:2]


def knob_tooltips(record: Any) -> list[alt.Tooltip]:
    """The run and its knobs, for a chart whose data is a `run_table`."""
    knobs = [alt.Tooltip(f"knob_{i}:N", title=shortened(name)) for i, name in enumerate(record.wb.varied)]
    return [alt.Tooltip("run:O", title="run"), *knobs]


def inline(table: pd.DataFrame) -> alt.Data:
    """A table as data inside the chart; what is not a number or not finite becomes null."""
    table = table.replace([np.inf, -np.inf], np.nan)
    return alt.Data(values=table.astype(object).where(table.notna(), None).to_dict("records"))


def category_colour(factor: Factor, **options: Any) -> alt.Color:
    """Colours that tell groups apart, for the field `colour`."""
    scale = alt.Scale(domain=list(factor.names), range=[CATEGORIES[i % len(CATEGORIES)] for i in range(len(factor.names))])
    return alt.Color("colour:N", title=shortened(factor.title), scale=scale, **options)


def ramp_colour(factor: Factor, values: np.ndarray, *, logarithmic: bool) -> alt.Color:
    """Colours in order, for the field `colour`: steps of a ramp with a name each, or a gradient where they are many."""
    if len(factor.names) <= MOST_COLOURS:
        scale = alt.Scale(domain=list(factor.names), scheme=alt.SchemeParams(name="viridis", extent=[0, 0.9]))
        return alt.Color("colour:O", title=shortened(factor.title), scale=scale, sort=list(factor.names))
    scale = alt.Scale(
        domain=[float(values.min()), float(values.max())],
        type="log" if logarithmic else "linear",
        scheme=alt.SchemeParams(name="viridis", extent=[0, 0.9]),
    )
    return alt.Color("colour:Q", title=shortened(factor.title), scale=scale, legend=alt.Legend(format="~g", tickCount=5))


def panels(layers: Sequence[Any], table: pd.DataFrame, factors: Sequence[Factor], *, description: str, notes: Sequence[str] = ()) -> Any:
    """The layers over the table, once for each group of the panel factors."""
    shown = panel_factors(factors)
    across = shown[-1] if shown else None
    columns = min(len(across.names), 3) if len(shown) == 1 else len(across.names) if across else 1
    width, height = SIZES.get(columns, SMALLEST)
    chart = alt.layer(*layers, data=inline(table)).properties(width=width, height=height)
    if len(shown) == 1:
        chart = chart.facet(_panel(alt.Facet, 0, shown[0]), columns=columns)
    elif shown:
        chart = chart.facet(row=_panel(alt.Row, 0, shown[0]), column=_panel(alt.Column, 1, shown[1]))
    title = {"title": alt.Title("; ".join(notes), fontSize=12, fontWeight="normal", color=FAINT)} if notes else {}
    return chart.properties(description=description, **title)


def _panel(channel: Any, i: int, factor: Factor) -> Any:
    return channel(f"panel_{i}:N", sort=list(factor.names), title=None)
