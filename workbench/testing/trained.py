"""Learners: a step is a pure function of one run, whoever else trains beside it."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from ..design import grid
from ..engine import plan
from ..engine.chunks import Chunk
from ..engine.lanes import LAYOUTS
from ..engine.plans import chunk_of
from ..engine.programs import parts_at, trace
from ..engine.step import initial_states
from ..knobs import Knobs
from ..study import Budget, Phase, Study
from .case import Case, train
from .comparing import difference

TOLERANCE = 1e-6
SICK = 1


def case_of(learner: Any, task: Any, knobs: Knobs, phases: tuple[Phase, ...]) -> Case:
    """A study of nothing but a learner and its task."""
    budgets = {"smoke": Budget(grid(**asdict(knobs)), 2 * len(phases))}
    return Case(Study(type(learner).__module__, type(learner).__name__, type(knobs), task, learner, (), budgets, phases=phases))


def reason(case: Case) -> Iterator[str]:
    """A learner that stays out of vmap says why."""
    if not _mapped(case) and not getattr(case.study.learner, "reason", ""):
        yield f'{said(case)} has lanes = False without a reason; give it reason = "...".'


def pure(case: Case) -> Iterator[str]:
    """A step repeats exactly, leaves the state it gets as it is, and does not touch torch's generator."""
    chunk, before = _chunk(case, "loop"), torch.get_rng_state()
    state = copy.deepcopy(chunk.states)
    with torch.no_grad():
        first, again = chunk.step(0), chunk.step(0)
    if where := difference(state, chunk.states):
        yield f"{said(case)} changes the state that its step is given ({where}); return a new one."
    if where := difference(first, again):
        yield f"A step of {said(case)} gives another result when repeated ({where}); all that changes belongs into the state."
    if not torch.equal(before, torch.get_rng_state()):
        yield f"A step of {said(case)} draws from torch's generator; use workbench.noise with now.key."


def resumes(case: Case) -> Iterator[str]:
    """A run that is stopped and goes on from its state ends as one that was not."""
    half, mode = case.steps // 2, "lanes" if _mapped(case) else "loop"
    for i, design in enumerate(case.designs):
        states = train(case.study, design, case.steps, until=half, mode=mode).states
        resumed = train(case.study, design, case.steps, states=states, start=half, mode=mode)
        if where := difference(case.trained(i, mode).states, resumed.states):
            yield f"{said(case)} goes on differently from its own state ({where}); all that changes belongs into the state."


def lanes_equal_loop(case: Case) -> Iterator[str]:
    """Runs mapped together give what runs one by one give."""
    for i in range(len(case.designs)) if _mapped(case) else ():
        if where := difference(case.trained(i, "lanes").states, case.trained(i, "loop").states, TOLERANCE):
            yield f"{said(case)} gives another result for runs mapped together than one by one ({where})."


def alone_as_in_company(case: Case) -> Iterator[str]:
    """A run does not depend on the others."""
    mode = "lanes" if _mapped(case) else "loop"
    for i, design in enumerate(case.designs):
        together = case.trained(i, mode).states
        alone = train(case.study, design[SICK : SICK + 1], case.steps, mode=mode).states
        if where := difference(together[SICK], alone[0], TOLERANCE):
            yield f"A run of {said(case)} depends on the runs beside it ({where})."


def isolates(case: Case) -> Iterator[str]:
    """A run whose state is NaN leaves its neighbours as they are, bit for bit, and counts as diverged."""
    for design in case.designs if _mapped(case) else ():
        healthy = _initial(case, design)
        sick = {**healthy, SICK: tree_map(_poisoned, healthy[SICK])}
        if not any(x.is_floating_point() for x in tree_leaves(sick)):
            continue
        well, ill = (train(case.study, design, case.steps, states=states, mode="lanes", dtype=torch.float32) for states in (healthy, sick))
        for run in (run for run in healthy if run != SICK):
            if where := difference(well.states[run], ill.states[run]):
                yield f"A diverged run of {said(case)} changes the runs beside it ({where}); let no operation mix runs."
        if ill.diverged[SICK] != 0:
            yield f"A run of {said(case)} that is NaN from the start does not count as diverged; put a loss into the moment."


def traces(case: Case) -> Iterator[str]:
    """The step with its default probes is one graph, which the engine can compile."""
    if not _mapped(case):
        return
    chunk = _chunk(case, "lanes")
    parts = parts_at(chunk.cohort, case.steps, case.steps)  # at the end all probes measure
    with torch.no_grad():
        fn, step, states, batch, shared, *per_lane = chunk.call(0, *parts)
    try:
        trace(fn, step, states, batch, per_lane, updates=True, shared=shared)
    except Exception as error:  # torch and the traced code raise whatever stops them
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        yield f"A step of {said(case)} does not trace as one graph ({first}); use torch.where, or make the knob that it branches on static."


def said(case: Case) -> str:
    """The learner by name."""
    return f"Learner {type(case.study.learner).__name__!r}"


def _mapped(case: Case) -> bool:
    return getattr(case.study.learner, "lanes", True)


def _chunk(case: Case, mode: str) -> Chunk:
    ready = plan(case.study, case.designs[0], case.steps)
    with torch.no_grad():
        return chunk_of(ready, ready.cohorts[0], range(len(case.designs[0])), LAYOUTS[mode])


def _initial(case: Case, design: Any) -> Mapping[int, Any]:
    ready = plan(case.study, design, case.steps)
    (cohort,) = ready.cohorts
    with torch.no_grad():
        return dict(zip(cohort.runs, initial_states(cohort, range(len(cohort.runs)), ready.setting), strict=True))


def _poisoned(leaf: torch.Tensor) -> torch.Tensor:
    return torch.full_like(leaf, torch.nan) if leaf.is_floating_point() else leaf


TRAINED = (reason, pure, resumes, lanes_equal_loop, alone_as_in_company, isolates, traces)
