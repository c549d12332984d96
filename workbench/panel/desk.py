"""The desk: all that a person can do in the panel, one command after the other, and what is to be seen then. No thread, no widget."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError, unknown
from ..gauge import Gauge, Level, default_gauges, title_of
from ..glance import at_a_glance
from ..history import Track, is_picture
from ..record import save
from ..schema import Change
from ..study import Prediction, Published, Study
from ..views import gauges as drawn
from ..views.theme import word
from . import words
from .compare import Shipped, pinned
from .controls import read_shared, seeds_of, shared
from .replay import Replay
from .script import script

COMPARED = ("published", "shipped")
MOST_TRACKS = 8


@dataclass
class Offer:
    """A change that would do nothing as it stands, and what could be done instead."""

    text: str
    ways: Mapping[str, Callable[[], Any]]


@dataclass
class Guess:
    """A question asked before a run is watched: the answer given, when it can be judged, and the outcome."""

    asked: Prediction
    answer: int | None = None
    until: int = 0
    branch: int = 0
    outcome: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has been answered and not been judged."""
        return self.answer is not None and self.outcome is None


@dataclass
class Desk:
    """A panel without a screen: `source` is an Experiment or a Replay; `shown` are names of gauges.

    A command that cannot be carried out raises InputError and leaves everything as it was. Commands that take long leave their work in
    `work`, to be gone through step by step.
    """

    study: Study
    source: Any
    device: str
    shown: set[str] = field(default_factory=set)
    predicting: bool = False
    running: bool = False
    limit: float = 0.0
    pause_at: int | None = None
    bands: bool = True
    message: str = ""
    problem: str = ""
    offer: Offer | None = None
    guess: Guess | None = None
    pending: dict[str, Any] = field(default_factory=dict)
    compared: set[str] = field(default_factory=set)
    pins: list[Track] = field(default_factory=list)
    logarithmic: dict[str, bool] = field(default_factory=dict)
    work: Iterator[int] | None = None
    goal: int = 0
    origin: int = 0
    reached: int = 0
    _shipped: Shipped | None = None

    def __post_init__(self) -> None:
        declared = tuple(g for g in self.study.gauges if g.variable in self.source.variables)
        drawn_already = {g.variable for g in declared}
        standard = {p.name for p in self.study.probes if p.cost == "free" and not declared}
        others = default_gauges([v for v in self.source.variables.values() if v.name not in drawn_already])
        self.gauges: dict[str, Gauge] = {
            g.name: g for g in (*declared, *(replace(g, shown=g.shown and g.variable in standard) for g in others))
        }
        for name in self.shown:
            self.gauge_named(name)
        self.shown = self.shown or {g.name for g in self.gauges.values() if g.shown}
        self.logarithmic = {g.name: g.logarithmic for g in self.gauges.values()}
        self._overlay()
        self._measure()

    @property
    def is_replay(self) -> bool:
        """Whether a record is looked at and nothing is trained."""
        return isinstance(self.source, Replay)

    @property
    def asking(self) -> bool:
        """Whether a prediction waits for its answer."""
        return self.guess is not None and self.guess.answer is None

    # What a person can do, by the name of its button.

    def run(self, until: int | None = None) -> None:
        """Train until it is paused, or up to a step; in a prediction-first panel ask before the first step."""
        if until is not None and _step_of(until) <= (here := self.source.track.step if not self.is_replay else self.source.step):
            raise InputError(f"until is {until}, and it stands at step {here} already; give a later one.")
        if self._asks():
            return
        self._to_the_end()
        if self.is_replay and self.source.at >= self.source.steps:
            self.source.at = 0
        self._wake_failed()
        self._wake()
        self.pause_at, self.running, self.problem = until, True, ""

    def pause(self) -> None:
        """Stop between two steps; break off what is being computed."""
        self.running, self.work = False, None

    def step(self) -> None:
        """One step."""
        if self._asks():
            return
        self.running = False
        self._to_the_end()
        self._wake()
        self.advance()

    def reset(self) -> None:
        """Begin anew with the knobs as they stand and those that were set for the next run; all branches go."""
        row = {**self.source.row, **self.pending}
        self._begin(row, len(self.source.track.seeds), alone=True)

    def preset(self, name: str) -> None:
        """Begin a run at a named starting point; what has been trained rests beside it."""
        self._begin(self.row_of(name), len(self.source.track.seeds))
        self.message = self.study.preset(name).doc
        self._overlay()

    def seeds(self, count: int) -> None:
        """Begin a run with so many seeds; what has been trained rests beside it."""
        if self.is_replay:
            raise InputError("A replay shows the seeds that its record has.")
        self._begin({**self.source.row, **self.pending}, seeds_of(count))

    def load(self, text: str) -> None:
        """Begin a run with knobs given as a short text; what has been trained rests beside it."""
        row, seeds = read_shared(self.study, text)
        self._begin(row, seeds)

    def set(self, /, **knobs: Any) -> None:
        """Change knobs of the selected branch, from its next step on."""
        spent = self._spent(knobs)
        offer = self._offered(spent, knobs[spent]) if spent else None
        knobs = {name: value for name, value in knobs.items() if name != spent}
        if not self.is_replay and self.source.parts(**knobs):
            self._has_room()
        before, was, step = dict(self.source.row), self.source.selected, self.source.step
        self.source.change(**knobs)
        self.offer = offer
        if self.source.selected != was or any(before.get(name) != value for name, value in self.source.row.items()):
            self.message = self._said(before, was, step)
        self._wake_selected()

    def default(self, knob: str) -> None:
        """Put a knob back to its default."""
        if knob not in self.source.knobs:
            raise unknown("knob", knob, self.source.knobs)
        self.set(**{knob: self.source.knobs[knob].default})

    def twin(self, /, **knobs: Any) -> None:
        """Fork the selected branch where it stands; the original goes on beside the copy, which is selected."""
        self._has_room()
        origin = self.source.track.name
        track = self.source.twin(**knobs)
        self.offer = None
        self.message = (
            f"{track.name} left {origin} at step {track.start} with the same weights, moments and data; change a knob to perturb it."
        )
        if self.is_replay:
            self.message = f"{track.name} stands beside {origin}; choose its knobs."

    def back(self, step: int) -> None:
        """Go to a step of the selected branch, training it again from the nearest kept state if need be."""
        step = _step_of(step)
        way = self.source.travel(step)
        self.running, self.offer, self.goal = False, None, step
        self.origin = self.reached = self.source.nearest(step)
        self.work = self._arriving(way, step)

    def latest(self) -> None:
        """Go to the end of the selected branch."""
        if self.is_replay:
            self.source.at = self.source.steps
        self.source.select(self.source.selected)
        self.message = ""

    def select(self, number: int) -> None:
        """Select a branch; knobs then act on it."""
        self.source.select(number)
        self.message, self.offer = "", None

    def rest(self, number: int) -> None:
        """Let a branch rest, or go on."""
        self.source.rest(number, number not in self.source.resting)

    def forget(self, number: int) -> None:
        """Remove a branch."""
        was = self.source.selected
        self.source.forget(number)
        if self.source.selected != was:
            self.offer = None
            self._wake_selected()

    def pin(self) -> None:
        """Keep the curves of the selected branch as a reference, also over a reset."""
        self.pins = [*self.pins, pinned(self.source.track, self.source.step, self.source.knobs)]

    def unpin(self) -> None:
        """Remove all references."""
        self.pins = []

    def show(self, gauge: str) -> None:
        """Show a gauge, or hide it; a probe that no gauge shows and that costs something is not measured."""
        self.gauge_named(gauge)
        self.shown ^= {gauge}
        self._measure()

    def scale(self, gauge: str) -> None:
        """Change a gauge's axis between linear and logarithmic."""
        self.gauge_named(gauge)
        self.logarithmic[gauge] = not self.logarithmic[gauge]

    def band(self) -> None:
        """Draw seeds as a band, or as single lines."""
        self.bands = not self.bands

    def compare(self, what: str) -> None:
        """Draw, or hide, the numbers of the paper (`published`) or the nearest runs of the shipped record (`shipped`)."""
        if what not in COMPARED:
            raise unknown("comparison", what, COMPARED)
        if what == "shipped" and what not in self.compared:
            self._nearest_shipped()
        self.compared ^= {what}

    def speed(self, limit: float = 0.0) -> None:
        """Train at most so many steps a second; 0 is as fast as it goes."""
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
            raise InputError(f"The limit is {limit!r}; give steps per second, or 0 for none.")
        self.limit = float(limit)

    def predict(self) -> None:
        """Ask what will happen before a run is watched, or no longer."""
        if not self.study.predictions:
            raise InputError(f"Study {self.study.name!r} has no question to ask.")
        self.predicting, self.guess = not self.predicting, None

    def answer(self, place: int) -> None:
        """Answer the question; then the run is watched up to where the outcome is known."""
        if not self.asking:
            raise InputError("There is no question to answer; switch 'predict first' on, and press run.")
        assert self.guess is not None
        if place not in range(len(self.guess.asked.answers)):
            raise InputError(f"Answer {place} is none of the {len(self.guess.asked.answers)}; count from 0.")
        until = self.source.step + self.guess.asked.steps
        self.guess.answer = place
        try:
            self.run(until=until)
        except InputError:
            self.guess.answer = None
            raise
        self.guess.until, self.guess.branch = until, self.source.selected

    def choose(self, way: str) -> None:
        """Take one of the ways that are offered."""
        if self.offer is None or way not in self.offer.ways:
            raise unknown("way", way, self.offer.ways if self.offer else ())
        offered = self.offer
        offered.ways[way]()
        if self.offer is offered:
            self.offer = None

    def dismiss(self) -> None:
        """Take away what is said."""
        self.message, self.problem, self.offer = "", "", None
        if self.guess and self.guess.outcome is not None:
            self.guess = None

    def save(self, path: str, overwrite: bool = False) -> None:
        """Write the record to a file, which must not exist unless `overwrite`."""
        written = save(self.record(), path, overwrite=overwrite)
        self.message = f"Saved to {written}; wb.open({str(written)!r}) opens it."

    # What can be asked for.

    def record(self) -> Any:
        """The record of all branches as they stand."""
        return self.source.record if self.is_replay else self._written()

    def _written(self, only: int | None = None) -> Any:
        from ..engine.written import record_of

        return record_of(self.source, only)

    @property
    def python(self) -> str:
        """The Python that makes the same runs again."""
        if self.is_replay:
            return f"import workbench as wb\n\nrecord = wb.open({self.source.origin!r})\n"
        layouts = {number: self.source.layout_of(number).name for number in self.source.tracks}
        tracks, optional = self.source.tracks.values(), (self.source.variables[p.name] for p in self.study.optional_probes)
        probes = [v.name for v in optional if not is_picture(v) and any(v.name in track.own for track in tracks)]
        return script(self.study.name, tracks, self.source.knobs, layouts, probes)

    @property
    def shared(self) -> str:
        """The knobs of the selected branch as a short text."""
        return shared(self.study, self.source.row, len(self.source.track.seeds))

    def row_of(self, preset: str) -> dict[str, Any]:
        """The knobs of a preset: its own, all others at their defaults."""
        named = self.study.preset(preset)
        return {**{name: spec.default for name, spec in self.source.knobs.items()}, **named.knobs}

    def advance(self) -> int:
        """Train one step; pauses where it was to, where a prediction can be judged, and where nothing is left to train."""
        made = self.source.advance() if self.source.training else 0
        if made == 0:
            self.message = "Nothing is left to train: every branch has ended, diverged or rests."
        if self.guess and self.guess.is_open and (made == 0 or self._reached(self.guess)):
            self._judge(self.guess)
        if made == 0 or (self.pause_at is not None and self.source.step >= self.pause_at):
            self.running = False
        return made

    def seen(self, variable: str = "") -> drawn.Shown:
        """What the gauges of a variable are to show."""
        here = self.source
        references = [*self.pins, *([self._nearest_shipped()] if "shipped" in self.compared else [])]
        return drawn.Shown(
            tracks=list(here.tracks.values()),
            selected=here.track,
            until=here.at if self.is_replay else None,
            now=here.cursor,
            bands=self.bands,
            references=[track for track in references if variable in track.own],
            published=self._published(variable),
            logarithmic=self.logarithmic,
        )

    def tables(self, name: str) -> dict[str, drawn.Table]:
        """The tables of a gauge as things stand, differences of twins included, by the name of their data."""
        gauge = self.gauge_named(name)
        variable, shown = self.source.variables[gauge.variable], self.seen(gauge.variable)
        tables = drawn.tables(gauge, variable, shown)
        if gauge.kind == "curve" and drawn.has_differences(shown.tracks):
            tables |= drawn.difference_tables(gauge, variable, shown)
        return tables

    def _overlay(self) -> None:
        """Draw what is published from the start, where some of it is of the very setting that is to be seen."""
        if any(p.knobs and self._is_of_this(p) for p in self.study.published):
            self.compared.add("published")

    def _is_of_this(self, published: Published) -> bool:
        return published.knobs.items() <= self.source.track.row.items()

    def _published(self, variable: str) -> list[Level]:
        found = [p for p in self.study.published if p.variable == variable and self._is_of_this(p)]
        return [Level(f"{p.text} ({p.source})", p.value, step=p.step) for p in found] if "published" in self.compared else []

    def glance(self) -> list[str]:
        """What is happening in the selected branch, in words."""
        known = {g.name: g for g in self.gauges.values() if g.variable in self.source.track.variables}
        curves = [g for g in known.values() if g.kind == "curve" and (g in self.study.gauges or g.name in self.shown)]
        return at_a_glance(self.source.track, curves, self.source.variables, self.source.step)

    def state(self) -> dict[str, Any]:
        """All that a front shows beside the charts, as plain values."""
        here, guess = self.source, self.guess
        return {
            "replay": self.is_replay,
            "device": self.device,
            "running": self.running,
            "working": None if self.work is None else {"from": self.origin, "goal": self.goal, "reached": self.reached},
            "step": here.step,
            "end": here.steps if self.is_replay else here.track.step,
            "past": here.cursor is not None,
            "limit": self.limit,
            "knobs": dict(here.row),
            "pending": dict(self.pending),
            "seeds": len(here.track.seeds),
            "branches": [self._branch(track, depth) for track, depth in self._in_order()],
            "kept": here.kept(here.selected),
            "memory": "" if self.is_replay else words.of_memory(len(here.shelf.states), here.shelf.bytes, here.shelf.budget),
            "glance": self.glance(),
            "message": self.message,
            "problem": self.problem,
            "offer": self.offer and {"text": self.offer.text, "ways": list(self.offer.ways)},
            "predicting": self.predicting,
            "guess": guess and self._guessed(guess),
            "bands": self.bands,
            "compared": sorted(self.compared),
            "pins": [pin.name for pin in self.pins],
            "shipped": self._nearest_shipped().name if "shipped" in self.compared else "",
            "shown": [name for name in self.gauges if name in self.shown],
            "logarithmic": [name for name, is_on in self.logarithmic.items() if is_on],
        }

    def choices(self) -> list[dict[str, Any]]:
        """The gauges to choose from, and what measuring them costs."""
        return [
            {"name": g.name, "title": title_of(g, self.source.variables[g.variable]), "kind": g.kind, "cost": self._cost(g)}
            for g in self.gauges.values()
        ]

    def _begin(self, row: Mapping[str, Any], seeds: int, *, alone: bool = False) -> None:
        tracks = self.source.tracks
        untouched = [n for n, t in tracks.items() if t.step == 0 and not any(other.parent is t for other in tracks.values())]
        alone = alone or len(untouched) == len(tracks)
        if not alone and not self.is_replay:
            self._has_room(len(tracks) - len(untouched))
        self.source.begin(row, range(seeds), alone=alone)
        if not alone and not self.is_replay:
            for number in untouched:
                self.source.forget(number)
        self.running, self.offer, self.guess, self.message, self.problem, self.work = False, None, None, "", "", None
        self.pending = {}

    def _spent(self, knobs: Mapping[str, Any]) -> str:
        """A knob among these whose stretch of steps is over, so that changing it does nothing any more."""
        row, step, known = self.source.row, self.source.step, self.source.knobs
        for name in (name for name in knobs if name in known and known[name].begins and step > 0 and not self.is_replay):
            value, begins = known[name].check(knobs[name]), known[name].begins
            start = known[begins].check(knobs.get(begins, row[begins]))
            if value != row[name] and step >= start + max(row[name], value):
                return name
        return ""

    def _offered(self, name: str, value: Any) -> Offer:
        spec, row, step = self.source.knobs[name], self.source.row, self.source.step
        value = spec.check(value)
        ways: dict[str, Callable[[], Any]] = {}
        if value:
            ways["warm up again from here" if name == "warmup" else f"{name} again from here"] = lambda: self.set(
                **{name: value, spec.begins: self.source.step}
            )
        ways["twin from step 0"] = lambda: self._twin_from_start({name: value})
        ways["next run"] = lambda: self._next({name: value})
        over = row[spec.begins] + row[name]
        was = f"The {spec.name} was over at step {over}" if row[name] else f"This run began without {spec.name}"
        return Offer(f"{was}; {word(value)} {spec.units}s now, at step {step}, would change nothing.", ways)

    def _twin_from_start(self, knobs: Mapping[str, Any]) -> None:
        self._has_room()
        was_running = self.running
        self.running, self.goal, self.origin, self.reached = False, 0, 0, 0

        def arriving() -> Iterator[int]:
            yield from self.source.travel(0)
            self.twin(**knobs)
            self.running = was_running

        self.work = arriving()

    def _next(self, knobs: Mapping[str, Any]) -> None:
        self.pending |= knobs
        self.message = f"{', '.join(f'{k} {word(v)}' for k, v in self.pending.items())} from the next reset on."

    def _said(self, before: Mapping[str, Any], was: int, step: int) -> str:
        here = self.source
        changes = [Change(0, step, name, before[name], new) for name, new in here.row.items() if before.get(name) != new]
        if self.is_replay or not changes:
            return ""
        if here.selected != was and here.track.parent is None:
            fixed = ", ".join(c.knob for c in changes)
            return f"{here.track.name} begins at step 0: {fixed} cannot change while a run trains. The others rest."
        if step == 0 and here.track.parent is None:
            return ""
        where = f"{here.track.name} leaves {here.tracks[was].name} at step {step}: " if here.selected != was else ""
        said = f"{where}{words.changed(changes)} from step {step} on."
        return f"{said} {words.of_switch(here.carried)}" if here.carried else said

    def _arriving(self, way: Iterator[int], step: int) -> Iterator[int]:
        yield from way
        if not self.is_replay and self.source.cursor is not None:
            self.message = f"{self.source.track.name} stands at step {step} again; what you change here begins a branch."

    def _asks(self) -> bool:
        """Whether a question comes first: it is asked before the first step, and has to be answered."""
        if self.asking:
            raise InputError("Answer the question first, or switch 'predict first' off.")
        if self.predicting and self.source.step == 0 and self.guess is None:
            self.guess = Guess(self.study.predictions[0])
        return self.asking

    def _to_the_end(self) -> None:
        """Where one has gone back and changed nothing there is nothing to train again."""
        if self.source.cursor is not None:
            self.message = f"Nothing was changed at step {self.source.cursor}, so this is the same run: it goes on from its end."
            self.source.select(self.source.selected)

    def _wake(self) -> None:
        """Nothing may train where everything rests: then the selected branch goes on."""
        if not self.source.training:
            self._wake_selected()

    def _wake_failed(self) -> None:
        """Try again what raised an exception and has rested since."""
        if not self.is_replay and self.problem and self.source.failed in self.source.tracks:
            self.source.rest(self.source.failed, False)

    def _wake_selected(self) -> None:
        if not self.is_replay and self.source.selected in self.source.resting:
            self.source.rest(self.source.selected, False)

    def _has_room(self, taken: int | None = None) -> None:
        if (len(self.source.tracks) if taken is None else taken) >= MOST_TRACKS:
            raise InputError(f"There are {MOST_TRACKS} branches, as many as colours tell apart; remove one first.")

    def _judge(self, guess: Guess) -> None:
        if guess.branch not in self.source.tracks:
            self.guess = None
            return
        guess.outcome = int(guess.asked.outcome(self.source.selection() if self.is_replay else self._written(guess.branch)))

    def _reached(self, guess: Guess) -> bool:
        """Whether the branch that was guessed about is where it can be judged, or is gone."""
        if self.is_replay or guess.branch not in self.source.tracks:
            return self.source.step >= guess.until or not self.is_replay
        return self.source.tracks[guess.branch].step >= guess.until

    def _guessed(self, guess: Guess) -> dict[str, Any]:
        return {
            "question": guess.asked.question,
            "answers": list(guess.asked.answers),
            "answer": guess.answer,
            "outcome": guess.outcome,
            "until": guess.until,
        }

    def _measure(self) -> None:
        """Measure what the shown gauges need, and what costs nothing."""
        if not self.is_replay:
            wanted = {self.gauges[name].variable for name in self.shown}
            offered = self.source.offered
            standard = {p.name for p in self.study.probes if p.cost == "free"}
            self.source.measure([name for name in offered if name in wanted | standard])

    def _cost(self, gauge: Gauge) -> str:
        return "" if self.is_replay else self.source.offered[gauge.variable].cost

    def gauge_named(self, name: str) -> Gauge:
        """The gauge of this name; InputError with the nearest names if there is none."""
        if not isinstance(name, str) or name not in self.gauges:
            raise unknown("gauge", name, self.gauges)
        return self.gauges[name]

    def _nearest_shipped(self) -> Track:
        """The setting of the shipped record that is nearest to the knobs now."""
        if self._shipped is None:
            self._shipped = Shipped(self.study, self.source.knobs, self.source.variables)
        return self._shipped.nearest(self.source.row)

    def _in_order(self) -> list[tuple[Track, int]]:
        """Branches below the one they left, with their depth."""
        tracks = list(self.source.tracks.values())

        def below(parent: Track | None, depth: int) -> list[tuple[Track, int]]:
            return [each for t in tracks if t.parent is parent for each in ((t, depth), *below(t, depth + 1))]

        return below(None, 0)

    def _branch(self, track: Track, depth: int) -> dict[str, Any]:
        here = self.source
        return {
            "number": track.number,
            "name": track.name,
            "depth": depth,
            "colour": drawn.colour(track),
            "start": track.start,
            "step": min(track.step, here.at) if self.is_replay else track.step,
            "selected": track.number == here.selected,
            "resting": track.number in here.resting,
            "lost": bool((track.diverged >= 0).all()),
            "words": words.of_branch(track, here.knobs),
            "changes": sorted({c.step for c in track.changes if c.step >= track.start}),
            "removable": len(here.tracks) > 1 and not any(t.parent is track for t in here.tracks.values()),
        }


def _step_of(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"The step is {value!r}; give a whole number.")
    return int(value)


COMMANDS: Sequence[str] = (
    "run", "pause", "step", "reset", "preset", "seeds", "load", "set", "default", "twin", "back", "latest", "select", "rest",
    "forget", "pin", "unpin", "show", "scale", "band", "compare", "speed", "predict", "answer", "choose", "dismiss", "save",
)  # fmt: skip
