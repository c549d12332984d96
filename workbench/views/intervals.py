"""Means with their 95 % intervals over seeds against a quantity such as size, and laws fitted to a part of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..claim import interval
from .extras import alt
from .layout import Factor
from .panels import inline, shades
from .span import Span, is_logarithmic, span
from .theme import label, number, rounded, wrapped

WIDTH, HEIGHT = 420, 280
THOUSAND = 1000  # from which numbers are written with k and M
APART = 0.012  # of the axis, so that bars of groups do not lie on one another


def intervals(
    groups: Mapping[str, Any],
    *,
    title: str,
    colour: str,
    in_order: bool = False,
    fits: Mapping[str, Any] | None = None,
    logarithmic: bool | None = None,
) -> Any:
    """For each group (a DataArray over one dimension and `seed`) a line through the means over seeds, and at each the 95 % interval.

    Where the vertical axis is logarithmic, mean and interval are those of the logarithms. `fits` are dashed lines: DataArrays over the
    same dimension, by the group they belong to. `colour` says what the groups are, `in_order` that they have an order.
    """
    fits, first = fits or {}, next(iter(groups.values()))
    (over,) = [dim for dim in first.dims if dim != "seed"]
    every = np.concatenate([np.ravel(values) for values in (*groups.values(), *fits.values())])
    up = span(every, logarithmic=is_logarithmic(every) if logarithmic is None else logarithmic).padded(0.1)
    across = span(first[over].values, logarithmic=True).padded(0.05)
    table = pd.DataFrame([row for name, values in groups.items() for row in _rows(name, values, over, up.logarithmic)])
    table["place"] = _apart(table, across, list(groups))
    encoding = {
        "x": _x(first[over], across),
        "color": shades(Factor(colour, tuple(groups), np.arange(len(groups)), in_order)),
    }
    y = {"title": wrapped(title, 40), "scale": up.scale, "axis": up.marks}
    layers = [*_means(table, encoding, y), *_laws(fits, over, encoding, y)]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, description=f"{title} against {over}, {len(groups)} groups")


def _rows(name: str, values: Any, over: str, logarithmic: bool) -> Iterator[dict[str, Any]]:
    for x, seeds in zip(values[over].values.tolist(), values.transpose(over, "seed").values, strict=True):
        found = np.array(interval(np.log10(seeds) if logarithmic else seeds))
        mean, low, high = rounded(10.0**found if logarithmic else found)
        words = f"{number(mean)} [{number(low)}, {number(high)}], n = {len(seeds)}"
        yield {"colour": name, "x": x, "mean": mean, "low": low, "high": high, "words": words}


def _apart(table: pd.DataFrame, across: Span, names: list[str]) -> list[float]:
    """Where each bar stands: a little left or right of its x."""
    away = [APART * (names.index(name) - (len(names) - 1) / 2) for name in table["colour"]]
    return [across.at(across.share(x) + shift) for x, shift in zip(table["x"], away, strict=True)]


def _x(quantity: Any, across: Span) -> Any:
    title = label(quantity, quantity.attrs.get("long_name", quantity.name))
    written = ".2~s" if quantity.values.max() >= THOUSAND else "~g"
    ticks = alt.Axis(values=np.unique(quantity.values).tolist(), format=written, grid=False, labelOverlap=True)
    return alt.X("place:Q", title=wrapped(title, 60), scale=across.scale, axis=ticks)


def _means(table: pd.DataFrame, encoding: Mapping[str, Any], y: Mapping[str, Any]) -> list[Any]:
    base = alt.Chart(inline(table)).encode(**encoding)
    tooltip = [alt.Tooltip("colour:N", title="of"), alt.Tooltip("x:Q", title="at", format=",.4~g"), alt.Tooltip("words:N", title="mean")]
    bars = base.mark_rule(strokeWidth=2, opacity=0.75, clip=True).encode(y=alt.Y("low:Q", **y), y2="high:Q", tooltip=tooltip)
    points = base.mark_point(filled=True, size=60, opacity=1).encode(y=alt.Y("mean:Q", **y), tooltip=tooltip)
    return [base.mark_line(strokeWidth=1.8).encode(y=alt.Y("mean:Q", **y)), bars, points]


def _laws(fits: Mapping[str, Any], over: str, encoding: Mapping[str, Any], y: Mapping[str, Any]) -> list[Any]:
    """Dashed lines, with a ring at the largest x: what each law says there."""
    if not fits:
        return []
    said = [(name, x, value) for name, law in fits.items() for x, value in zip(law[over].values.tolist(), rounded(law.values), strict=True)]
    fitted = pd.DataFrame(said, columns=["colour", "place", "value"])
    fitted["last"] = fitted["place"] == fitted["place"].max()
    base = alt.Chart(inline(fitted)).encode(**encoding, y=alt.Y("value:Q", **y))
    tooltip = [alt.Tooltip("colour:N", title="law of"), alt.Tooltip("value:Q", title="says", format=",.4~g")]
    ring = base.transform_filter("datum.last").mark_point(size=90, strokeWidth=1.8, opacity=1, filled=False).encode(tooltip=tooltip)
    return [base.mark_line(strokeDash=[5, 4], strokeWidth=1.5).encode(), ring]
