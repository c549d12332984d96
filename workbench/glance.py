"""At a glance: what is happening in a run now, in words. Numbers only, neither torch nor charts."""

from collections.abc import Sequence

import numpy as np

from .gauge import Gauge, Level, title_of, units_of
from .history import Track, reduced
from .schema import Variable

WINDOW = 20
SURE = 2.0  # standard errors between two windows, from which on a curve is said to rise or fall


def at_a_glance(track: Track, gauges: Sequence[Gauge], variables: dict[str, Variable], until: int | None = None) -> list[str]:
    """A sentence on each curve worth one: the first gauge's course, and every level that is crossed."""
    curves = [gauge for gauge in gauges if gauge.kind == "curve"]
    step = track.step if until is None else min(until, track.step)
    if step == 0 or not curves:
        return ["Nothing has been trained yet."]
    said = [text for gauge in curves[:1] if (text := course(gauge, variables[gauge.variable], track, until))]
    said += [text for gauge in curves for text in crossings(gauge, variables[gauge.variable], track, until)]
    lost = track.diverged[track.diverged >= 0]
    if lost.size:
        said.append(
            f"{lost.size} of {len(track.diverged)} runs diverged, first at step {lost.min()}"
            if len(track.diverged) > 1
            else f"diverged at step {lost.min()}"
        )
    return said


def course(gauge: Gauge, variable: Variable, track: Track, until: int | None = None) -> str:
    """Where a curve stands and whether it rises or falls: the mean of its last measurements against that of those before."""
    _, values = _curve(gauge, variable, track, until)
    heights = values.mean(0) if len(values) else np.empty(0)
    heights = heights[np.isfinite(heights)]
    if not heights.size:
        return ""
    return f"{_title(gauge, variable)} {_number(heights[-1])}{_units(variable)}{trend(heights)}"


def trend(heights: np.ndarray) -> str:
    """`, rising`, `, falling`, `, steady`; nothing where there are too few to tell."""
    n = min(WINDOW, len(heights) // 2)
    if n < 3:
        return ""
    late, early = heights[-n:], heights[-2 * n : -n]
    spread = float(np.sqrt(late.var(ddof=1) / n + early.var(ddof=1) / n))
    gap = float(late.mean() - early.mean())
    if abs(gap) <= SURE * spread:
        return ", steady"
    return ", rising" if gap > 0 else ", falling"


def crossings(gauge: Gauge, variable: Variable, track: Track, until: int | None = None) -> list[str]:
    """For each level with an alarm that the curve is beyond: since which step, and at which label of the dimension reduced last."""
    found = []
    for level in gauge.levels(track.row):
        steps, values = _curve(gauge, variable, track, until)
        if not level.alarm or not values.size:
            continue
        beyond = _beyond(values, level).any(0)
        if not beyond[-1]:
            continue
        since = steps[len(beyond) - int(np.argmin(beyond[::-1])) if not beyond.all() else 0]
        where = _where(gauge, variable, track, until)
        found.append(
            f"{_title(gauge, variable)}{where} {level.alarm} {_number(level.value)}{_units(variable)} ({level.text}) since step {since}"
        )
    return found


def _beyond(values: np.ndarray, level: Level) -> np.ndarray:
    return values < level.value if level.alarm == "under" else values > level.value


def _where(gauge: Gauge, variable: Variable, track: Track, until: int | None) -> str:
    """The label at which the last reduction found its extreme: ` of layer 2`."""
    extremes = [dim for dim, how in gauge.over.items() if how != "mean" and dim in variable.dims]
    if not extremes or list(gauge.over)[-1] != extremes[-1]:
        return ""
    dim = extremes[-1]
    _, values = _series(variable, track, until)
    left = list(variable.dims)
    newest = values[:, -1]
    for other in [d for d in gauge.over if d != dim] + [d for d in variable.dims if d not in gauge.over]:
        newest = getattr(np, gauge.over.get(other, "mean"))(newest, axis=1 + left.index(other))
        left.remove(other)
    place = np.unravel_index(newest.argmin() if gauge.over[dim] == "min" else newest.argmax(), newest.shape)
    return f" of {dim} {track.labels[dim][place[-1]]}"


def _curve(gauge: Gauge, variable: Variable, track: Track, until: int | None) -> tuple[np.ndarray, np.ndarray]:
    steps, values = _series(variable, track, until)
    return steps, reduced(values, variable.dims, gauge.over)


def _series(variable: Variable, track: Track, until: int | None) -> tuple[np.ndarray, np.ndarray]:
    return track.series(variable.name, None if until is None else until + 1)


def _title(gauge: Gauge, variable: Variable) -> str:
    title = title_of(gauge, variable)
    return title[:1].lower() + title[1:]


def _units(variable: Variable) -> str:
    units = units_of(variable)
    return f" {units}" if units else ""


def _number(value: float) -> str:
    return f"{value:.3g}"
