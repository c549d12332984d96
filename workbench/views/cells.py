"""Maps of a number over two settings: a cell for each pair, in the colour of its mean over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..claim import interval
from .extras import alt
from .layout import Factor
from .panels import GRADIENT, categories, inline, panel_factors
from .theme import FAINT, INK, label, number, rounded, word, wrapped

CELL_WIDTH, CELL_HEIGHT, COLUMNS = 62, 24, 2
LINE, ROW, ACROSS = 10, 18, 420
LOST, NOTE = "#F4C9AE", "3/4: that many of the runs diverged"
DARK = 0.55  # of the range of colours, below which words are white


def cell_map(record: Any, quantity: Any, down: Factor, across: str, *, title: str = "", factors: Sequence[Factor] = ()) -> Any:
    """The mean of `quantity` (a number a run) for each group of `down` and value of the knob `across`; a panel for each group of a factor.

    Of diverged runs it is written how many of how many there are, and they do not count in the mean, nor do runs without a value; a cell
    where all diverged has a colour of its own.
    """
    shown, name = panel_factors(factors)[:1], label(quantity, title or None)
    table = _table(record, quantity, down, across, shown)
    layers = _layers(table, down, across, name)
    charts = [_panel(layers, part, head) for head, part in _parts(table, shown)]
    note = {"title": alt.Title(NOTE, fontSize=12, fontWeight="normal", color=FAINT)} if table["count"].any() else {}
    return alt.concat(*charts, columns=COLUMNS).properties(description=f"{name} by {down.title} and {across}", **note)


def _table(record: Any, quantity: Any, down: Factor, across: str, shown: Sequence[Factor]) -> pd.DataFrame:
    runs = pd.DataFrame({"down": down.of_runs(down.names), "across": record[across].values, "value": np.asarray(quantity.values, float)})
    runs["lost"] = record["events"]["diverged_step"].notnull().values
    runs["panel_0"] = shown[0].of_runs(shown[0].heads) if shown else ""
    groups = runs.sort_values("across", kind="stable").groupby(["panel_0", "down", "across"], sort=False)
    return pd.DataFrame([_cell(*place, cell) for place, cell in groups])


def _layers(table: pd.DataFrame, down: Factor, across: str, name: str) -> list[Any]:
    """Cells with a mean, cells where all diverged, and the words in them."""
    base = alt.Chart().encode(
        x=alt.X("across:N", sort=list(table["across"].unique()), title=across, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("down:N", sort=list(down.names), title=None),
    )
    finite = table["value"].dropna()
    least, most = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    colour = alt.Color("value:Q", title=wrapped(name, 24), scale=alt.Scale(scheme=GRADIENT, domain=[least, most]))
    said = {"down": "of", "across": across, "mean": "mean", "of": "mean of runs", "lost": "diverged"}
    tooltip = [alt.Tooltip(f"{field}:N", title=head) for field, head in said.items()]
    cells = base.transform_filter("datum.value !== null").mark_rect(stroke="white").encode(color=colour, tooltip=tooltip)
    lost = base.transform_filter("datum.value === null && datum.count > 0").mark_rect(stroke="white", color=LOST).encode(tooltip=tooltip)
    is_dark = f"datum.value !== null && datum.value < {least + DARK * (most - least)}"
    words = base.mark_text(fontSize=10.5).encode(text="words:N", color=alt.condition(is_dark, alt.value("white"), alt.value(INK)))
    return [cells, lost, words]


def _parts(table: pd.DataFrame, shown: Sequence[Factor]) -> list[tuple[str, pd.DataFrame]]:
    heads = shown[0].heads if shown else ("",)
    return [(head, table[table["panel_0"] == head]) for head in heads]


def _panel(layers: Sequence[Any], table: pd.DataFrame, head: str) -> Any:
    size = {"width": CELL_WIDTH * table["across"].nunique(), "height": CELL_HEIGHT * table["down"].nunique()}
    return alt.layer(*layers, data=inline(table)).properties(**size, **({"title": head} if head else {}))


def _cell(panel: str, down: str, across: Any, runs: pd.DataFrame) -> dict[str, Any]:
    kept, count = runs.loc[~runs["lost"], "value"].dropna(), int(runs["lost"].sum())
    value = float(rounded(kept.mean())) if len(kept) else np.nan
    mean, lost = f"{value:#.3g}" if len(kept) else "", f"{count}/{len(runs)}"
    words = f"{mean} ({lost})" if mean and count else lost if count else mean
    place = {"panel_0": panel, "down": down, "across": word(across)}
    return place | {"value": value, "count": count, "mean": mean, "of": len(kept), "lost": lost, "words": words}


def group_intervals(groups: Mapping[str, Mapping[str, np.ndarray]], order: Sequence[str], *, title: str, colour: str) -> Any:
    """Means over seeds with their 95 % intervals: a row for each name in `order`, in it a mark for each of the groups that has the name.

    Where no mean is negative the axis begins at 0.
    """
    rows = [_interval(group, name, seeds) for group, found in groups.items() for name, seeds in found.items()]
    table = pd.DataFrame(rows, columns=["colour", "down", "mean", "low", "high", "words"])
    names = [name for name in order if (table["down"] == name).any()]
    base = alt.Chart(inline(table)).encode(
        y=alt.Y("down:N", sort=names, title=None, scale=alt.Scale(paddingInner=0.3)),
        yOffset=alt.YOffset("colour:N", sort=list(groups)),
        color=categories(Factor(colour, tuple(groups), np.zeros(0, int))),
        tooltip=[alt.Tooltip("down:N", title="of"), alt.Tooltip("colour:N", title=colour), alt.Tooltip("words:N", title="mean")],
    )
    scale = alt.Scale(clamp=True, domainMin=0) if (table["mean"] >= 0).all() else alt.Scale()
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    points = base.mark_point(filled=True, size=50, opacity=1).encode(x=alt.X("mean:Q", title=title))
    height = max(1, len(names)) * max(ROW, LINE * len(groups))
    return alt.layer(bars, points).properties(width=ACROSS, height=height, description=f"{title}, by {colour}")


def _interval(group: str, name: str, seeds: np.ndarray) -> dict[str, Any]:
    mean, low, high = rounded(interval(seeds))
    words = f"{number(mean)} [{number(low)}, {number(high)}], n = {len(seeds)}"
    return {"colour": group, "down": name, "mean": mean, "low": low, "high": high, "words": words}
