"""Experiments: runs that a person trains step by step, changes while they train, forks and goes back in, as a tree of branches.

Every branch trains by itself, never compiled and always in the same layout, so that on a CPU a twin with nothing changed is equal to the
last bit, and so is what is trained again from a kept state.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..errors import InputError, unknown
from ..history import Track
from ..knobs import Spec, specs
from ..schema import Change, Progress, Slab, Variable
from ..study import Phase, Study
from . import devices
from .adapting import Carried, adapted, carried, may_switch, switched
from .chunks import NOT_DIVERGED, Chunk
from .kept import Shelf, State
from .lanes import LAYOUTS, Layout, Looped
from .measuring import known
from .plans import Plan, chunk_of, plan
from .step import phase_at
from .stream import fastest_device
from .threads import ONE_AT_A_TIME, operations_on

MEMORY = 128 * 2**20
KEEP = 10
LONGEST = 100_000
RUN, TWIN, BRANCH = "new run", "twin", "branch"


class Experiment:
    """A tree of branches over one study, one of them selected; what is changed acts on that one.

    Going back puts the selected branch at an earlier step: what is changed there begins a new branch, and the old one stays as it is. Of
    the branches that are not resting those furthest behind advance first, so that they stay comparable. `memory` bounds the kept states,
    in bytes; `steps` is where a run ends at the latest.
    """

    def __init__(
        self,
        study: Study,
        row: Mapping[str, Any],
        seeds: Sequence[int] = (0,),
        *,
        steps: int = LONGEST,
        probes: Sequence[str] = (),
        measured: Sequence[str] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        memory: int = MEMORY,
    ) -> None:
        self.offered = {p.name: p for p in (*study.probes, *study.optional_probes)}
        names = [p.name for p in study.probes_named(probes)] if measured is None else measured
        self.study, self.steps, self.dtype = self._measuring(study, names), steps, dtype
        self.device = device or torch.device("cpu")
        self.knobs: Mapping[str, Spec] = specs(study.knobs)
        self.shelf = Shelf(memory)
        self.variables = {p.name: Variable(p.name, p.every, p.dims, p.dtype, p.attrs) for p in self.offered.values()}
        self.tracks: dict[int, Track] = {}
        self.resting: set[int] = set()
        self.carried: Carried | None = None
        self.failed: int | None = None
        self._chunks: dict[int, Chunk] = {}
        self._layouts: dict[int, Layout] = {}
        self._made = 0
        self.selected = self.begin(row, seeds)
        self.cursor: int | None = None

    @property
    def track(self) -> Track:
        """The selected branch."""
        return self.tracks[self.selected]

    @property
    def step(self) -> int:
        """The step at which the selected branch stands, or that it was put back to."""
        return self.track.step if self.cursor is None else self.cursor

    @property
    def row(self) -> Mapping[str, Any]:
        """The knobs of the next update at this step."""
        return self.track.row if self.cursor is None else self.track.row_at(self.cursor)

    @property
    def training(self) -> list[int]:
        """The branches that may advance."""
        return [n for n, track in self.tracks.items() if n not in self.resting and track.step < self.steps and not self._is_lost(track)]

    def begin(self, row: Mapping[str, Any], seeds: Sequence[int], *, alone: bool = False) -> int:
        """A new run from step 0, selected; the others rest, or are gone where it is to be `alone`."""
        chunk, layout, track = self._begun(dict(row), tuple(seeds))
        if alone:
            self._clear()
        self.resting |= set(self.tracks)
        self.carried = None
        return self._add(track, chunk, layout, State(0, chunk.run_states(), chunk.diverged.copy()))

    def _clear(self) -> None:
        for held in (self.tracks, self.resting, self._chunks, self._layouts):
            held.clear()
        self.shelf, self._made = Shelf(self.shelf.budget), 0

    def _restart(self, row: Mapping[str, Any]) -> None:
        """Other knobs for the selected run, which has made no update yet."""
        number, kind = self.selected, self.track.kind
        chunk, layout, track = self._begun(dict(row), self.track.seeds)
        track.number, track.name, track.kind = number, self.track.name, kind
        self.shelf.drop(number)
        self.tracks[number], self._chunks[number], self._layouts[number] = track, chunk, layout
        self._keep(number)
        self.carried = None

    def measure(self, names: Sequence[str]) -> None:
        """Measure these probes from now on, and no others."""
        study = self._measuring(self.study, names)
        if [p.name for p in study.probes] == [p.name for p in self.study.probes]:
            return
        self.study = study
        for number, track in self.tracks.items():
            track.labels = track.labels | self._renew(number)

    def advance(self) -> int:
        """One update of the branches that are furthest behind; the number of updates made. One that raises an exception rests."""
        training = self.training
        behind = [n for n in training if self.tracks[n].step == min(self.tracks[m].step for m in training)]
        self.cursor = None
        for number in behind:
            try:
                self._advance(number)
            except Exception as error:  # only noted; it is raised again
                self.failed = number
                self.resting.add(number)  # or it would stop the other branches at this step for ever
                error.add_note(f"{self.tracks[number].name} stands at step {self.tracks[number].step} and rests.")
                raise
        return len(behind)

    def change(self, /, **knobs: Any) -> Track:
        """Change knobs of the selected branch from its next update on; the track that has them.

        Before the first update of a run they are just set. It is a new branch where the selected one was put back, and a new run where a
        knob is fixed for a run. `carried` then says what became of the state. InputError for a value that is not valid or a state that
        cannot be adapted; nothing has changed then.
        """
        new = self._checked(knobs)
        if not new:
            self.carried = None
            return self.track
        if self._is_untouched:
            self._restart(dict(self.row) | new)
            return self.track
        if fixed := [name for name in new if self._is_fixed(name)]:
            first = dict(self.row) | new
            self.selected, self.cursor = self.begin(first, self.track.seeds), None
            self.track.kind = f"{RUN}: {fixed[0]} is fixed for a run"
            return self.track
        if self.cursor is not None:
            self.branch(**new)
            return self.track
        self._change(self.selected, new)
        return self.track

    def parts(self, /, **knobs: Any) -> bool:
        """Whether `change` of these knobs begins another branch or run; InputError for a value that is not valid."""
        new = self._checked(knobs)
        return bool(new) and not self._is_untouched and (self.cursor is not None or any(map(self._is_fixed, new)))

    def twin(self, /, **knobs: Any) -> Track:
        """Fork the selected branch where it stands; the copy, with these knobs changed, is selected, and the original goes on."""
        return self.branch(**knobs) if self.cursor is not None else self._fork(TWIN, self._arrived(self.selected), knobs)

    def branch(self, /, **knobs: Any) -> Track:
        """Branch off at the step that the selected branch was put back to; the new branch is selected."""
        owner, step = self._owner(self.step)
        return self._fork(BRANCH, self._arrived(self.selected) if self.cursor is None else self.shelf.states[owner.number, step], knobs)

    def travel(self, step: int) -> Iterator[int]:
        """Put the selected branch back to `step`, or to its end; yields the steps on the way where it has to train again."""
        if not 0 <= step <= self.track.step:
            raise InputError(
                f"Step {step} has not been reached; {self.track.name!r} stands at step {self.track.step}, go back to 0 to that."
            )
        return self._travel(step)

    def _travel(self, step: int) -> Iterator[int]:
        if step == self.track.step:
            self.cursor = None
            return
        owner, _ = self._owner(step)
        state = yield from self._again(owner, step)
        self.shelf.keep(owner.number, state, [*self._needed(), (owner.number, step)])
        self.cursor, self.carried = step, None

    def nearest(self, step: int) -> int:
        """The latest step not after `step` at which a state of the selected branch is kept."""
        owner, step = self._owner(step)
        return self.shelf.nearest(owner.number, step).step

    def kept(self, number: int) -> list[int]:
        """The steps at which states of a branch are kept, those before it left its parent included."""
        track, found = self.tracks[number], self.shelf.of(number)
        end = track.start
        for parent in track.ancestors:
            found = [step for step in self.shelf.of(parent.number) if step < end] + found
            end = min(end, parent.start)
        return found

    def select(self, number: int) -> None:
        """Select a branch; it stands at its end."""
        self._known(number)
        self.selected, self.cursor = number, None

    def rest(self, number: int, resting: bool) -> None:
        """Let a branch rest or go on."""
        self._known(number)
        (self.resting.add if resting else self.resting.discard)(number)

    def forget(self, number: int) -> None:
        """Let go of a branch that has no branches of its own and is not the only one."""
        self._known(number)
        if self._branches(number):
            raise InputError(f"{self.tracks[number].name!r} has branches of its own; remove these first.")
        if len(self.tracks) == 1:
            raise InputError(f"{self.tracks[number].name!r} is the only run; reset instead.")
        parent = self.tracks.pop(number).parent
        self.resting.discard(number)
        self._chunks.pop(number)
        self._layouts.pop(number)
        self.shelf.drop(number)
        if self.selected == number:
            self.selected, self.cursor = parent.number if parent else next(iter(self.tracks)), None

    def closing(self, number: int, stop: int) -> list[Slab | Progress]:
        """The last moment of a branch that stands at step `stop`, measured on every clock as if its run ended there."""
        track, state = self.tracks[number], self._now(number)
        chunk = self._chunk(track.row, track.seeds, state, self._layouts[number], steps=stop)
        last = Phase(phase_at(chunk.cohort, stop - 1, self.steps))
        chunk.cohort = replace(chunk.cohort, study=replace(self.study, phases=(last,)))
        with torch.no_grad(), operations_on(self.threads):
            return list(chunk.advance(stop, stop))

    def plan_of(self, tracks: Sequence[Track], steps: int) -> Plan:
        """A plan of the runs of some branches from step 0."""
        return self._plan([track.row_at(0) | {"seed": seed} for track in tracks for seed in track.seeds], steps)

    def layout_of(self, number: int) -> Layout:
        """The layout that the runs of a branch train in."""
        return self._layouts[number]

    @property
    def _is_untouched(self) -> bool:
        """Whether the selected run has made no update, and nothing has branched off it."""
        return self.track.step == 0 and self.track.parent is None and not self._branches(self.selected)

    def _branches(self, number: int) -> list[Track]:
        return [track for track in self.tracks.values() if track.parent is self.tracks[number]]

    def _checked(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        for name in knobs:
            if name not in self.knobs:
                raise unknown("knob", name, self.knobs)
        new = {name: self.knobs[name].check(value) for name, value in knobs.items()}
        return {name: value for name, value in new.items() if value != self.row[name]}

    def _known(self, number: int) -> None:
        if not isinstance(number, int) or number not in self.tracks:
            raise InputError(f"There is no branch {number}; there are {', '.join(map(str, self.tracks))}.")

    def _is_fixed(self, name: str) -> bool:
        spec = self.knobs[name]
        return spec.acts == "start" or (not spec.is_lane and not may_switch(self.study, spec))

    def _is_lost(self, track: Track) -> bool:
        return bool((track.diverged != NOT_DIVERGED).all())

    @property
    def threads(self) -> int:
        """Cores that an operation takes."""
        return torch.get_num_threads()

    def _begun(self, row: dict[str, Any], seeds: tuple[int, ...]) -> tuple[Chunk, Layout, Track]:
        layout = Looped
        if len(seeds) > 1 and getattr(self.study.learner, "lanes", True):
            several = self._plan([row | {"seed": seed} for seed in seeds])
            with torch.no_grad(), ONE_AT_A_TIME:
                eager = known(several, several.cohorts[0]).eager
            layout = LAYOUTS[min(eager, key=eager.__getitem__)]
        nothing = State(0, (), np.full(len(seeds), NOT_DIVERGED))
        chunk = self._chunk(row, seeds, nothing, layout)
        track = Track(0, "", RUN, seeds, row, row, self.variables, self._labels(chunk), diverged=nothing.diverged)
        return chunk, layout, track

    def _measuring(self, study: Study, names: Sequence[str]) -> Study:
        """The study with these probes and no others by default."""
        for name in names:
            if name not in self.offered:
                raise unknown("probe", name, self.offered)
        chosen = tuple(p for name, p in self.offered.items() if name in names)
        return replace(study, probes=chosen, optional_probes=tuple(p for p in self.offered.values() if p not in chosen))

    def _renew(self, number: int) -> dict[str, Sequence[Any]]:
        """Put the chunk of a branch together anew where it stands; the labels of what it measures."""
        track = self.tracks[number]
        chunk = self._chunks[number] = self._chunk(track.row, track.seeds, self._now(number), self._layouts[number])
        return self._labels(chunk)

    def _labels(self, chunk: Chunk) -> dict[str, Sequence[Any]]:
        """Labels of the dimensions of what can be measured."""
        used = {dim for p in self.offered.values() for dim in p.dims}
        return {dim: labels for dim, labels in chunk.cohort.labels.items() if dim in used}

    def _add(self, track: Track, chunk: Chunk, layout: Layout, state: State) -> int:
        self._made += 1
        track.number, track.name = self._made, f"{track.kind.removeprefix('new ')} {self._made}"
        self.tracks[self._made], self._chunks[self._made], self._layouts[self._made] = track, chunk, layout
        self.shelf.keep(track.number, state, self._needed())
        self.selected, self.cursor = track.number, None
        return track.number

    def _plan(self, rows: Sequence[Mapping[str, Any]], steps: int | None = None, **going_on: Any) -> Plan:
        return plan(self.study, rows, steps or self.steps, device=self.device, dtype=self.dtype, **going_on)

    def _chunk(self, row: Mapping[str, Any], seeds: Sequence[int], state: State, layout: Layout, steps: int | None = None) -> Chunk:
        rows = [dict(row) | {"seed": seed} for seed in seeds]
        ready = self._plan(rows, steps, start=state.step, states=dict(enumerate(state.runs)))
        with torch.no_grad(), ONE_AT_A_TIME:
            chunk = chunk_of(ready, ready.cohorts[0], range(len(rows)), layout)
        chunk.diverged = state.diverged.copy()
        return chunk

    def _advance(self, number: int) -> None:
        track, chunk = self.tracks[number], self._chunks[number]
        try:
            with torch.no_grad(), operations_on(self.threads):
                for item in chunk.advance(track.step, track.step + 1):
                    _take(track, item)
        except torch.OutOfMemoryError as error:
            raise InputError("This net does not fit into memory; take a smaller one.") from error
        if chunk.out_of_memory_at is not None:
            raise InputError(f"{len(track.seeds)} seeds of this net do not fit into memory; take fewer seeds or a smaller net.")
        if track.step % KEEP == 0 or self._is_lost(track):
            self._keep(number)

    def _now(self, number: int) -> State:
        return State(self.tracks[number].step, self._chunks[number].run_states(), self.tracks[number].diverged.copy())

    def _arrived(self, number: int) -> State:
        """The state of a branch as its last update left it; where a static knob has been switched since, it has been kept."""
        return self.shelf.states.get((number, self.tracks[number].step)) or self._now(number)

    def _keep(self, number: int) -> None:
        self.shelf.keep(number, self._now(number), self._needed())

    def _needed(self) -> list[tuple[int, int]]:
        """The states without which some step could not be reached, or a branch not be forked again where it was."""
        firsts = [(track.number, track.start) for track in self.tracks.values()]
        return firsts + [(track.parent.number, track.start) for track in self.tracks.values() if track.parent]

    def _owner(self, step: int) -> tuple[Track, int]:
        """The branch that made this step of the selected one, and the step."""
        track = self.track
        while track.parent is not None and step < track.start:
            track = track.parent
        return track, step

    def _change(self, number: int, new: Mapping[str, Any]) -> None:
        track, arrived = self.tracks[number], self._arrived(number)
        after = dict(track.row) | new
        state, became = self._turned(track, arrived, after)
        chunk = self._chunk(after, track.seeds, state, self._layouts[number])
        labels = self._labels(chunk)
        if any(labels[dim] != track.labels[dim] for name in track.own for dim in self.variables[name].dims):
            self._fork(BRANCH, arrived, new)  # what is measured from here on has other dimensions: of another set of tensors, say
            self.resting.add(number)
            return
        track.changes = _with_changes(track.changes, track.step, track.row, new)
        track.row, track.labels, self._chunks[number], self.carried = after, labels, chunk, became
        if state is not arrived:
            self.shelf.keep(number, arrived, self._needed())

    def _fork(self, kind: str, state: State, knobs: Mapping[str, Any]) -> Track:
        source, owner = self.track, self._owner(state.step)[0]
        before, new = source.row_at(state.step), self._checked(knobs)
        if fixed := [name for name in new if self._is_fixed(name)]:
            raise InputError(f"Knob {fixed[0]!r} is fixed for a run, so a fork cannot differ in it; begin a new run.")
        after = before | new
        turned, became = self._turned(source, state, after)
        chunk = self._chunk(after, source.seeds, turned, self._layouts[source.number])
        past = [c for c in source.changes if c.step <= state.step]
        track = replace(source, kind=kind, start=state.step, parent=owner, step=state.step, row=after, own={}, labels=self._labels(chunk))
        track.changes = _with_changes(past, state.step, before, new)
        track.diverged = state.diverged.copy()
        self._add(track, chunk, self._layouts[source.number], state)
        self.shelf.keep(owner.number, state, self._needed())
        self.carried = became
        return track

    def _turned(self, track: Track, arrived: State, after: Mapping[str, Any]) -> tuple[State, Carried | None]:
        """The states that came to a step of a branch, under other knobs; and what became of them if that switches a static one.

        However often a knob is changed at a step, the state is adapted once, from what it came with: changing back leaves no trace.
        """
        came, here = track.row_before(arrived.step), track.row_at(arrived.step)
        state = self._adapted(track, arrived, came, after)
        if not switched(self.study, here, after):
            return state, None
        return state, carried(self._adapted(track, arrived, came, here).runs[0], state.runs[0])

    def _adapted(self, track: Track, state: State, before: Mapping[str, Any], after: Mapping[str, Any]) -> State:
        """The states of a branch under other knobs; the same ones if no static knob differs."""
        if not switched(self.study, before, after):
            return state
        rows = [({**before, "seed": seed}, {**after, "seed": seed}) for seed in track.seeds]
        with ONE_AT_A_TIME:
            runs = [adapted(self.study, run, *row, self.device, self.dtype) for run, row in zip(state.runs, rows, strict=True)]
        return replace(state, runs=tuple(runs))

    def _again(self, owner: Track, step: int) -> Generator[int, None, State]:
        """Train a branch again from the nearest kept state to `step`; yields each step reached, returns the state that comes there."""
        state = self.shelf.nearest(owner.number, step)
        turns = sorted({state.step, step, *(c.step for c in owner.changes if state.step < c.step <= step)})
        for at, turn in pairwise(turns):
            state = self._adapted(owner, state, owner.row_before(at), owner.row_at(at))
            chunk = self._chunk(owner.row_at(at), owner.seeds, state, self._layouts[owner.number])
            for here in range(at, turn):
                with torch.no_grad(), operations_on(self.threads):
                    list(chunk.advance(here, here + 1))
                yield here + 1
            state = State(turn, chunk.run_states(), chunk.diverged.copy())
        return state


def _with_changes(changes: Sequence[Change], step: int, before: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The changes with those of `new` at `step`; a knob changed again before the step was made has one entry, or none if it is back."""
    earlier = {c.knob: c for c in changes if c.step == step and c.knob in new}
    out = [c for c in changes if c not in earlier.values()]
    for name, value in new.items():
        old = earlier[name].old if name in earlier else before[name]
        if old != value:
            out.append(Change(0, step, name, old, value))
    return out


def _take(track: Track, item: Slab | Progress) -> None:
    if isinstance(item, Progress):
        track.step, track.diverged = item.done, np.array(item.diverged)
        return
    for name, values in item.values.items():
        for i, step in enumerate(item.steps):
            track.add(name, step, values[:, i])


def device_for(study: Study, row: Mapping[str, Any], seeds: Sequence[int], name: str) -> torch.device:
    """The device of this name; for `auto` the one that makes a step of these runs in the least time."""
    if name != "auto":
        return devices.usable(name, "auto or cpu")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rows = [dict(row) | {"seed": seed} for seed in seeds]
    return fastest_device([plan(study, rows, LONGEST, device=torch.device(place)) for place in ("cpu", "cuda")])


def horizon(study: Study) -> int:
    """Where an experiment ends at the latest: far away, unless phases divide the run."""
    return LONGEST if len(study.phases) == 1 else max(budget.steps for budget in study.budgets.values())
