"""Curves over steps: a thin line per run, spikes kept, divergence marked where it happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..view import view
from .extras import alt
from .layout import Factor, described, layout
from .panels import panels
from .theme import is_logarithmic, label, number, rounded, word, wrapped

POINTS = 12_000
MOST, LEAST = 400, 10
LOG_RATIO = 30
HEADROOM = 100


def decimate(values: np.ndarray, points: int) -> np.ndarray:
    """Indices, ascending along the last axis, of at most `points` + 2 values of each curve; shape (..., kept).

    The steps are cut into buckets and the minimum and the maximum of each are kept, so that no spike is lost; so are the first
    and the last value. Non-finite values count only in buckets that hold nothing else.
    """
    steps, buckets = values.shape[-1], max(points // 2, 1)
    if steps <= 2 * buckets:
        return np.broadcast_to(np.arange(steps), values.shape)
    place = np.minimum(np.arange(buckets)[:, None] * steps // buckets + np.arange(-(-steps // buckets)), steps - 1)
    inside = place < (np.arange(1, buckets + 1) * steps // buckets)[:, None]
    bucket = np.where(inside & np.isfinite(values[..., place]), values[..., place], np.nan)
    lowest = np.where(np.isnan(bucket), np.inf, bucket).argmin(-1)
    highest = np.where(np.isnan(bucket), -np.inf, bucket).argmax(-1)
    kept = [place[np.arange(buckets), found] for found in (lowest, highest)]
    ends = np.broadcast_to([0, steps - 1], (*values.shape[:-1], 2))
    return np.sort(np.concatenate([*kept, ends], -1), -1)


def curves(
    record: Any,
    variable: str,
    *,
    reduce: Callable[[Any], Any] | None = None,
    title: str | None = None,
    references: Mapping[str, float] | None = None,
    logarithmic: bool | None = None,
) -> alt.TopLevelMixin:
    """Lines of `variable` against step, one a run: colour is the main knob, panels are the other ones.

    `reduce` takes the variable to dims (run, step), by default the mean over what else it has; `title` then names the result.
    `references` are horizontal rules, by label. The axis is logarithmic where the values span 30-fold, unless said.
    """
    measured = record.wb[variable]
    values = (reduce or _mean)(measured)
    if set(values.dims) != {"run", "step"}:
        raise InputError(f"reduce leaves {variable!r} with dimensions {', '.join(map(str, values.dims))}; it must leave run and step.")
    values = values.transpose("run", "step")
    table = np.asarray(values.values, float)
    references = {k: float(v) for k, v in (references or {}).items() if math.isfinite(v)}
    log = is_logarithmic(table, LOG_RATIO) if logarithmic is None else logarithmic
    low, high, cut = _domain(table, [*references.values()], log)
    plan = layout(record)
    colour, factors = _colour(record, plan)
    rows = _rows(record, values["step"].values, table, colour, (low, high))
    y = alt.Y("value:Q", title=wrapped(label(measured, title)), scale=_scale(low, high, log), axis=alt.Axis(tickCount=6, format="~g"))
    notes = [f"values above {number(high)} are drawn at the upper edge"] if cut else []
    layers = _layers(rows, y, colour, values["step"].values)
    layers += [_reference(name, at, low, high) for name, at in references.items()]
    return panels(layers, rows, factors, notes=notes, description=f"{label(measured, title)} against step, {len(rows)} runs")


def _mean(values: Any) -> Any:
    return values.mean([dim for dim in values.dims if dim not in ("run", "step")])


def _domain(table: np.ndarray, references: list[float], log: bool) -> tuple[float, float, bool]:
    """The ends of the axis, and whether values lie beyond: a divergence does not squeeze everything else out of sight."""
    finite = np.append(table[np.isfinite(table)], references)
    if not finite.size:
        return 0.0, 1.0, False
    start = np.nanmedian(np.where(np.isfinite(table), table, np.nan)[:, 0]) if np.isfinite(table[:, 0]).any() else np.inf
    limit = HEADROOM * start if start > 0 else np.inf
    cut = bool(finite.max() > limit)
    high = limit if cut else finite.max()
    if log:
        low = finite[finite > 0].min()
        return low / 1.1, high * 1.1, cut
    low = min(finite.min(), 0.0) if finite.min() < 0.5 * high else finite.min()
    margin = 0.04 * (high - low) or 0.5
    return low - margin * (low != 0), high + margin, cut
