"""Gauges: how a variable is drawn while it grows. A probe says what is measured, a gauge how one looks at it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .schema import Variable

Reduction = Literal["mean", "min", "max"]
Kind = Literal["curve", "map", "picture", "histogram"]


@dataclass(frozen=True)
class Level:
    """A height to compare with, drawn as a rule; with an `alarm` the panel says since when a run is under it, or over it.

    With a `step` it is a point: the height that is expected there.
    """

    text: str
    value: float
    alarm: Literal["", "under", "over"] = ""
    step: int | None = None


def _no_levels(knobs: Mapping[str, Any]) -> Sequence[Level]:
    return ()


@dataclass(frozen=True)
class Gauge:
    """A chart of one variable in the live panel.

    A `curve` has a line for each run, `over` says in which order dimensions are reduced to it (those not named: the mean, at last); a
    `map` has a row for each label and steps to the right; a `picture` shows variables that have rows and columns; a `histogram` the
    spread of all values of a moment. `levels` are drawn on a curve, those of the knobs given.
    """

    variable: str
    kind: Kind = "curve"
    title: str = ""
    over: Mapping[str, Reduction] = field(default_factory=dict)
    levels: Callable[[Mapping[str, Any]], Sequence[Level]] = _no_levels
    logarithmic: bool = False
    shown: bool = True

    @property
    def name(self) -> str:
        """What tells it from the other gauges of a study."""
        return f"{self.variable}-{self.kind}"


def title_of(gauge: Gauge, variable: Variable) -> str:
    """What a gauge shows, in words."""
    return gauge.title or str(variable.attrs.get("long_name", variable.name))


def units_of(variable: Variable) -> str:
    """The units of a variable; empty for a plain number."""
    units = str(variable.attrs.get("units", "1"))
    return "" if units == "1" else units


def default_gauges(variables: Sequence[Variable]) -> tuple[Gauge, ...]:
    """A gauge or two for each variable of a study that declares none."""
    found = []
    for v in variables:
        if v.dims[-2:] == ("y", "x"):
            found.append(Gauge(v.name, "picture"))
            continue
        found.append(Gauge(v.name))
        if v.dims:
            found.append(Gauge(v.name, "map", shown=False))
    return tuple(found)
