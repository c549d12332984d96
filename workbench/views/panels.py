"""What charts of runs share: a table with one row a run, colours for groups, panels side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .extras import alt
from .layout import Factor, Layout
from .span import Span, is_logarithmic
from .theme import CATEGORIES, FAINT, PALEST, ramp, shortened, word, wrapped

MOST_PANELS = 12
MOST_COLOURS = 12
LOG_KNOB = 8
WIDTHS, HEIGHTS = {1: 560, 2: 350, 3: 250}, {1: 280, 2: 200}
LOWEST = 150
LONG_HEAD = 24
LETTER = 7.4  # pixels that a letter of a title takes
GRADIENT = {"name": "viridis", "extent": [0, PALEST]}


def run_table(record: Any, factors: Sequence[Factor]) -> pd.DataFrame:
    """One row a run: its number, its varied knobs as text (`knob_0`, ...), its panel (`panel_0`, `panel_1`)."""
    columns: dict[str, Any] = {"run": record["run"].values}
    for i, name in enumerate(record.wb.varied):
        found, codes = np.unique(record[name].values, return_inverse=True)
        columns[f"knob_{i}"] = np.array([word(value) for value in found], object)[codes]
    for i, factor in enumerate(panel_factors(factors)):
        columns[f"panel_{i}"] = factor.of_runs(factor.heads)
    return pd.DataFrame(columns)


def panel_factors(factors: Sequence[Factor]) -> list[Factor]:
    """The factors that get panels of their own: the first two that are not too many."""
    return [factor for factor in factors if 1 < len(factor.names) <= MOST_PANELS][:2]


def unseen(plan: Layout, factors: Sequence[Factor]) -> list[str]:
    """A note on the varied knobs that a chart does not tell apart; `factors` are those left for its panels."""
    shown = {factor.title for factor in panel_factors(factors)}
    names = [*(factor.title for factor in factors if factor.title not in shown), *plan.folded]
    return [f"not told apart here: {', '.join(map(shortened, names))}"] if names else []


def knob_tooltips(record: Any) -> list[alt.Tooltip]:
    """The run and its knobs, for a chart whose data is a `run_table`."""
    knobs = [alt.Tooltip(f"knob_{i}:N", title=shortened(name)) for i, name in enumerate(record.wb.varied)]
    return [alt.Tooltip("run:O", title="run"), *knobs]


def inline(table: pd.DataFrame) -> alt.Data:
    """A table as data inside the chart; what is not a number or not finite becomes null."""
    table = table.replace([np.inf, -np.inf], np.nan)
    return alt.Data(values=table.astype(object).where(table.notna(), None).to_dict("records"))


def hue(record: Any, plan: Layout) -> tuple[Factor, Any, list[Factor]]:
    """What colour says (the main knob, else the first factor), its encoding of the field `colour`, and the factors left over."""
    if plan.main:
        values, codes = np.unique(record[plan.main].values, return_inverse=True)
        if len(values) > MOST_COLOURS:
            return Factor(plan.main, tuple(values.tolist()), codes), gradient(plan.main, values), list(plan.factors)
        factor = Factor(plan.main, tuple(map(word, values)), codes)
        return factor, ordered(factor), list(plan.factors)
    if plan.factors:
        return plan.factors[0], categories(plan.factors[0]), list(plan.factors[1:])
    return Factor("", ("",), np.zeros(record.sizes["run"], int)), alt.value(CATEGORIES[0]), []


def shades(factor: Factor) -> alt.Color:
    """Colours of groups: in order if the groups have one."""
    return ordered(factor) if factor.ordered else categories(factor)


def categories(factor: Factor) -> alt.Color:
    """Colours that tell groups apart."""
    colours = [CATEGORIES[i % len(CATEGORIES)] for i in range(len(factor.names))]
    return alt.Color("colour:N", title=shortened(factor.title), scale=alt.Scale(domain=list(factor.names), range=colours))


def ordered(factor: Factor) -> alt.Color:
    """Colours in order, one a group."""
    scale = alt.Scale(domain=list(factor.names), range=ramp(len(factor.names)))
    strokes = alt.Legend(symbolType="stroke")
    return alt.Color("colour:O", title=shortened(factor.title), scale=scale, sort=list(factor.names), legend=strokes)


def gradient(title: str, values: np.ndarray) -> alt.Color:
    """Colours in order for numbers."""
    ends = Span(float(values.min()), float(values.max()), is_logarithmic(values, LOG_KNOB))
    legend = alt.Legend(type="gradient", format="~g", values=ends.marks.to_dict()["values"])
    scale = alt.Scale(domain=[ends.low, ends.high], type="log" if ends.logarithmic else "linear", scheme=GRADIENT)
    return alt.Color("colour:Q", title=shortened(title), scale=scale, legend=legend)


def panels(layers: Sequence[Any], table: pd.DataFrame, factors: Sequence[Factor], *, description: str, notes: Sequence[str] = ()) -> Any:
    """The layers over the table, once for each group of the panel factors."""
    shown = panel_factors(factors)
    rows, columns = _grid(shown)
    table = _with_empty_panels(table, shown) if len(shown) == 2 else table
    chart = alt.layer(*layers, data=inline(table)).properties(width=WIDTHS.get(columns, 200), height=HEIGHTS.get(rows, LOWEST))
    if len(shown) == 1:
        chart = chart.facet(_panel(alt.Facet, 0, shown[0]), columns=columns)
    elif shown:
        chart = chart.facet(row=_panel(alt.Row, 0, shown[0]), column=_panel(alt.Column, 1, shown[1]))
    title = {"title": alt.Title(list(notes), fontSize=12, fontWeight="normal", color=FAINT)} if notes else {}
    return chart.properties(description=description, **title)


def _with_empty_panels(table: pd.DataFrame, shown: Sequence[Factor]) -> pd.DataFrame:
    """The table with a row of nothing for each pair of groups that has none: Vega-Lite puts what follows a gap into the wrong row."""
    found = set(zip(table["panel_0"], table["panel_1"], strict=True))
    missing = [pair for pair in itertools.product(*(factor.heads for factor in shown)) if pair not in found]
    lists = [name for name, value in table.iloc[0].items() if isinstance(value, list | np.ndarray)] if len(table) else []
    rows = [{"panel_0": row, "panel_1": column} | {name: [None] for name in lists} for row, column in missing]
    return pd.concat([table, pd.DataFrame(rows, columns=table.columns)]) if rows else table


def y_title(text: str, factors: Sequence[Factor]) -> list[str]:
    """The title of the vertical axis, in lines that the height of a panel has room for."""
    return wrapped(text, int(HEIGHTS.get(_grid(panel_factors(factors))[0], LOWEST) / LETTER))


def _grid(shown: Sequence[Factor]) -> tuple[int, int]:
    """Rows and columns of panels."""
    groups = [len(factor.names) for factor in shown]
    if len(groups) == 2:
        return groups[0], groups[1]
    columns = min(groups[0], 3) if groups else 1
    return -(-groups[0] // columns) if groups else 1, columns


def _panel(channel: Any, i: int, factor: Factor) -> Any:
    # Of a long head each part gets a line, so that it does not run into the next panel's.
    header = alt.Header(labelExpr=f"length(datum.label) > {LONG_HEAD} ? split(datum.label, ', ') : datum.label")
    return channel(f"panel_{i}:N", sort=list(factor.heads), title=None, header=header)
