"""Plans: a design made ready to run. Its cohorts, the schema of the record it will fill, and the chunks it trains in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..knobs import specs
from ..schema import Schema, Variable
from ..study import Study, phase_starts
from . import memory
from .chunks import NOT_DIVERGED, Chunk
from .cohorts import Cohort, cohorts_of
from .lanes import LAYOUTS, Layout
from .programs import Part, Programs
from .step import Setting, initial_states
from .threads import ONE_AT_A_TIME, allowed, leave_a_core


@dataclass(frozen=True)
class Choice:
    """How a cohort trains: `together` runs at once in this layout, operations on `threads` cores.

    The parts of their step in `compiled` are compiled, for lanes that all have one batch if it is `shared`.
    """

    layout: Layout
    together: int
    threads: int
    compiled: tuple[Part, ...] = ()
    shared: bool = False

    def entry(self, runs: Sequence[int]) -> dict[str, Any]:
        """The choice for these runs, ready for JSON."""
        return {**vars(self), "layout": self.layout.name, "runs": list(runs)}

    @staticmethod
    def of(entry: Mapping[str, Any]) -> "Choice":
        """The choice of an entry."""
        compiled = tuple(Part(*part) for part in entry["compiled"])
        return Choice(LAYOUTS[entry["layout"]], entry["together"], entry["threads"], compiled, entry["shared"])

    def parts(self, runs: int) -> list[range]:
        """The places of a cohort's runs, chunk by chunk."""
        return [range(i, min(i + self.together, runs)) for i in range(0, runs, self.together)]


@dataclass
class Plan:
    """A design made ready to run. `budget` is the memory to use, in bytes.

    `states` are those of runs that go on, from `start` or from where each has `reached`; `diverged` is when one did. `choices`, one a
    cohort, and the number of chunks that train at once, `workers`, are made by `choice.choose`.
    """

    study: Study
    cohorts: Sequence[Cohort]
    schema: Schema
    setting: Setting
    mode: str
    budget: int
    start: int = 0
    states: dict[int, Any] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    diverged: dict[int, int] = field(default_factory=dict)
    choices: Sequence[Choice] = ()
    workers: int = 1

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.schema.rows)

    @property
    def layouts(self) -> str:
        """The choices as JSON text, as stored with a record."""
        return json.dumps([choice.entry(cohort.runs) for cohort, choice in zip(self.cohorts, self.choices, strict=True)])


def plan(
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    steps: int,
    *,
    probes: Sequence[str] = (),
    clocks: Mapping[str, int] | None = None,
    mode: str = "auto",
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    memory_budget: int | None = None,
    start: int = 0,
    states: Mapping[int, Any] | None = None,
) -> Plan:
    """Group the rows into cohorts and work out the record's schema; trains nothing.

    `probes` are optional ones to add, `clocks` other clocks than probes have by themselves. `memory_budget` is in bytes (default: half of
    what is free). With `start` and `states` (one per run) the runs go on from there.
    """
    leave_a_core()
    device = device or torch.device("cpu")
    measured = study.probes_named(probes, clocks)
    with ONE_AT_A_TIME:
        cohorts = cohorts_of(study, rows, measured, device, dtype)
    schema = Schema(
        rows=rows,
        columns={name: spec.attrs for name, spec in specs(study.knobs).items()},
        variables=[Variable(p.name, p.every, p.dims, p.dtype, p.attrs) for p in measured],
        labels=_union([cohort.labels for cohort in cohorts]),
        phases=phase_starts(study.phases, steps),
        start=start,
        stop=steps,
        attrs={},
    )
    budget = memory_budget if memory_budget is not None else memory.default_budget(device)
    return Plan(study, cohorts, schema, Setting(steps, device, dtype, allowed()), mode, budget, start, dict(states or {}))


def chunk_of(
    plan: Plan, cohort: Cohort, positions: Sequence[int], layout: Layout, programs: Programs | None = None, size: int = 0
) -> Chunk:
    """Some runs of a cohort, fresh or where the plan has them."""
    missing = [i for i in positions if cohort.runs[i] not in plan.states]
    fresh = dict(zip(missing, initial_states(cohort, missing, plan.setting), strict=True)) if missing else {}
    states = [fresh[i] if i in fresh else plan.states[cohort.runs[i]] for i in positions]
    chunk = Chunk(cohort, positions, states, layout, plan.setting, programs, size)
    chunk.diverged = np.array([plan.diverged.get(run, NOT_DIVERGED) for run in chunk.runs])
    return chunk


def _union(all_labels: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, list[Any]]:
    union: dict[str, dict[Any, None]] = {}
    for labels in all_labels:
        for dim, values in labels.items():
            union.setdefault(dim, {}).update(dict.fromkeys(values))
    return {dim: sorted(values) if all(isinstance(v, int) for v in values) else list(values) for dim, values in union.items()}
