"""Gauges drawn: for each a chart whose data have names and are put in later, again and again, and the tables that go in.

A chart is made once; only tables travel while a run is watched. A table is a mapping of columns, numbers as arrays and words as lists.
The data are called, by kind:

- curve: `lines` and their latest values `ends`, `bands` of seeds, `references`, `levels` and `points` to compare with, `marks` of
  changes, `now`; its strip of differences: `differences`, `zero`
- map: `cells`, `marks`, `now`
- picture: `pictures`, `names` of rows and columns
- histogram: `bars`

A curve, a map and a strip end at the signal `last`, which is set beside the data; the width is the front's to choose, but
for pictures, whose places are in pixels.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..gauge import Gauge, Level, title_of, units_of
from ..history import Track, reduced
from ..schema import Change, Variable
from .curves import decimate
from .extras import alt
from .panels import GRADIENT
from .theme import CATEGORIES, number, ramp, wrapped

POINTS, MOST, LEAST = 4_000, 500, 40
CELLS = 1_600
BINS = 40
HEIGHT, DIFFERENCE_HEIGHT = 208, 70
FAR = 2.0
NEAR = 0.02  # of the steps shown, within which changes of one knob are one mark
MARK_ROWS, MARK_ROW = 3, 12
HEAD = MARK_ROWS * MARK_ROW + 2  # pixels above curves and cells for the words of marks
LETTER, PLOT = 5.2, 240  # pixels that a letter of a mark takes, and those that the steps have in a narrow chart
SHIPPED = "#8a8f98"
PICTURE, ACROSS, DOWN, GAP = 84, 252, 176, 4  # pixels: of a picture at most, of all pictures, and between two
MARGIN, FOOT = 44, 16  # pixels for the names of rows and of columns
MOST_ACROSS = 8
PADDING = 6
BELOW_HEAD = (HEIGHT, HEAD)
NUMBER = "datum.value == 0 || (abs(datum.value) >= 1e-3 && abs(datum.value) < 1e6) ? format(datum.value, '~r') : format(datum.value, '~e')"
SHORT_NUMBER = "isFinite(datum.value) ? format(datum.value, '.2~g') : ''"

Table = Mapping[str, Any]


class Words(Sequence[str]):
    """A column of words in runs: each of `words` so many `times`, which is how it is sent."""

    def __init__(self, words: Sequence[str], times: Sequence[int]) -> None:
        self.words, self.times = list(words), [int(n) for n in times]

    def __len__(self) -> int:
        return sum(self.times)

    def __getitem__(self, place: Any) -> Any:
        return [word for word, times in zip(self.words, self.times, strict=True) for _ in range(times)][place]

    def __eq__(self, other: object) -> bool:
        return self[:] == (other[:] if isinstance(other, Words) else other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Shown:
    """What is to be seen: tracks with a colour each, the selected one, and up to which step.

    `references` are tracks drawn dashed and grey; `bands` joins the seeds of a track to a band from the lowest to the highest.
    """

    tracks: Sequence[Track]
    selected: Track
    until: int | None = None
    now: int | None = None
    bands: bool = True
    references: Sequence[Track] = ()
    published: Sequence[Level] = ()
    logarithmic: Mapping[str, bool] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The last step on the axis."""
        ends = [track.step if self.until is None else min(track.step, self.until) for track in self.tracks]
        return max([1, *ends])


def colour(track: Track) -> str:
    """The colour of a track, the same everywhere."""
    return CATEGORIES[(track.number - 1) % len(CATEGORIES)]


def axis_title(gauge: Gauge, variable: Variable) -> str:
    """What a gauge shows, with units."""
    return f"{title_of(gauge, variable)} {_bracketed(variable)}".strip()


# Charts: Vega-Lite specifications whose data are named and empty.


def chart(gauge: Gauge, variable: Variable, *, logarithmic: bool = False) -> Any:
    """The chart of a gauge, as an Altair chart on named data."""
    drawn = {"curve": _curve, "map": _map, "picture": _picture, "histogram": _histogram}[gauge.kind](gauge, variable, logarithmic)
    return drawn.properties(description=axis_title(gauge, variable))


def difference_chart(gauge: Gauge, variable: Variable) -> Any:
    """The strip below a curve: what each twin differs from its parent by."""
    title = f"Δ {_bracketed(variable)}".strip()
    y = alt.Y("value:Q", title=title, axis=alt.Axis(tickCount=3, labelExpr=NUMBER))
    zero = alt.Chart(alt.NamedData("zero")).mark_rule().encode(y=y)
    line = alt.Chart(alt.NamedData("differences")).mark_line(clip=True, strokeWidth=1.3)
    drawn = alt.layer(zero, line.encode(x=_steps(), y=y, detail="line:N", color=_given())).properties(height=DIFFERENCE_HEIGHT)
    return _ending(drawn).properties(description=f"Difference of twins from their parents: {axis_title(gauge, variable)}")


def _ending(layers: Any) -> Any:
    """With the signal that says where the steps end."""
    return layers.add_params(alt.param(name="last", value=1))


def _bracketed(variable: Variable) -> str:
    units = units_of(variable)
    return f"[{units}]" if units else ""


def _steps() -> Any:
    domain = alt.Scale(domainMax=alt.ExprRef("last"), domainMin=0, nice=False)
    return alt.X("step:Q", title="step", scale=domain, axis=alt.Axis(tickCount=5, format="~s", grid=False))


def _given() -> Any:
    """A colour that the data name themselves."""
    return alt.Color("colour:N", scale=None, legend=None)


def _heights_axis(logarithmic: bool) -> dict[str, Any]:
    """Scale and axis of heights; of a logarithmic one the powers of ten stand out."""
    if not logarithmic:
        return {
            "scale": alt.Scale(zero=False, nice=False, padding=PADDING, range=BELOW_HEAD),
            "axis": alt.Axis(tickCount=5, labelExpr=NUMBER),
        }
    is_power = "abs(log(datum.value) / LN10 - round(log(datum.value) / LN10)) < 1e-6"
    faint = {"condition": {"test": is_power, "value": 1}, "value": 0.25}
    axis = alt.Axis(tickCount=5, labelExpr=f"datum.label == '' ? '' : {NUMBER}", gridOpacity=faint, tickOpacity=faint)
    return {"scale": alt.Scale(type="log", nice=False, padding=PADDING, range=BELOW_HEAD), "axis": axis}


def _curve(gauge: Gauge, variable: Variable, logarithmic: bool) -> Any:
    x, title, heights_axis = _steps(), wrapped(axis_title(gauge, variable), 26), _heights_axis(logarithmic)
    y = alt.Y("value:Q", title=title, **heights_axis)
    band = alt.Chart(alt.NamedData("bands")).mark_area(opacity=0.22, clip=True)
    band = band.encode(x=x, y=alt.Y("low:Q", title=title, **heights_axis), y2="high:Q", detail="line:N", color=_given())
    reference = alt.Chart(alt.NamedData("references")).mark_line(strokeDash=[2, 3], clip=True, strokeWidth=1.6)
    reference = reference.encode(x=x, y=y, detail="line:N", color=_given())
    line = alt.Chart(alt.NamedData("lines")).mark_line(clip=True, strokeWidth=1.5).encode(x=x, y=y, detail="line:N", color=_given())
    end = alt.Chart(alt.NamedData("ends")).mark_point(filled=True, size=22, opacity=1, clip=True).encode(x=x, y=y, color=_given())
    zoom = alt.selection_interval(bind="scales", encodings=["x"], name="zoom")
    return _ending(
        alt.layer(band, reference, *_levels(y), line.add_params(zoom), end, *_points(x, y), *_marks(x)).properties(height=HEIGHT)
    )


def _levels(y: Any) -> list[Any]:
    """Rules with words, which stand on the side of the rule where there is more room."""
    level = alt.Chart(alt.NamedData("levels")).encode(y=y)
    inside = alt.ExprRef("width - 6")
    words = level.mark_text(
        align="right", baseline="middle", dx=-3, dy=alt.ExprRef("datum.shift"), fontSize=10.5, opacity=0.8, limit=inside
    )
    return [level.mark_rule(strokeDash=[5, 4]), words.encode(x=alt.value("width"), text="text:N")]


def _points(x: Any, y: Any) -> list[Any]:
    """Diamonds with words, which stand to the left of those in the right half."""
    point = alt.Chart(alt.NamedData("points")).encode(x=x, y=y)
    align, dx = (alt.ExprRef(f"datum.step > last / 2 ? {e}") for e in ("'right' : 'left'", "-8 : 8"))
    room = alt.ExprRef("width * (datum.step > last / 2 ? datum.step / last : 1 - datum.step / last) - 12")
    words = point.mark_text(
        align=align, baseline="middle", dx=dx, dy=alt.ExprRef("datum.shift"), fontSize=10.5, opacity=0.8, limit=room, clip=True
    )
    return [point.mark_point(shape="diamond", size=70, opacity=1, clip=True), words.encode(text="text:N")]


def _marks(x: Any) -> list[Any]:
    """What was changed and when, as labelled rules; and where one has gone back to."""
    mark = alt.Chart(alt.NamedData("marks")).encode(x=x)
    align, dx, dy = (alt.ExprRef(f"datum.{e}") for e in ("late ? 'right' : 'left'", "late ? -3 : 3", f"row * {MARK_ROW} + 1"))
    words = mark.mark_text(align=align, baseline="top", dx=dx, dy=dy, fontSize=10, clip=True)
    now = alt.Chart(alt.NamedData("now")).mark_rule(strokeWidth=2).encode(x=x)
    rule = mark.mark_rule(strokeDash=[1, 2], strokeWidth=1.4).encode(color=_given())
    return [rule, words.encode(y=alt.value(0), text="text:N"), now]


def _map(gauge: Gauge, variable: Variable, logarithmic: bool) -> Any:
    legend = alt.Legend(title=None, orient="right", gradientLength=90, gradientThickness=10, tickCount=3, labelExpr=SHORT_NUMBER)
    scale = alt.Scale(type="log" if logarithmic else "linear", scheme=GRADIENT, nice=False)
    # Edges of the cells' own colour: without them the background shines through between.
    rect = alt.Chart(alt.NamedData("cells")).mark_rect(clip=True, stroke=alt.ExprRef("scale('color', datum.value)"), strokeWidth=0.6)
    rect = rect.encode(
        x=_steps(),
        x2="next:Q",
        y=alt.Y("row:O", title=None, sort=None, scale=alt.Scale(range=BELOW_HEAD[::-1]), axis=alt.Axis(labelLimit=110, labelFontSize=10)),
        color=alt.Color("value:Q", scale=scale, legend=legend),
    )
    zoom = alt.selection_interval(bind="scales", encodings=["x"], name="zoom")
    return _ending(alt.layer(rect.add_params(zoom), *_marks(_steps())).properties(height=HEIGHT))


def _picture(gauge: Gauge, variable: Variable, logarithmic: bool) -> Any:
    size = alt.ExprRef("datum.size")
    x, y = (alt.X("left:Q", scale=None, axis=None), alt.Y("top:Q", scale=None, axis=None))
    image = alt.Chart(alt.NamedData("pictures")).mark_image(width=size, height=size, align="left", baseline="top")
    names = alt.Chart(alt.NamedData("names")).encode(x=x, y=y, text="text:N")
    of_rows = names.transform_filter("!datum.below").mark_text(align="right", baseline="middle", fontSize=10, limit=MARGIN - 6)
    of_columns = names.transform_filter("datum.below").mark_text(align="center", baseline="top", fontSize=10)
    drawn = alt.layer(image.encode(x=x, y=y, url="url:N"), of_rows, of_columns)
    return drawn.properties(width=MARGIN + ACROSS, height=DOWN + FOOT, view=alt.ViewBackground(stroke=None))


def _histogram(gauge: Gauge, variable: Variable, logarithmic: bool) -> Any:
    bars = alt.Chart(alt.NamedData("bars")).mark_area(interpolate="step-after", opacity=0.28, line=True)
    title, axis = wrapped(axis_title(gauge, variable), 32), alt.Axis(tickCount=5, labelExpr=NUMBER, grid=False)
    x = alt.X("low:Q", title=title, scale=alt.Scale(nice=False, zero=False), axis=axis)
    y = alt.Y("share:Q", title="share of values", axis=alt.Axis(format="%", tickCount=4), stack=None)
    return bars.encode(x=x, y=y, detail="line:N", color=_given()).properties(height=HEIGHT)


# Tables


def tables(gauge: Gauge, variable: Variable, shown: Shown) -> dict[str, Table]:
    """What goes into the chart of a gauge now, by the name of its data."""
    drawn = {"curve": _curves, "map": _cells, "picture": _pictures, "histogram": _bars}[gauge.kind]
    return drawn(gauge, variable, shown)


def difference_tables(gauge: Gauge, variable: Variable, shown: Shown) -> dict[str, Table]:
    """What goes into the strip of differences."""
    parts, twins = [], _with_parents(shown.tracks)
    most = min(MOST // 2, _most_of_each(twins))
    for track in twins:
        steps, values = _heights(gauge, variable, track, shown.until)
        other_steps, others = _heights(gauge, variable, _origin(track), shown.until)
        common, ours, theirs = np.intersect1d(steps, other_steps, assume_unique=True, return_indices=True)
        late = common >= track.start
        gap = (values[:, ours] - others[:, theirs])[:, late]
        parts += _lines(track, common[late], gap, colour(track), most)
    return {"differences": _stacked(parts), "zero": {"value": np.zeros(1)}}


def has_differences(tracks: Sequence[Track]) -> bool:
    """Whether some track has a parent to differ from."""
    return bool(_with_parents(tracks))


def levels_of(gauge: Gauge, shown: Shown) -> list[Level]:
    """The levels of a gauge under the knobs of the selected track, and the published ones of its variable."""
    return [*gauge.levels(shown.selected.row), *shown.published]


def _with_parents(tracks: Sequence[Track]) -> list[Track]:
    return [track for track in tracks if track.parent is not None and len(track.seeds) == len(track.parent.seeds)]


def _origin(track: Track) -> Track:
    assert track.parent is not None
    return track.parent


def _heights(gauge: Gauge, variable: Variable, track: Track, until: int | None) -> tuple[np.ndarray, np.ndarray]:
    steps, values = track.series(variable.name, None if until is None else until + 1)
    return steps, reduced(values, variable.dims, gauge.over).astype(float, copy=False) if steps.size else np.empty((len(values), 0))


def _most_of_each(tracks: Sequence[Track]) -> int:
    """How many points each seed of these tracks may have, so that all together can be painted many times a second."""
    return int(np.clip(POINTS // max(1, sum(len(track.seeds) for track in tracks)), LEAST, MOST))


def _curves(gauge: Gauge, variable: Variable, shown: Shown) -> dict[str, Table]:
    most = _most_of_each((*shown.tracks, *shown.references))
    logarithmic = shown.logarithmic.get(gauge.name, gauge.logarithmic)
    lines, bands, references = [], [], []
    low, high = math.inf, -math.inf
    for track in (*shown.tracks, *shown.references):
        is_reference = track in shown.references
        steps, values = _heights(gauge, variable, track, shown.last if is_reference else shown.until)
        own = steps >= (0 if is_reference else track.start)
        steps, values = steps[own], values[:, own]
        values = np.where(values > 0, values, np.nan) if logarithmic else values
        finite = values[np.isfinite(values)]
        low, high = min([low, *([finite.min()] if finite.size else [])]), max([high, *([finite.max()] if finite.size else [])])
        if is_reference:
            references += _lines(track, steps, middle(values)[None], SHIPPED, MOST)
        elif shown.bands and len(values) > 1:
            bands += _band(track, steps, values, MOST // 2)
            lines += _lines(track, steps, middle(values)[None], colour(track), MOST)
        else:
            lines += _lines(track, steps, values, colour(track), most)
    every = levels_of(gauge, shown)
    levels = [level for level in every if _is_near(level.value, low, high, logarithmic)]
    return {
        "lines": _stacked(lines),
        "ends": _stacked(_ends(lines)),
        "bands": _stacked(bands, ("step", "low", "high")),
        "references": _stacked(references),
        "levels": _with_sides([level for level in levels if level.step is None], low, high, logarithmic),
        "points": _with_sides([level for level in levels if level.step is not None], low, high, logarithmic),
        "about": {"text": [f"{level.text}: {number(level.value)}, beyond this axis" for level in every if level not in levels]},
        **_marked(shown),
    }


def middle(values: np.ndarray) -> np.ndarray:
    """The median over runs of values (run, step), of those that are finite; NaN where none is."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)
    count = np.isfinite(ordered).sum(0)
    low, high = (np.take_along_axis(ordered, np.maximum(place, 0)[None], 0)[0] for place in ((count - 1) // 2, count // 2))
    return np.where(count > 0, (low + high) / 2, np.nan)


def _with_sides(levels: Sequence[Level], low: float, high: float, logarithmic: bool) -> Table:
    """Levels with their words shifted down where they stand in the upper half of the axis, else up."""
    values = np.array([level.value for level in levels], float)
    drawn = np.array([*values, *(each for each in (low, high) if math.isfinite(each))])
    places = np.log(drawn) if logarithmic else drawn
    upper = places > (places.min() + places.max()) / 2 if drawn.size else np.empty(0, bool)
    steps = np.array([math.nan if level.step is None else level.step for level in levels], float)
    return {"step": steps, "value": values, "text": [level.text for level in levels], "shift": np.where(upper[: len(values)], 8, -7)}


def _is_near(value: float, low: float, high: float, logarithmic: bool) -> bool:
    """Whether a level can be drawn without flattening what was measured."""
    if logarithmic and value <= 0:
        return False
    if not (math.isfinite(low) and math.isfinite(high)):
        return True
    if logarithmic:
        return low / 10 <= value <= high * 10
    reach = FAR * max(high - min(low, 0.0), 1e-12)
    return min(low, 0.0) - reach <= value <= min(low, 0.0) + reach


def _lines(track: Track, steps: np.ndarray, values: np.ndarray, hue: str, most: int) -> list[dict[str, Any]]:
    """One line for each row of values, thinned so that each bucket keeps its lowest and highest."""
    if not len(steps):
        return []
    kept = decimate(values, most)
    fresh = np.diff(kept, axis=-1, prepend=-1) > 0
    return [
        {"step": steps[k[f]], "value": row[k[f]], "line": _called(track, i, len(values)), "colour": hue}
        for i, (row, k, f) in enumerate(zip(values, kept, fresh, strict=True))
    ]


def _ends(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The latest value of each line that is a number."""
    sound = [(line, np.flatnonzero(np.isfinite(line["value"]))[-1:]) for line in lines]
    return [{**line, "step": line["step"][last], "value": line["value"][last]} for line, last in sound]


def _called(track: Track, place: int, lines: int) -> str:
    return track.name if lines == 1 else f"{track.name}, seed {track.seeds[place]}"


def _band(track: Track, steps: np.ndarray, values: np.ndarray, most: int) -> list[dict[str, Any]]:
    """From the lowest to the highest seed, of each bucket of steps."""
    if not len(steps):
        return []
    edges = np.unique(np.linspace(0, len(steps), min(most, len(steps)) + 1).astype(int))[:-1]
    finite = np.isfinite(values)
    low = np.minimum.reduceat(np.where(finite, values, np.inf).min(0), edges)
    high = np.maximum.reduceat(np.where(finite, values, -np.inf).max(0), edges)
    sound = np.isfinite(low) & np.isfinite(high)
    return [{"step": steps[edges][sound], "low": low[sound], "high": high[sound], "line": track.name, "colour": colour(track)}]


def _stacked(parts: Sequence[Mapping[str, Any]], numbers: Sequence[str] = ("step", "value")) -> Table:
    """Lines below one another, with the name and the colour of each in every row."""
    sizes = [len(part["step"]) for part in parts]
    columns: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0) for name in numbers}
    for name in ("line", "colour"):
        columns[name] = Words([part[name] for part in parts], sizes)
    return columns


def marks_of(track: Track, last: int) -> list[tuple[int, str]]:
    """Steps and words of what was changed on a branch and of where it diverged; changes of one knob close together are one."""
    found: list[list[Change]] = []
    for change in (c for c in track.changes if c.step >= track.start):
        near = next((group for group in found if group[0].knob == change.knob and change.step - group[-1].step <= NEAR * last), None)
        near.append(change) if near else found.append([change])
    marks = [(group[0].step, f"{group[0].knob} {' → '.join(map(_word, _course(group)))}") for group in found]
    lost = np.asarray(track.diverged)
    return marks + [(int(step), "diverged") for step in np.unique(lost[lost >= 0])]


def _course(group: Sequence[Change]) -> list[Any]:
    """What a knob was and became; of many values, as of a slider that is dragged, the last, and the farthest where it came back."""
    first, last = group[0].old, group[-1].new
    if first != last or len(group) == 1:
        return [first, last]
    between = [change.new for change in group[:-1]]
    far = max(between, key=lambda value: abs(value - first)) if isinstance(first, int | float) else between[-1]
    return [first, far, last]


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return number(value) if isinstance(value, (int, float)) else str(value)


def _marked(shown: Shown) -> dict[str, Table]:
    found = [(step, text, colour(track)) for track in shown.tracks for step, text in marks_of(track, shown.last) if step <= shown.last]
    found.sort(key=lambda mark: mark[0])
    steps = np.array([step for step, *_ in found], float)
    late = steps > shown.last / 2
    return {
        "marks": {
            "step": steps,
            "text": [text for _, text, _ in found],
            "colour": [hue for *_, hue in found],
            "late": late,
            "row": _in_rows(steps, late, [LETTER * len(text) / PLOT * shown.last for _, text, _ in found]),
        },
        "now": {"step": np.array([] if shown.now is None else [shown.now], float)},
    }


def _in_rows(steps: np.ndarray, late: np.ndarray, lengths: Sequence[float]) -> np.ndarray:
    """For each mark the row in which its words overlap fewest others, the first of these; words of late marks stand to the left."""
    rows: list[list[tuple[float, float]]] = [[] for _ in range(MARK_ROWS)]
    found = []
    for step, is_late, length in zip(steps, late, lengths, strict=True):
        start, end = (step - length, step) if is_late else (step, step + length)
        crowded = [sum(start < other_end and end > other for other, other_end in row) for row in rows]
        found.append(int(np.argmin(crowded)))
        rows[found[-1]].append((start, end))
    return np.array(found, int)


def _cells(gauge: Gauge, variable: Variable, shown: Shown) -> dict[str, Table]:
    """Cells of the selected track's first run, thinned to so few that they can be painted many times a second."""
    track = shown.selected
    steps, values = track.series(variable.name, None if shown.until is None else shown.until + 1)
    labels = _rows(variable.dims, track.labels)
    grid = values[0].reshape(len(steps), len(labels))
    stride = max(1, -(-len(steps) * len(labels) // CELLS))
    kept, grid = steps[::stride], grid[::stride]
    after = np.append(kept[1:], kept[-1:] + (kept[-1:] - kept[-2:-1] if len(kept) > 1 else variable.clock))
    cells = {
        "step": np.repeat(kept, len(labels)),
        "next": np.repeat(after, len(labels)),
        "value": grid.ravel(),
        "row": labels * len(kept),
    }
    return {"cells": cells, "about": _about(track), **_marked(Shown([track], track, shown.until, shown.now))}


def _about(track: Track, steps: Sequence[int] = ()) -> Table:
    """Which run is seen, where there are several, and at which step."""
    seed = [f"seed {track.seeds[0]} of {len(track.seeds)}"] if len(track.seeds) > 1 else []
    return {"text": [track.name, *seed, *([f"step {steps[-1]}"] if len(steps) else [])]}


def _rows(dims: Sequence[str], labels: Mapping[str, Sequence[Any]]) -> list[str]:
    places: list[list[str]] = [[]]
    for dim in dims:
        places = [[*place, f"{dim} {label}"] for place in places for label in labels[dim]]
    return [", ".join(place) for place in places]


def _pictures(gauge: Gauge, variable: Variable, shown: Shown) -> dict[str, Table]:
    """The latest pictures of the selected track's first run, in as many pixels as there is room for, with their places."""
    track, (*rows, column) = shown.selected, variable.dims[:-2] or ("",)
    until = shown.now if shown.now is not None else shown.until
    steps, values = track.series(variable.name, None if until is None else until + 1)
    heads, names = [track.labels.get(column, ("",)), _rows(rows, track.labels)]
    pictures = values[0, -1].reshape(-1, *values.shape[-2:]) if len(steps) else []
    across = len(heads) if rows else min(len(heads), MOST_ACROSS)
    down = -(-len(heads) * len(names) // max(1, across))
    size = min(PICTURE, ACROSS // max(1, across), DOWN // max(1, down))
    row, place = np.divmod(np.arange(len(pictures)), max(1, across))
    return {
        "about": _about(track, steps),
        "pictures": {
            "left": MARGIN + size * place,
            "top": size * row,
            "size": np.full(len(pictures), max(1, size - GAP)),
            "url": [png(picture) for picture in pictures],
        },
        "names": _names_of(names, [f"{column} {head}".strip() for head in heads] if down == len(names) else [], size, len(pictures) > 0),
    }


def _names_of(rows: Sequence[str], columns: Sequence[str], size: int, is_any: bool) -> Table:
    """Names to the left of rows and below columns, as places of their words; of a column only its label where it is narrow."""
    if not is_any:
        rows = columns = ()
    short = [name if size >= LETTER * len(name) else name.rpartition(" ")[2] for name in columns]
    centre = size / 2 - GAP / 2
    return {
        "left": np.array([MARGIN - 4] * len(rows) + [MARGIN + size * i + centre for i in range(len(short))], float),
        "top": np.array([size * i + centre for i in range(len(rows))] + [size * len(rows) + 1] * len(short), float),
        "below": np.array([False] * len(rows) + [True] * len(short)),
        "text": [*rows, *short],
    }


def png(picture: np.ndarray) -> str:
    """A picture (y, x) of bytes as a data URI, in the colours of the heat maps; what is not a number is dark."""
    image = Image.fromarray(np.ascontiguousarray(np.nan_to_num(picture), np.uint8))
    image.putpalette(PALETTE)
    times = max(1, round(2 * PICTURE / max(image.size)))
    out = io.BytesIO()
    image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST).save(out, "png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


PALETTE = [int(hue[i : i + 2], 16) for hue in ramp(256) for i in (1, 3, 5)]


def _bars(gauge: Gauge, variable: Variable, shown: Shown) -> dict[str, Table]:
    """Shares of the latest values of each track, all its runs together, in bins that all tracks share; bytes count as shares of 255."""
    newest = {}
    for track in shown.tracks:
        _, values = track.series(variable.name, None if shown.until is None else shown.until + 1)
        latest = values[:, -1].ravel().astype(float) if values.shape[1] else np.empty(0)
        newest[track.number] = latest[np.isfinite(latest)] / (255 if variable.dtype == "uint8" else 1)
    everything = np.concatenate([np.empty(0), *newest.values()])
    if not everything.size:
        return {"bars": _stacked([], ("low", "share"))}
    edges = np.histogram_bin_edges(everything, BINS)
    parts = []
    for track in shown.tracks:
        found, _ = np.histogram(newest[track.number], edges)
        share = np.append(found, 0) / max(1, found.sum())
        parts.append({"step": edges, "low": edges, "share": share, "line": track.name, "colour": colour(track)})
    return {"bars": _stacked(parts, ("low", "share"))}
