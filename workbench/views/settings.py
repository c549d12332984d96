"""Charts of settings, that is of runs that differ in the seed alone: outcomes on a map, lines in panels, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .extras import alt
from .layout import Factor
from .panels import inline, panels
from .theme import CATEGORIES, FAINT, INK, rounded, shortened, word, wrapped

CELL_WIDTH, CELL_HEIGHT = 84, 34
PALE = 0.55
BINS = 25
DASHES = ([1, 0], [5, 3])


def settings(record: Any, besides: Sequence[str] = (), always: Sequence[str] = ()) -> Factor:
    """The runs by what they were set to, apart from the seed and the knobs in `besides`.

    A setting is named by its knobs in `always`, and by those that differ from their commonest value.
    """
    varied = [name for name in record.wb.varied if name not in ("seed", *besides)]
    order = [*always, *sorted(varied)]
    knobs = sorted(varied, key=order.index)
    if not knobs:
        return Factor("setting", ("all runs",), np.zeros(record.sizes["run"], int), heads=("all runs",))
    table = pd.DataFrame({name: record[name].values for name in knobs})
    usual = table.mode().iloc[0]
    unusual = [name for name in knobs if name not in always]
    found = table.drop_duplicates().sort_values(knobs)
    found = found.loc[(found[unusual] != usual[unusual]).sum(axis=1).sort_values(kind="stable").index]
    names = tuple(
        ", ".join(_said(name, value) for name, value in row.items() if name in always or value != usual[name]) or "otherwise"
        for row in found.to_dict("records")
    )
    place = {row: i for i, row in enumerate(found.itertuples(index=False, name=None))}
    return Factor("setting", names, np.array([place[row] for row in table.itertuples(index=False, name=None)]), heads=names)


def outcome_map(
    across: Any, down: Factor, outcome: np.ndarray, words: np.ndarray, colours: Mapping[str, str], *, x: str, title: str, subtitle: str
) -> Any:
    """A cell for each value of `across` (a DataArray over run, called `x`) and setting, in the colour of its commonest outcome.

    `outcome` and `words` have one entry a run; the words of a cell are those of the first run that had its outcome.
    """
    runs = pd.DataFrame({"across": list(map(word, across.values)), "down": down.of_runs(down.names), "outcome": outcome, "words": words})
    table = pd.DataFrame([_cell(*place, runs) for place, runs in runs.groupby(["across", "down"], sort=False)])
    seen = [name for name in colours if (table["outcome"] == name).any()]
    order = [word(value) for value in np.unique(across.values)]
    place = {
        "x": alt.X("across:O", sort=order, title=x, axis=alt.Axis(labelAngle=0)),
        "y": alt.Y("down:N", sort=list(down.names), title=None),
    }
    legend = alt.Legend(symbolType="square", symbolSize=160, symbolOpacity=PALE)
    colour = alt.Color("outcome:N", title=None, scale=alt.Scale(domain=seen, range=[colours[name] for name in seen]), legend=legend)
    heads = {"down": "setting", "across": x, "outcome": "outcome", "agree": "seen in", "words": "numbers"}
    tooltip = [alt.Tooltip(f"{name}:N", title=head) for name, head in heads.items()]
    base = alt.Chart(inline(table)).encode(**place)
    cells = base.mark_rect(stroke="white", strokeWidth=2, opacity=PALE).encode(color=colour, tooltip=tooltip)
    size = {"width": CELL_WIDTH * len(order), "height": CELL_HEIGHT * len(down.names)}
    head = alt.Title(title, subtitle=wrapped(subtitle, 90), subtitleColor=FAINT)
    chart = alt.layer(cells, base.mark_text(fontSize=11, color=INK).encode(text="words:N"))
    return chart.properties(**size, title=head, description=f"{title}: {', '.join(seen)}")


def _cell(across: str, down: str, runs: pd.DataFrame) -> dict[str, str]:
    commonest = runs["outcome"].mode()[0]
    agree = f"{(runs['outcome'] == commonest).sum()} of {len(runs)} runs"
    return {
        "across": across,
        "down": down,
        "outcome": commonest,
        "agree": agree,
        "words": runs.loc[runs["outcome"] == commonest, "words"].iloc[0],
    }


def lines(table: pd.DataFrame, panel: Factor, *, x: str, y: str, names: Sequence[str], styles: Sequence[str]) -> Any:
    """Lines of shares against `x`, a colour for each name and a dash for each style, a panel for each setting.

    `table` has a row for each point: panel_0 (a head of `panel`), name, style, x, value, and low and high, between which a band is drawn.
    """
    shown = table.assign(**{column: rounded(table[column].to_numpy()) for column in ("value", "low", "high")})
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1)
    colours = alt.Scale(domain=list(names), range=list(CATEGORIES[: len(names)]))
    heights = {"title": y, "scale": alt.Scale(domain=[0, 1])}
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=x, axis=alt.Axis(grid=False, tickCount=5), scale=alt.Scale(nice=False)),
        color=alt.Color("name:N", title=None, scale=colours, legend=legend),
        detail="style:N",
    )
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", **heights), y2="high:Q")
    tooltip = [alt.Tooltip("name:N", title="of"), alt.Tooltip("x:Q", title=x), alt.Tooltip("value:Q", title="mean", format=".3f")]
    dash = alt.StrokeDash("style:N", title=None, scale=alt.Scale(domain=list(styles), range=list(DASHES[: len(styles)])))
    line = base.mark_line(strokeWidth=2).encode(y=alt.Y("value:Q", **heights), strokeDash=dash, tooltip=tooltip)
    return panels([band, line], shown, [panel], description=f"{y} against {x}: {', '.join(names)}")


def spread(table: pd.DataFrame, panel: Factor, *, x: str, y: str, domain: tuple[float, float]) -> Any:
    """Histograms of numbers over `domain`, one for each setting. `table` has a row a number: panel_0 (a head of `panel`) and value."""
    edges = np.linspace(*domain, BINS + 1)
    rows = [
        {"panel_0": head, "x": start, "x2": stop, "value": share}
        for head, numbers in table.groupby("panel_0", sort=False)["value"]
        for start, stop, share in zip(edges[:-1], edges[1:], rounded(np.histogram(numbers, edges)[0] / len(numbers)), strict=True)
    ]
    bars = alt.Chart().mark_rect(color=CATEGORIES[0], opacity=0.8)
    bars = bars.encode(
        x=alt.X("x:Q", title=x, axis=alt.Axis(grid=False, tickCount=5), scale=alt.Scale(domain=list(domain))),
        x2="x2:Q",
        y=alt.Y("value:Q", title=y, axis=alt.Axis(format="%", tickCount=4)),
        y2=alt.datum(0),
        tooltip=[alt.Tooltip("x:Q", title="from"), alt.Tooltip("value:Q", title="share", format=".1%")],
    )
    return panels([bars], pd.DataFrame(rows), [panel], description=f"{y} against {x}")


def _said(knob: str, value: Any) -> str:
    words = shortened(knob.replace("_", " "))
    if isinstance(value, (bool, np.bool_)):
        return words if value else f"no {words}"
    return f"{words} {word(value)}"
