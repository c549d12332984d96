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
    lost = track.diverged[(track.diverged >= 0) & (track.diverged <= step)]
    if lost.size:
        said.append(
            f"{lost.size} of {len(track.diverged)} runs diverged, first at step {lost.min()}"
            if len(track.diverged) > 1
            else f"diverged at step {lost.min()}"
        )
    return said


def course(gauge: Gauge, variable: Variable, track: Track, until: int | None = None) -> str:
    """Where a curve stands, the mean over runs, and whether it rises or falls: its last measurements against those before."""
    _, values = _curve(gauge, variable, track, until)
    finite = np.isfinite(values)
    some = finite.any(0)
    heights = np.where(finite, values, 0.0).sum(0)[some] / finite.sum(0)[some]
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
    steps, values = _curve(gauge, variable, track, until)
    found = []
    for level in (level for level in gauge.levels(track.row) if level.alarm and values.size):
        beyond = _beyond(values, level)
        some, count = beyond.any(0), int(beyond[:, -1].sum())
        if not count:
            continue
        since = steps[0] if some.all() else steps[len(some) - int(np.argmin(some[::-1]))]
        when = f" in {count} of {len(beyond)} runs, the first since step {since}" if len(beyond) > 1 else f" since step {since}"
        height = f"{_number(level.value)}{_units(variable)} ({level.text})"
        found.append(f"{_what(gauge, variable, track, until)} {level.alarm} {height}{when}")
    return found


def _beyond(values: np.ndarray, level: Level) -> np.ndarray:
    return values < level.value if level.alarm == "under" else values > level.value


def _what(gauge: Gauge, variable: Variable, track: Track, until: int | None) -> str:
    """The title; where the last reduction is to an extreme, what follows its comma gives way to the label of that: ` of layer 2`."""
    title, dims = _title(gauge, variable), [dim for dim in gauge.over if dim in variable.dims]
    if not dims or gauge.over[dims[-1]] == "mean" or len(dims) < len(variable.dims):
        return title
    kept, sign = dims[-1], 1 if gauge.over[dims[-1]] == "min" else -1
    values = np.moveaxis(_series(variable, track, until)[1][:, -1:], 2 + variable.dims.index(kept), 1)
    alone = values.reshape(-1, *values.shape[2:])  # each label as a run of its own
    heights = sign * reduced(alone, [dim for dim in variable.dims if dim != kept], gauge.over)[:, 0]
    place = int(np.where(np.isfinite(heights), heights, np.inf).argmin()) % len(track.labels[kept])
    return f"{title.partition(',')[0]} of {kept} {track.labels[kept][place]}"


def _curve(gauge: Gauge, variable: Variable, track: Track, until: int | None) -> tuple[np.ndarray, np.ndarray]:
    steps, values = _series(variable, track, until)
    return steps, reduced(values, variable.dims, gauge.over) if steps.size else np.empty((len(values), 0))


def _series(variable: Variable, track: Track, until: int | None) -> tuple[np.ndarray, np.ndarray]:
    return track.series(variable.name, None if until is None else until + 1)


def _title(gauge: Gauge, variable: Variable) -> str:
    title = title_of(gauge, variable)
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


def _units(variable: Variable) -> str:
    units = units_of(variable)
    return f" {units}" if units else ""


def _number(value: float) -> str:
    mantissa, e, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa
