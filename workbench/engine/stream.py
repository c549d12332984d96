"""The engine as a generator: plan a design, then yield what its runs measure, stretch by stretch."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import Any, Literal

import torch
from torch import Tensor

from .. import noise
from ..knobs import specs
from ..schema import Progress, Schema, Slab, Variable
from ..study import Study, phase_starts
from . import memory
from .chunks import Chunk, Setting
from .cohorts import Cohort, cohorts_of
from .lanes import LAYOUTS, Layout, Looped, Vectorised, cast, size_in_bytes
from .threads import leave_a_core

FIRST_STRETCH, LONGEST_STRETCH, TARGET_SECONDS = 10, 200, 0.3
_ONE_AT_A_TIME = RLock()


@dataclass(frozen=True)
class Kept:
    """The states of some runs before update `step`, with their knobs and labels."""

    step: int
    runs: tuple[int, ...]
    states: tuple[Any, ...]


@dataclass
class Plan:
    """A design made ready to run: its cohorts, and the schema of the record it will fill."""

    study: Study
    cohorts: Sequence[Cohort]
    schema: Schema
    setting: Setting
    mode: Literal["auto", "lanes", "loop"]
    budget: int
    start: int = 0
    states: Mapping[int, Any] = field(default_factory=dict)
    layouts: dict[int, str] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.schema.rows)


def plan(
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    steps: int,
    *,
    probes: Sequence[str] = (),
    mode: Literal["auto", "lanes", "loop"] = "auto",
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    memory_budget: int | None = None,
    start: int = 0,
    states: Mapping[int, Any] | None = None,
) -> Plan:
    """Group the rows into cohorts and work out the record's schema; trains nothing.

    `memory_budget` is in bytes (default: half of what is free). With `start` and `states` (one per run) the runs go on from there.
    """
    leave_a_core()
    device = device or torch.device("cpu")
    measured = study.probes_named(probes)
    with _ONE_AT_A_TIME:
        cohorts = cohorts_of(study, rows, measured, device, dtype)
    schema = Schema(
        rows=rows,
        columns={name: dict(units=spec.units, long_name=spec.doc) for name, spec in specs(study.knobs).items()},
        variables=[Variable(p.name, p.every, p.dims, p.dtype, p.attrs) for p in measured],
        labels=_union([cohort.labels for cohort in cohorts]),
        phases=phase_starts(study.phases, steps),
        start=start,
        stop=steps,
        attrs={},
    )
    budget = memory_budget if memory_budget is not None else memory.default_budget(device)
    return Plan(study, cohorts, schema, Setting(steps, device, dtype), mode, budget, start, states or {})


def stream(plan: Plan, *, keep: int | None = None, until: int | None = None) -> Iterator[Slab | Progress | Kept]:
    """Train all runs of a plan side by side; yields slabs of measured numbers, progress, and states at multiples of `keep`.

    With `until` it stops before that update, and yields the states there.
    """
    with _ONE_AT_A_TIME, torch.no_grad():
        chunks = [chunk for cohort in plan.cohorts for chunk in chunks_of(plan, cohort)]
    step, length, end = plan.start, FIRST_STRETCH, plan.setting.steps if until is None else until
    while True:
        if (keep and step % keep == 0) or step == until:
            yield from (Kept(step, chunk.runs, chunk.run_states()) for chunk in chunks)
        if step == end:
            return
        stop = min(_aligned(step, length, keep), end)
        began = time.perf_counter()
        chunks = yield from _advance_all(chunks, step, stop)
        length = _next_length(length, time.perf_counter() - began)
        step = stop


def _advance_all(chunks: list[Chunk], start: int, stop: int) -> Iterator[Any]:
    waiting = [(chunk, start) for chunk in chunks]
    done: list[Chunk] = []
    while waiting:
        chunk, first = waiting.pop(0)
        yield from _locked(chunk.advance(first, stop))
        if chunk.out_of_memory_at is None:
            done.append(chunk)
            continue
        if chunk.setting.device.type == "cuda":
            torch.cuda.empty_cache()
        waiting[:0] = [(half, chunk.out_of_memory_at) for half in chunk.halves()]
    return done


def _locked(items: Iterator[Any]) -> Iterator[Any]:
    """Taps live in one module-level list, so two threads must not trace or step at the same time."""
    while True:
        with _ONE_AT_A_TIME, torch.no_grad():
            item = next(items, None)
        if item is None:
            return
        yield item


def chunks_of(plan: Plan, cohort: Cohort) -> list[Chunk]:
    """The runs of a cohort at their start, in chunks whose steps fit the plan's memory budget."""
    runs = len(cohort.runs)
    layout = _layout(plan, cohort)
    plan.layouts.update(dict.fromkeys(cohort.runs, layout.name))
    size = _chunk_size(plan, chunk_of(plan, cohort, range(1), layout)) if runs > 1 else 1
    return [chunk_of(plan, cohort, range(i, min(i + size, runs)), layout) for i in range(0, runs, size)]


def chunk_of(plan: Plan, cohort: Cohort, positions: Sequence[int], layout: Layout) -> Chunk:
    """Some runs of a cohort at their start."""
    # States are made here, chunk by chunk: beside those that stand, never more than one chunk's are held twice.
    given = {i: plan.states[cohort.runs[i]] for i in positions if cohort.runs[i] in plan.states}
    states = [given[i] if i in given else initial_state(cohort, i, plan.setting) for i in positions]
    return Chunk(cohort, positions, states, layout, plan.setting)


def _chunk_size(plan: Plan, alone: Chunk) -> int:
    """How many lanes like the one of `alone` to advance at once."""
    runs, at_rest = len(alone.cohort.runs), size_in_bytes(alone.states)
    in_flight = memory.peak_bytes(lambda: alone.step(plan.setting.steps))  # at the end every clock fires
    return memory.chunk_size(runs, at_rest, in_flight, plan.budget - (plan.runs - runs) * at_rest)


def initial_state(cohort: Cohort, position: int, setting: Setting) -> Any:
    """The state of one run before its first step."""
    key = noise.fold(noise.key_of(cohort.seeds[position], device=setting.device), "init")
    lanes = {name: _number(values[position], cohort, setting) for name, values in cohort.lanes.items()}
    with setting.device:
        return cast(cohort.study.learner.init(key, cohort.knobs.filled(lanes), cohort.shared), setting.dtype)


def _number(value: Any, cohort: Cohort, setting: Setting) -> Tensor | Any:
    return torch.tensor(value, dtype=setting.dtype, device=setting.device) if getattr(cohort.study.learner, "lanes", True) else value


def _layout(plan: Plan, cohort: Cohort) -> Layout:
    if not getattr(cohort.study.learner, "lanes", True) or (len(cohort.runs) == 1 and plan.mode == "auto"):
        return Looped
    if plan.mode != "auto":
        return LAYOUTS[plan.mode]
    few = range(min(8, len(cohort.runs)))
    seconds = {layout: _seconds(partial(chunk_of, plan, cohort, few, layout)) for layout in (Vectorised, Looped)}
    return min(seconds, key=seconds.__getitem__)


def _seconds(make: Callable[[], Chunk], repeats: int = 3) -> float:
    """Seconds of the fastest of some updates, of which nothing is kept; infinite where they do not fit into memory."""
    best = math.inf
    try:
        chunk = make()
        for _ in range(repeats):
            began = time.perf_counter()
            chunk.step(1)
            if chunk.setting.device.type == "cuda":
                torch.cuda.synchronize(chunk.setting.device)
            best = min(best, time.perf_counter() - began)
    except torch.OutOfMemoryError:
        pass
    return best


def _aligned(step: int, length: int, keep: int | None) -> int:
    stop = step - step % 10 + max(10, length)
    return min(stop, step - step % keep + keep) if keep else stop


def _next_length(length: int, seconds: float) -> int:
    if seconds < TARGET_SECONDS / 2:
        return min(2 * length, LONGEST_STRETCH)
    return max(FIRST_STRETCH, length // 2) if seconds > 2 * TARGET_SECONDS else length


def _union(all_labels: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, list[Any]]:
    union: dict[str, dict[Any, None]] = {}
    for labels in all_labels:
        for dim, values in labels.items():
            union.setdefault(dim, {}).update(dict.fromkeys(values))
    return {dim: sorted(values) if all(isinstance(v, int) for v in values) else list(values) for dim, values in union.items()}


def fastest_device(plans: Sequence[Plan]) -> torch.device:
    """The device of the plan whose first cohort makes an update in the least time."""
    with _ONE_AT_A_TIME, torch.no_grad():
        seconds = [_seconds(lambda each=each: chunks_of(each, each.cohorts[0])[0]) for each in plans]
    return plans[seconds.index(min(seconds))].setting.device
