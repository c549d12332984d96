"""Studies: one phenomenon, bound together in one module."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .claim import Claim
from .design import Design
from .errors import unknown
from .gauge import Gauge
from .knobs import Knobs
from .probe import Probe
from .view import View

BUDGETS = {"smoke": 3, "demo": 120, "full": 1200}
FIELDS = ("Question", "Phenomenon", "Try", "Cites")
OPTIONAL_FIELDS = ("Differs",)


class Now(NamedTuple):
    """Where a step stands: updates made so far (0-dim tensor), the run's key folded with the step, the phase's name."""

    step: Any
    key: Any
    phase: str


class Moment:
    """By-products of one step, by name; a learner fills in what it has."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this learner's moment has no {name!r}, only {', '.join(sorted(self.__dict__))}")


class Terms(NamedTuple):
    """What a run trains under: its knobs, and what its learner prepared for them."""

    knobs: Any
    shared: Any


class Learner(Protocol):
    """A pure training step of one run. `lanes = False` with a `reason` keeps a learner out of vmap.

    A learner whose switch knobs may change while it trains also has `adapt(state, key, old: Terms, new: Terms) -> state`, which
    carries a state over: leaves of the same name and shape are kept, new ones begin as the identity they stand for, and what
    cannot be carried is an InputError with the reason. `key` is the one that `init` got.
    """

    def prepare(self, knobs: Any, key: Any) -> Any:
        """What all runs share and no step changes: frozen nets, evaluation sets, the model's structure."""

    def init(self, key: Any, knobs: Any, shared: Any) -> Any:
        """The state before the first step: a tree of tensors holding everything that changes."""

    def step(self, state: Any, batch: Any, knobs: Any, shared: Any, now: Now) -> tuple[Any, Any]:
        """The next state, and the moment: the by-products that probes read."""


@dataclass(frozen=True)
class Budget:
    """A design, a number of steps and optional probes that fit a time: smoke 3 s, demo 2 min, full 20 min on two cores.

    A phenomenon that needs longer gives its `reason`. `clocks` are those of probes, by name, that would make its record too large.
    """

    design: Design
    steps: int
    probes: tuple[str, ...] = ()
    reason: str = ""
    clocks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A named starting point."""

    name: str
    knobs: Mapping[str, Any]
    doc: str


@dataclass(frozen=True)
class Prediction:
    """A question to answer before a run is watched: `outcome(record) -> place in answers`, of the record of one run after `steps`."""

    question: str
    answers: tuple[str, ...]
    outcome: Callable[[Any], int]
    steps: int


@dataclass(frozen=True)
class Published:
    """A number from a paper, to be drawn beside what is measured: of which variable, at which setting, and where it stands.

    With a `step` it is a point of a curve, else a level. With `knobs` it is drawn only beside runs that have these.
    """

    variable: str
    value: float
    text: str
    source: str
    step: int | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """A number per run read off its curves: `fn(record) -> DataArray over run`."""

    name: str
    fn: Callable[[Any], Any]
    units: str
    doc: str


@dataclass(frozen=True)
class Phase:
    """A named stretch of a run, as a share of its steps."""

    name: str
    share: float = 1.0


@dataclass(frozen=True)
class Study:
    """Everything that makes a phenomenon runnable. Write `study = Study(__name__, ...)`; the module's docstring is its text."""

    module: str
    title: str
    knobs: type[Knobs]
    task: Callable[..., Any]
    learner: Any
    probes: tuple[Probe, ...]
    budgets: Mapping[str, Budget]
    coords: Callable[[Any], Mapping[str, Sequence[Any]]] = lambda knobs: {}
    optional_probes: tuple[Probe, ...] = ()
    views: tuple[View, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    published: tuple[Published, ...] = ()
    claims: tuple[Claim, ...] = ()
    presets: tuple[Preset, ...] = ()
    events: tuple[Event, ...] = ()
    phases: tuple[Phase, ...] = (Phase("train"),)
    summary: Callable[[Any], Sequence[str]] | None = field(default=None)

    @property
    def name(self) -> str:
        """The module's last name, by which `wb.run` finds the study."""
        return self.module.rsplit(".", 1)[-1]

    @property
    def doc(self) -> str:
        """The docstring of the module that defines the study."""
        return sys.modules[self.module].__doc__ or "" if self.module in sys.modules else ""

    def probes_named(self, names: Sequence[str], clocks: Mapping[str, int] | None = None) -> tuple[Probe, ...]:
        """The default probes and, beside them, the optional ones of these names; some on other clocks."""
        offered = {p.name: p for p in (*self.probes, *self.optional_probes)}
        for name in (*names, *(clocks or ())):
            if name not in offered:
                raise unknown("probe", name, offered)
        chosen = (*self.probes, *(offered[name] for name in names if offered[name] not in self.probes))
        return tuple(p.on_clock(clocks[p.name]) if clocks and p.name in clocks else p for p in chosen)

    def budget(self, name: str) -> Budget:
        """The budget of this name."""
        if name not in self.budgets:
            raise unknown("budget", name, self.budgets)
        return self.budgets[name]

    def preset(self, name: str) -> Preset:
        """The preset of this name."""
        offered = {p.name: p for p in self.presets}
        if name not in offered:
            raise unknown("preset", name, offered)
        return offered[name]


def phase_starts(phases: Sequence[Phase], steps: int) -> list[tuple[str, int]]:
    """Name and first step of each phase in a run of `steps`."""
    total = math.fsum(p.share for p in phases)
    starts, done = [], 0.0
    for phase in phases:
        starts.append((phase.name, round(steps * done / total)))
        done += phase.share
    return starts
