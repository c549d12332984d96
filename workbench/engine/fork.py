"""Forks: the same weights, moments and data, one knob changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import xarray as xr

from ..catalogue import find
from ..design import Design, axes
from ..errors import InputError, unknown
from ..knobs import specs
from ..progress import ProgressBar
from ..record import blank, clocks_of, fill, timeline, with_events
from ..schema import Change, Progress, Slab
from ..study import Study
from . import checkpoints, devices
from .adapting import adapted, switched
from .choice import choose, is_compiled
from .cohorts import Cohort
from .draws import Draws
from .plans import Choice, Plan, plan
from .provenance import computation, provenance
from .run import DTYPES
from .step import initial_states
from .stream import Kept, stream

PARENT, CHILD = 0, 1


@dataclass(frozen=True)
class Past:
    """One run of a record: its knobs at step 0, what was changed since, and how it was computed."""

    study: Study
    run: int
    row: Mapping[str, Any]
    changes: Sequence[Change]
    steps: int
    choice: Choice
    device: torch.device
    dtype: torch.dtype
    probes: tuple[str, ...]
    clocks: Mapping[str, int]
    identity: str

    def row_for(self, update: int) -> dict[str, Any]:
        """The knobs with which update number `update` is made."""
        return self.row_before(update + 1)

    def row_before(self, update: int) -> dict[str, Any]:
        """The knobs that the state before update number `update` comes from."""
        return dict(self.row) | {c.knob: c.new for c in self.changes if c.step < update}

    def adapted(self, state: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Any:
        """Its state carried from one row of knobs to another."""
        return adapted(self.study, state, before, after, self.device, self.dtype)

    def plan(self, rows: Sequence[Mapping[str, Any]], steps: int, **settings: Any) -> Plan:
        """A plan of runs that are computed as this one was; but not compiled where that would have to be done first."""
        of_all = dict(mode=self.choice.layout.name, device=self.device, dtype=self.dtype, probes=self.probes, clocks=self.clocks)
        ready = plan(self.study, rows, steps, **of_all, **settings)
        if is_compiled(ready, self.choice) and all(map(self._draws_alike, ready.cohorts)):
            ready.choices = [self.choice] * len(ready.cohorts)
        return ready

    def _draws_alike(self, cohort: Cohort) -> bool:
        """Whether its runs have one batch if the compiled step takes it that they do."""
        return not self.choice.shared or Draws(cohort, range(len(cohort.runs)), self.dtype, self.device).shared


def fork(
    record: xr.DataTree,
    run: int,
    step: int,
    *,
    study: Study | None = None,
    steps: int | None = None,
    progress: bool | None = None,
    **knobs: Any,
) -> tuple[xr.DataTree, xr.DataTree]:
    """Branch a run before update `step`: parent and child go on from the same state on the same data, the child with other knobs.

    Returns two records over the steps from `step` to the parent's end (or `steps`). The state comes from a kept checkpoint, else
    by training the parent again from the nearest earlier one, with a progress bar. The parent's attribute `deviation` holds, per
    variable, its largest absolute difference from the curve in `record` (0 where arithmetic repeats exactly). `study` is needed
    for one that is not part of the package. Raises InputError for a run, step or knob that cannot be forked.
    """
    past = past_of(record, run, step, study)
    stop = past.steps if steps is None else steps
    if stop <= step:
        raise InputError(f"steps is {stop}, which is not after the fork at step {step}; give a larger number.")
    if later := [c for c in past.changes if step < c.step < stop]:
        raise InputError(
            f"Knob {later[0].knob!r} of run {run} was changed at step {later[0].step}, after the fork at step {step}; "
            f"fork at that step or later, or up to it with steps={later[0].step}."
        )
    before = past.row_for(step)
    after = before | _checked(past.study, knobs)
    switched(past.study, before, after)  # a refusal comes before the parent is trained again
    state = state_at(past, record.encoding.get("source"), step, progress)
    states = {PARENT: state, CHILD: past.adapted(state, before, after)}
    ready = past.plan([before, after], stop, start=step, states=states)
    choose(ready)
    ready.schema.attrs.update(provenance(past.study, ready) | computation(ready))
    both = blank(ready.schema)
    for item in stream(ready):
        if isinstance(item, (Slab, Progress)):
            fill(both, item)
    changed = [Change(0, step, name, before[name], after[name], parent=run) for name in after if after[name] != before[name]]
    parent, child = _alone(both, ready, PARENT, past, []), _alone(both, ready, CHILD, past, changed)
    parent.attrs["deviation"] = json.dumps(deviation(record, parent, run))
    return parent, child


def state_at(past: Past, source: str | None, step: int, progress: bool | None = None) -> Any:
    """The state of a past run before update `step`: kept, or computed again from the nearest earlier one."""
    state, at = _nearest(past, source, step)
    for turn in sorted({at, step, *(c.step for c in past.changes if at < c.step < step)}):
        if at < turn:
            state = _advanced(past, past.row_for(at), state, at, turn, progress)
        state, at = past.adapted(state, past.row_before(turn), past.row_for(turn)), turn
    return state


def deviation(record: xr.DataTree, again: xr.DataTree, run: int) -> dict[str, float]:
    """Per variable, the largest absolute difference of a run computed again from the same run of `record`."""
    out = {}
    for name in again.wb.variables:
        if name not in record.wb or "step" not in again.wb[name].dims:
            continue
        stored, new = record.wb[name].sel(run=run), again.wb[name].isel(run=0)
        stored, new = xr.align(stored.reset_coords(drop=True), new.reset_coords(drop=True), join="inner")
        out[name] = float(abs(stored - new).max()) if stored.size else float("nan")
    return out


def past_of(record: xr.DataTree, run: int, step: int, study: Study | None) -> Past:
    """What a record tells of one of its runs; InputError if it has no such run or step."""
    runs, steps, start = record["run"].values.tolist(), int(record.attrs["steps"]), int(record.attrs["start"])
    if run not in runs:
        raise InputError(f"There is no run {run}; the record has {_listed(runs)}.")
    if not start <= step < steps:
        raise InputError(f"Step {step} is outside the record, which trains from step {start} to {steps}; fork from {start} to {steps - 1}.")
    study = study or find(record.attrs["study"])
    changes = _changes(record, run)
    row = {name: spec.check(record[name].sel(run=run).values[()]) for name, spec in axes(study.knobs).items()}
    row |= {c.knob: c.old for c in reversed(changes) if c.step <= start}
    choice = next(Choice.of(entry) for entry in json.loads(record.attrs["layouts"]) if run in entry["runs"])
    device = devices.of_record(record)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"The record was made on {record.attrs['device']!r}, and there is no GPU here; fork it where there is one.")
    probes = tuple(p.name for p in study.optional_probes if p.name in record.wb)
    offered = {p.name for p in (*study.probes, *study.optional_probes)}
    clocks = {name: clock for name, clock in clocks_of(record).items() if name in offered}
    identity = record.attrs.get("identity", "")
    return Past(study, run, row, changes, steps, choice, device, DTYPES[record.attrs["dtype"]], probes, clocks, identity)


def _listed(runs: Sequence[int]) -> str:
    whole = list(runs) == list(range(runs[0], runs[-1] + 1)) and len(runs) > 1
    return f"runs {runs[0]} to {runs[-1]}" if whole else f"run{'s' * (len(runs) > 1)} {', '.join(map(str, runs))}"


def _changes(record: xr.DataTree, run: int) -> list[Change]:
    t = record["timeline"].to_dataset(inherit=False)
    columns = (t[name].values.tolist() for name in ("changed_run", "at_step", "knob", "old", "new", "parent"))
    found = [Change(r, s, k, json.loads(old), json.loads(new), p) for r, s, k, old, new, p in zip(*columns, strict=True) if r == run]
    return sorted(found, key=lambda c: c.step)


def _checked(study: Study, knobs: Mapping[str, Any]) -> dict[str, Any]:
    known = specs(study.knobs)
    for name, value in knobs.items():
        if name not in known:
            raise unknown("knob", name, known)
        if known[name].acts == "start":
            raise InputError(f"Knob {name!r} acts when a run begins and cannot be forked; begin a new run with {name}={value!r}.")
    return {name: known[name].check(value) for name, value in knobs.items()}


def _nearest(past: Past, source: str | None, step: int) -> tuple[Any, int]:
    first = past.plan([past.row_before(0)], past.steps)
    state = initial_states(first.cohorts[0], [0], first.setting)[0]
    kept = checkpoints.nearest(checkpoints.folder_of(source), [past.run], step, past.identity) if source else None
    if kept is None:
        return state, 0
    at, path = kept
    here = past.plan([past.row_before(at)], past.steps)
    return checkpoints.load_state(path, past.run, initial_states(here.cohorts[0], [0], here.setting)[0]), at


def _advanced(past: Past, row: Mapping[str, Any], state: Any, start: int, stop: int, progress: bool | None) -> Any:
    ready = past.plan([row], past.steps, start=start, states={0: state})
    with ProgressBar(1, start, stop, progress, label=f"run {past.run} again to step {stop}") as bar:
        for item in stream(ready, until=stop):
            if isinstance(item, Kept):
                return item.states[0]
            if isinstance(item, Progress):
                bar.update(item)
    raise AssertionError("a stream that stops early ends with the states there")


def _alone(both: xr.DataTree, ready: Plan, which: int, past: Past, changed: Sequence[Change]) -> xr.DataTree:
    nodes = {name: node.to_dataset(inherit=False) for name, node in both.children.items()}
    nodes = {name: node.isel(run=[which]) if "run" in node.dims else node for name, node in nodes.items()}
    root = both.to_dataset().isel(run=[which]).assign_coords(run=[0])
    nodes["timeline"] = timeline([*(replace(c, run=0) for c in past.changes), *changed])
    one = xr.DataTree.from_dict({"/": root, **{k: n.assign_coords(run=[0]) if "run" in n.dims else n for k, n in nodes.items()}})
    choice = next(choice for cohort, choice in zip(ready.cohorts, ready.choices, strict=True) if which in cohort.runs)
    one.attrs |= {"layouts": json.dumps([choice.entry([0])]), "design": Design(()).to_json()}
    return with_events(one, past.study.events)
