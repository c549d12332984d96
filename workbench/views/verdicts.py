"""Claims: each effect with its interval against its threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_type_hints

import numpy as np

from ..claim import Verdict
from ..errors import InputError
from ..view import view
from .extras import alt
from .span import span
from .theme import CROSS, FAINT, STATUS, number, shortened, wrapped

WIDTH, HEIGHT = 520, 34
LONGEST = 300
MARKS = {"holds": "circle", "fails": CROSS, "undecided": "diamond"}
ICONS = {"holds": "✓", "fails": "✗", "undecided": "?"}


def verdicts_of(record: Any) -> list[Verdict]:
    """The verdicts stored with a record; InputError if they cannot be read."""
    try:
        found = [Verdict(**item) for item in json.loads(record.attrs.get("claims", "[]"))]
    except (ValueError, TypeError):
        found = [None]
    if not all(verdict and _is_sound(verdict) for verdict in found):
        raise InputError("The record's attribute 'claims' is not a list of verdicts; judge the claims again or remove it.")
    return found


def _is_sound(verdict: Verdict) -> bool:
    """Whether every field is of the type that it is declared with."""
    kinds = {float: (int, float), int: int, bool: bool, str: str}
    right = all(isinstance(getattr(verdict, name), kinds[kind]) for name, kind in get_type_hints(Verdict).items())
    return right and np.isfinite(verdict.threshold) and verdict.status in STATUS


def forest(verdicts: Sequence[Verdict]) -> Any:
    """A row for each verdict: mean and 95 % interval of the effect, its threshold, and shaded the side on which the claim holds."""
    if not verdicts:
        raise InputError("There is no verdict to draw; run the study at a budget that has claims.")
    chart = alt.vconcat(*map(_row, verdicts), spacing=16)
    words = "; ".join(f"{v.statement}: {number(v.mean)} against {number(v.threshold)}, {v.status}" for v in verdicts)
    return chart.properties(description=f"Effects with 95 % intervals. {words}").resolve_scale(x="independent")


def _row(verdict: Verdict) -> Any:
    known = [value for value in (verdict.low, verdict.mean, verdict.high) if np.isfinite(value)]
    axis = span([verdict.threshold, *known], logarithmic=False).padded()
    units = f" [{shortened(verdict.units, 20)}]" if verdict.units != "1" else ""
    values = {name: getattr(verdict, name) for name in ("low", "mean", "high", "threshold")}
    data = {name: value if np.isfinite(value) else None for name, value in values.items()}
    data |= {"end": axis.high if verdict.above else axis.low, "words": _words(verdict)}
    base = alt.Chart(alt.Data(values=[data])).encode(tooltip=alt.Tooltip("words:N", title=verdict.status))
    x = {"scale": axis.scale, "title": f"effect{units}", "axis": alt.Axis(tickCount=5, grid=False, labelBound=True)}
    threshold, mean, low = (alt.X(f"{name}:Q", **x) for name in ("threshold", "mean", "low"))
    colour = STATUS[verdict.status]
    side = base.mark_rect(color=STATUS["holds"], opacity=0.12).encode(x=threshold, x2="end:Q")
    edge = base.mark_rule(color=FAINT, strokeDash=[5, 4]).encode(x=threshold)
    bar = base.mark_rule(color=colour, strokeWidth=3).encode(x=low, x2="high:Q")
    dot = base.mark_point(color=colour, filled=True, size=110, opacity=1, shape=MARKS[verdict.status]).encode(x=mean)
    heading = wrapped(f"{ICONS[verdict.status]} {verdict.status}: {shortened(verdict.statement, LONGEST)}", 78)
    title = alt.Title(heading, subtitle=_words(verdict), fontSize=13, fontWeight=600)
    return alt.layer(side, edge, bar, dot).properties(width=WIDTH, height=HEIGHT, title=title)


def _words(verdict: Verdict) -> str:
    return f"{number(verdict.mean)} [{number(verdict.low)}, {number(verdict.high)}], n = {verdict.n}, threshold {number(verdict.threshold)}"


@view()
def claims(record: Any) -> Any:
    """The effect that each claim is about, with its 95 % interval; the claim holds where the whole interval is in the shaded part."""
    return forest(verdicts_of(record))
