"""Curves over steps: a thin line per run, spikes kept, divergence marked where it happened."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..view import view
from .extras import alt
from .layout import Factor, layout
from .panels import hue, knob_tooltips, panels, run_table, unseen, y_title
from .rules import References, rules
from .span import Span, span
from .theme import CROSS, label, number, rounded, shortened

POINTS = 9_000
MOST, LEAST = 400, 10
HEADROOM = 10
NONE: References = {}


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
    factors: Sequence[Factor] | None = None,
    references: References = NONE,
    ceiling: float | None = None,
    logarithmic: bool | None = None,
) -> Any:
    """Lines of `variable` against step, one a run: colour is the main knob, panels are the other ones, or `factors` if given.

    `reduce` takes the variable to dims (run, step), by default the mean over what else it has; `title` then names the result.
    `references` are horizontal rules by label: a number, or one a run, of which each panel shows the median (NaN: none). What lies
    above `ceiling` is drawn at the upper edge. The axis is logarithmic where the values span 10-fold and none is negative, unless
    said. Raises InputError if `reduce` leaves other dimensions.
    """
    measured = record.wb[variable]
    values = (reduce or mean_of_rest)(measured)
    if set(values.dims) != {"run", "step"}:
        raise InputError(f"reduce leaves {variable!r} with dimensions {', '.join(map(str, values.dims))}; it must leave run and step.")
    heights, steps = np.asarray(values.transpose("run", "step").values, float), values["step"].values
    plan = layout(record)
    group, colour, others = hue(record, plan)
    factors = others if factors is None else factors
    lines = rules(references, factors, len(heights))
    axis = span(heights, lines.values, ceiling=ceiling, logarithmic=logarithmic)
    table = run_table(record, factors).assign(colour=group.of_runs(group.names), **lines.columns(axis))
    table = table.assign(**_lines(heights, steps), **_ends(record, heights, axis))
    encoding = _encoding(axis, steps, y_title(label(measured, title), factors), colour)
    layers = [_line(record, variable, encoding, pick=len(group.names) > 1)]
    layers += [_end(record, encoding)] if table["ended"].notna().any() else []
    notes = [*axis.notes, *lines.notes(axis), *unseen(plan, factors)]
    about = f"{label(measured, title)} against step, {len(table)} runs"
    return panels([*layers, *lines.layers(encoding["y"])], table, factors, notes=notes, description=about)


def initial(values: Any) -> np.ndarray:
    """The first measurement of each run."""
    return np.asarray(mean_of_rest(values).isel(step=0).values, float)


def ceiling_above(start: np.ndarray) -> float:
    """Ten times the highest of these numbers, above which a loss has blown up; NaN if none is finite."""
    return HEADROOM * float(np.max(start[np.isfinite(start)], initial=0.0)) or math.nan


def mean_of_rest(values: Any) -> Any:
    """The mean over all dimensions but run and step."""
    return values.mean([dim for dim in values.dims if dim not in ("run", "step")])


def _lines(heights: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    """Per run the decimated curve, as a list of steps and one of heights, and its course in words."""
    kept = decimate(heights, int(np.clip(POINTS // max(len(heights), 1), LEAST, MOST)))
    fresh = np.diff(kept, axis=-1, prepend=-1) > 0
    drawn = rounded(np.take_along_axis(heights, kept, -1))
    drawn = np.where(np.isfinite(drawn), drawn, None)
    ends = zip(heights[:, 0], _last(heights), _least(heights), -_least(-heights), strict=True)
    return {
        "step": [row[keep].tolist() for row, keep in zip(steps[kept], fresh, strict=True)],
        "value": [row[keep].tolist() for row, keep in zip(drawn, fresh, strict=True)],
        "course": ["{} → {} (between {} and {})".format(*map(number, four)) for four in ends],
    }


def _last(heights: np.ndarray) -> np.ndarray:
    """The last finite value of each row; NaN if it has none."""
    finite = np.isfinite(heights)
    place = heights.shape[1] - 1 - finite[:, ::-1].argmax(1)
    return np.where(finite.any(1), np.take_along_axis(heights, place[:, None], 1)[:, 0], np.nan)


def _least(heights: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(heights), heights, np.inf).min(1)


def _ends(record: Any, heights: np.ndarray, axis: Span) -> dict[str, Any]:
    """The step at which each run diverged (NaN: it did not), and its last height before."""
    ended, last = record["events"]["diverged_step"].values, _last(heights)
    return {"ended": ended, "ended_at": np.where(np.isnan(ended), np.nan, np.where(np.isnan(last), axis.high, last))}


def _encoding(axis: Span, steps: np.ndarray, title: list[str], colour: Any) -> dict[str, Any]:
    ends = [int(steps[0]), int(max(steps[-1], steps[0] + 1))]
    return {
        "x": alt.X("step:Q", title="step", scale=alt.Scale(domain=ends, nice=False), axis=alt.Axis(tickCount=5, format="~s", grid=False)),
        "y": alt.Y("value:Q", title=title, scale=axis.scale, axis=axis.marks),
        "color": colour,
    }


def _line(record: Any, variable: str, encoding: Mapping[str, Any], *, pick: bool) -> Any:
    tooltip = [*knob_tooltips(record), alt.Tooltip("course:N", title=shortened(variable))]
    line = alt.Chart().transform_flatten(["step", "value"]).mark_line(clip=True)
    if not pick:
        return line.encode(**encoding, detail="run:N", tooltip=tooltip)
    # A name of its own, as charts of several variables may stand side by side.
    picked = alt.selection_point(name="picked_" + re.sub(r"\W", "_", variable), fields=["colour"], bind="legend")
    opacity = alt.when(picked).then(alt.value(0.85)).otherwise(alt.value(0.06))
    return line.encode(**encoding, detail="run:N", tooltip=tooltip, opacity=opacity).add_params(picked)


def _end(record: Any, encoding: Mapping[str, Any]) -> Any:
    """A cross where a run diverged."""
    ends = alt.Chart().transform_filter("datum.ended !== null")
    ends = ends.transform_calculate(step="datum.ended", value="datum.ended_at", mark="'diverged'")
    shape = alt.Shape("mark:N", title="", scale=alt.Scale(domain=["diverged"], range=[CROSS]))
    tooltip = [*knob_tooltips(record), alt.Tooltip("step:Q", title="diverged at step")]
    cross = ends.mark_point(filled=True, size=110, opacity=1, stroke="white", strokeWidth=0.7)
    return cross.encode(**encoding, shape=shape, tooltip=tooltip)


@view("train_loss")
def loss_curves(record: Any) -> Any:
    """Training loss of every run against step; a cross marks where a run diverged."""
    return curves(record, "train_loss", ceiling=ceiling_above(initial(record.wb["train_loss"])))


def entropy(record: Any, *, threshold: Any = None, uniform: Any = None) -> Any:
    """Lines of the smallest layer's attention entropy (mean over heads), with rules at a collapse threshold and at uniform entropy.

    Either is a number in nat, or one a run.
    """
    heights = {"collapse": threshold, "uniform attention": uniform}
    return curves(
        record,
        "attention_entropy",
        reduce=lambda entropies: entropies.mean("head").min("layer"),
        title="attention entropy, smallest layer",
        references={text: at for text, at in heights.items() if at is not None},
        logarithmic=False,
    )


def uniform_entropy(keys: int, *, causal: bool) -> float:
    """Entropy in nat of attention that is uniform over `keys` keys: log T, or its mean log(T!) / T over the rows of a causal mask."""
    return math.lgamma(keys + 1) / keys if causal else math.log(keys)


@view("attention_entropy")
def entropy_curves(record: Any) -> Any:
    """Attention entropy of the smallest layer, the mean over its heads, of every run against step."""
    return entropy(record)
