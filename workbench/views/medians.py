"""Several variables of a kind against step, such as accuracies in training and test: a panel for each group of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .extras import alt
from .layout import Factor
from .panels import panels, y_title
from .span import Span, span
from .theme import CATEGORIES, INK, number, rounded

POINTS = 150
LEFT = 0.6  # of the steps, from which on words stand to the left of their mark


class Mark(NamedTuple):
    """A point to compare with: in which panel, of which variable, where, and what it says."""

    panel: str
    name: str
    step: int
    value: float
    text: str


def medians(
    record: Any,
    variables: Mapping[str, str],
    panel: Factor,
    *,
    title: str,
    domain: tuple[float, float] | None = None,
    logarithmic: bool = False,
    until: int | None = None,
    marks: Sequence[Mark] = (),
) -> Any:
    """For each variable (name to variable over run and step) the median over the runs of a group, and a band from lowest to highest.

    A colour for each variable. `domain` are the ends of the vertical axis, by default those of what is drawn; `until` is the last step.
    Diverged runs count with what they had before.
    """
    values = {name: record.wb[variable].sel(step=slice(None, until)) for name, variable in variables.items()}
    measured = [row for name, each in values.items() for row in _rows(each, name, panel, logarithmic)]
    heights = [row[key] for row in measured for key in ("low", "high")] + [mark.value for mark in marks]
    axis = Span(*domain, logarithmic) if domain else span(np.array(heights), logarithmic=logarithmic)
    highest = max((mark.value for mark in marks), default=0.0)
    shown = [
        {"panel_0": m.panel, "name": m.name, "step": m.step, "mark": m.value, "text": m.text, "top": m.value == highest} for m in marks
    ]
    strokes = alt.Legend(symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.5) if len(variables) > 1 else None
    colours = alt.Scale(domain=list(variables), range=list(CATEGORIES[: len(variables)]))
    encoding = {
        "x": alt.X("step:Q", title="step", axis=alt.Axis(tickCount=5, format=",d", grid=False), scale=alt.Scale(nice=False)),
        "color": alt.Color("name:N", title=None, scale=colours, legend=strokes),
    }
    y = {"title": y_title(title, [panel]), "scale": axis.scale, "axis": axis.marks}
    lines = alt.Chart().transform_filter("isValid(datum.middle)")
    band = lines.mark_area(opacity=0.2, clip=True).encode(**encoding, y=alt.Y("low:Q", **y), y2="high:Q")
    tooltip = [alt.Tooltip("name:N", title="of"), alt.Tooltip("step:Q"), alt.Tooltip("words:N", title="median (lowest to highest)")]
    line = lines.mark_line(strokeWidth=1.8, clip=True).encode(**encoding, y=alt.Y("middle:Q", **y), tooltip=tooltip)
    last = max((row["step"] for row in measured), default=1)
    layers = [band, line, *(_marked(encoding, y, last) if marks else [])]
    return panels(layers, pd.DataFrame([*measured, *shown]), [panel], description=f"{title} against step: {', '.join(variables)}")


def _rows(values: Any, name: str, panel: Factor, logarithmic: bool) -> list[dict[str, Any]]:
    """Low, middle and high of each group at some of the steps, where a run of the group has a value."""
    steps = values["step"].values
    kept = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).astype(int))
    found = values.transpose("run", "step").values[:, kept].astype(float)
    found = np.where(np.isfinite(found) & (found > 0 if logarithmic else True), found, np.nan)
    rows = []
    for code, head in enumerate(panel.heads):
        here = found[panel.codes == code]
        there = np.isfinite(here).any(0)
        courses = (rounded(function(here[:, there], axis=0)) for function in (np.nanmin, np.nanmedian, np.nanmax))
        rows += [
            {"panel_0": head, "name": name, "step": int(step), "low": low, "middle": middle, "high": high}
            | {"words": f"{number(middle)} ({number(low)} to {number(high)})"}
            for step, low, middle, high in zip(steps[kept][there], *courses, strict=True)
        ]
    return rows


def _marked(encoding: Mapping[str, Any], y: Mapping[str, Any], last: int) -> list[Any]:
    """Diamonds with words beside them, above the highest and below the others."""
    mark = alt.Chart().transform_filter("isValid(datum.mark)")
    tooltip = [alt.Tooltip("text:N", title="published"), alt.Tooltip("step:Q"), alt.Tooltip("mark:Q", title="value")]
    place = {"x": encoding["x"], "y": alt.Y("mark:Q", **y)}
    align, dx = (alt.ExprRef(f"datum.step > {LEFT * last} ? {ends}") for ends in ("'right' : 'left'", "-9 : 9"))
    words = mark.mark_text(align=align, dx=dx, dy=alt.ExprRef("datum.top ? -10 : 12"), fontSize=11)
    points = mark.mark_point(shape="diamond", size=110, opacity=1, filled=True, stroke=INK, strokeWidth=1.2)
    return [points.encode(**place, color=encoding["color"], tooltip=tooltip), words.encode(**place, text="text:N")]
