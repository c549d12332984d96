"""The outcome of every run against a knob: where training works, where it stops working, and which variant moves that edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..events import LAST_SHARE
from ..view import view
from .curves import NONE, ceiling_above, initial, mean_of_rest
from .extras import alt
from .layout import Factor, layout
from .panels import LOG_KNOB, knob_tooltips, panels, run_table, shades, unseen, y_title
from .rules import References, rules
from .span import Span, is_logarithmic, powers, span
from .theme import CATEGORIES, CROSS, FAINT, SHAPES, label, rounded, shortened, wrapped

MOST_TICKS = 10
STRIP, GAP = 0.075, 0.05
ACROSS = 70


def final(values: Any) -> np.ndarray:
    """The mean of each run's last tenth of measurements (one at least), up to its last finite one; NaN for a run that has none.

    Dimensions other than run and step are averaged first.
    """
    heights = np.asarray(mean_of_rest(values).transpose("run", "step").values, float)
    finite = np.isfinite(heights)
    last = heights.shape[1] - 1 - finite[:, ::-1].argmax(1)
    window = last[:, None] - np.arange(max(round(LAST_SHARE * heights.shape[1]), 1))
    tail = np.take_along_axis(np.where(finite, heights, np.nan), np.maximum(window, 0), 1)
    counted = np.isfinite(tail) & (window >= 0)
    with np.errstate(invalid="ignore"):
        return np.where(counted, tail, 0.0).sum(1) / np.where(counted.any(1), counted.sum(1), np.nan)


def sweep(
    record: Any,
    quantity: Any,
    *,
    title: str | None = None,
    factors: Sequence[Factor] | None = None,
    references: References = NONE,
    ceiling: float | None = None,
    rings: bool = True,
) -> Any:
    """The outcome of every run against the main knob, a point a run; lines join the medians over seeds, `rings` are round the lowest.

    `quantity` is a number a run (a DataArray over `run`), or the name of a variable whose final value is drawn. Colour is the first of
    the other knobs, or the first whose values have an order, such as the size of a net; panels are the next two. `factors` stand for
    these where they are given. Diverged runs are counted in a strip at the upper edge, and count as infinite in the medians.
    `references` are as for curves.
    """
    outcome, text = _outcome(record, quantity, title)
    plan = layout(record)
    group, *factors = factors or plan.first_ordered or [Factor("", ("",), np.zeros(record.sizes["run"], int))]
    lost = ~np.isnan(record["events"]["diverged_step"].values)
    value = np.where(lost, np.nan, rounded(outcome))
    lines, rows = rules(references, factors, len(value)), np.unique(group.codes[lost])
    axis = span(value, ceiling=ceiling).reaching(lines.values).raised(GAP if len(rows) else 0)
    roof = axis.raised(STRIP * (len(rows) + 0.3) if len(rows) else 0)
    encoding = {
        "x": _x(record, plan.main, group),
        "y": alt.Y("value:Q", title=y_title(text, factors), scale=roof.scale, axis=axis.marks),
        "color": shades(group) if group.title else alt.value(CATEGORIES[0]),
    }
    names = group.of_runs(group.names)
    table = run_table(record, factors).join(_settings(record, plan.main, value, lost))
    table = table.assign(x=record[plan.main].values if plan.main else names, value=value, colour=names, **lines.columns(axis))
    table["row"] = [axis.at(1 + STRIP * (place + 0.65)) for place in np.searchsorted(rows, group.codes)]
    layers = [_medians(encoding, plan.main), _points(record, encoding, group), *lines.layers(encoding["y"])]
    layers += [_lowest(encoding)] if plan.main and rings else []
    layers += _strip(axis, roof, encoding, crowded=table["x"].nunique() > MOST_TICKS) if len(rows) else []
    notes = [*axis.notes, *lines.notes(axis), *unseen(plan, factors)]
    about = f"{text} of {len(table)} runs against {plan.main}; {int(lost.sum())} of them diverged"
    return panels(layers, table, factors, notes=notes, description=about)


def _outcome(record: Any, quantity: Any, title: str | None) -> tuple[np.ndarray, str]:
    """The number of each run, and what its axis is called."""
    if not isinstance(quantity, str):
        return np.asarray(quantity.values, float), label(quantity, title)
    measured = record.wb[quantity]
    averaged = round(LAST_SHARE * measured.sizes["step"]) > 1
    when = f", last {LAST_SHARE:.0%} of steps" if averaged else f" at step {measured['step'].values[-1]}"
    return final(measured), label(measured, title) + ("" if title else when)


def _settings(record: Any, main: str | None, value: np.ndarray, lost: np.ndarray) -> pd.DataFrame:
    """Per run: whether it is the first of its setting (runs that differ in the seed alone), the setting's median and losses, its line.

    And whether its setting is the one with the lowest median on that line.
    """
    knobs = {name: record[name].values for name in record.wb.varied if name != "seed"}
    codes = {name: np.unique(values, return_inverse=True)[1] for name, values in knobs.items()}
    keys = pd.DataFrame(codes | {"": np.zeros(len(value), int)})
    setting = keys.groupby(list(keys)).ngroup()
    runs = pd.DataFrame({"worst": np.where(lost, np.inf, value), "lost": lost}).groupby(setting)
    lost_runs, all_runs = runs["lost"].transform("sum"), runs["lost"].transform("size")
    median, line = runs["worst"].transform("median"), keys.drop(columns=main or []).pipe(lambda rest: rest.groupby(list(rest)).ngroup())
    first = ~setting.duplicated()
    return pd.DataFrame(
        {
            "first": first,
            "median": median,
            "line": line,
            "lowest": first & (median == median.groupby(line).transform("min")) & np.isfinite(median),
            "lost": [f"{n}/{of}" if n else None for n, of in zip(lost_runs, all_runs, strict=True)],
        }
    )


def _x(record: Any, main: str | None, group: Factor) -> Any:
    if not main:
        across = sum(map(len, group.names)) < ACROSS
        return alt.X("x:N", title=shortened(group.title) or None, sort=list(group.names), axis=alt.Axis(labelAngle=0 if across else -30))
    values = np.unique(record[main].values)
    text = str(record[main].attrs.get("long_name", ""))
    title = label(record[main], f"{main}: {text}" if text and text != main else main)
    ends = span(values, logarithmic=values.min() > 0 and is_logarithmic(values, LOG_KNOB))
    ticks = {"values": values.tolist()} if len(values) <= MOST_TICKS else {"tickCount": 6}
    written = {"format": powers(values)} if ends.logarithmic else {}
    return alt.X("x:Q", title=wrapped(title, 60), scale=ends.scale, axis=alt.Axis(grid=False, **ticks, **written))


def _points(record: Any, encoding: Mapping[str, Any], group: Factor) -> Any:
    shapes = alt.Scale(domain=list(group.names), range=[SHAPES[i % len(SHAPES)] for i in range(len(group.names))])
    tooltip = [*knob_tooltips(record), alt.Tooltip("value:Q", title="value", format=".4~g")]
    points = alt.Chart().transform_filter("datum.value !== null").mark_point(filled=True, size=36, opacity=0.45)
    # Of an ordered factor the type and the order must be those of the colour, or the two legends would not be one.
    field = {"field": "colour", "type": "ordinal", "sort": list(group.names)} if group.ordered else {"field": "colour", "type": "nominal"}
    shape = {"shape": alt.Shape(**field, title=shortened(group.title), scale=shapes)} if len(group.names) > 1 else {}
    return points.encode(**encoding, **shape, tooltip=tooltip)


def _lowest(encoding: Mapping[str, Any]) -> Any:
    """A ring round the lowest median of each line."""
    lowest = alt.Chart().transform_filter("datum.lowest").transform_calculate(value="datum.median")
    tooltip = [alt.Tooltip("x:Q", title="lowest at", format=".4~g"), alt.Tooltip("value:Q", title="median", format=".4~g")]
    return lowest.mark_point(size=150, strokeWidth=1.8, opacity=1, filled=False).encode(**encoding, tooltip=tooltip)


def _medians(encoding: Mapping[str, Any], main: str | None) -> Any:
    settings = alt.Chart().transform_filter("datum.first").transform_calculate(value="datum.median")
    if main:
        return settings.mark_line(strokeWidth=2.2).encode(**encoding, detail="line:N")
    return settings.mark_tick(thickness=2.5, size=26).encode(**encoding)


def _strip(axis: Span, roof: Span, encoding: Mapping[str, Any], *, crowded: bool) -> list[Any]:
    """The upper edge: a cross for each setting with diverged runs, and how many of how many."""
    place = {"x": encoding["x"], "y": encoding["y"]}
    edge = alt.Chart(alt.Data(values=[{"value": axis.high, "roof": roof.high, "text": "diverged"}])).encode(y=place["y"])
    band = edge.mark_rect(color=FAINT, opacity=0.1).encode(y2="roof:Q")
    words = edge.mark_text(align="left", baseline="bottom", dx=3, dy=-3, fontSize=11, color=FAINT).encode(x=alt.value(0), text="text:N")
    lost = alt.Chart().transform_filter("datum.first && datum.lost !== null").transform_calculate(value="datum.row")
    cross = lost.mark_point(shape=CROSS, filled=True, size=80, opacity=1)
    cross = cross.encode(**place, color=encoding["color"], tooltip=alt.Tooltip("lost:N", title="diverged"))
    counts = lost.mark_text(align="left", dx=7, fontSize=11).encode(**place, text="lost:N")
    return [band, words, cross] if crowded else [band, words, cross, counts]


@view("train_loss")
def final_loss_against_lr(record: Any) -> Any:
    """Final training loss of every run against the learning rate, with the median over seeds; diverged runs at the upper edge."""
    start = initial(record.wb["train_loss"])
    return sweep(record, "train_loss", references={"loss at initialization": start}, ceiling=ceiling_above(start))
