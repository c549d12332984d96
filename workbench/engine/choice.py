"""How a cohort trains: mapped or in a loop, how many runs together, eager or compiled. Decided from short measurements."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from . import memory
from .cohorts import Cohort
from .draws import Draws
from .lanes import LAYOUTS, Layout, Looped, Vectorised
from .measured import Measured, recall
from .measuring import MEASURING, known, seconds
from .plans import Choice, Plan, chunk_of
from .programs import MOST, Part, Programs, can_compile, parts_at
from .threads import ONE_AT_A_TIME, operations_on

MODES = ("auto", *LAYOUTS, "compiled")
# What compiled lanes hold in flight together: with more, memory is asked from the system at every step (docs/performance.md).
BYTES_TOGETHER = 2**25
SIZES = (1, 2, 4, 8)
FIXED_COST = 0.5  # of a compiled step beside its lanes, in lanes

# Of a step that has not been compiled on this machine yet.
SPEED_UP = 3.0
SECONDS_TO_COMPILE, SECONDS_PER_OPERATION = 7.0, 0.008  # a line through the cases of docs/performance.md, 450 to 1,900 operations
MOST_OPERATIONS = 10_000  # beyond which compiling takes minutes: the Lanczos steps of a curvature probe are a hundred thousand
SECONDS_WARM = 2.0  # to compile again what Inductor has in its cache

WORTH_ALL_CORES = 1.3
LONG = 100  # steps, from which on a measurement of some steps is a small part


def choose(plan: Plan, *, interactive: bool = False) -> None:
    """Put into the plan a choice for each cohort, and how many chunks train at once; does nothing if they are there."""
    if not plan.choices:
        plan.choices, plan.workers = _choices(plan, interactive)


def choose_again(plan: Plan, layouts: str) -> None:
    """Put into the plan the choices that `Plan.layouts` of an earlier one says."""
    plan.choices = [Choice.of(entry) for entry in json.loads(layouts)]
    plan.workers = _workers(plan, plan.choices, _most_workers(plan))


def eager(plan: Plan, cohort: Cohort, choice: Choice) -> Choice:
    """The choice for chunks of the same runs whose step could not be compiled."""
    return replace(choice, layout=_layout("auto", known(plan, cohort), choice.together), compiled=(), shared=False)


def _choices(plan: Plan, interactive: bool) -> tuple[list[Choice], int]:
    most = 1 if interactive else _most_workers(plan)
    with ONE_AT_A_TIME, torch.no_grad():
        found = [_choice(plan, cohort, most) for cohort in plan.cohorts]
        workers = _workers(plan, found, most)
        if workers > 1:
            return [replace(choice, threads=1) for choice in found], workers
        alone = plan.runs == 1 and _on_cpu(plan) and not interactive and plan.setting.steps - plan.start >= LONG
        return [replace(found[0], threads=_cores_for_one(plan, found[0]))] if alone else found, 1


def _most_workers(plan: Plan) -> int:
    return min(plan.runs, plan.setting.cores) if _on_cpu(plan) else 1


def _on_cpu(plan: Plan) -> bool:
    return plan.setting.device.type == "cpu"


def _workers(plan: Plan, choices: Sequence[Choice], most: int) -> int:
    """How many chunks to train at once: as many as may be, where a step lets go of Python's lock."""
    chunks = sum(len(choice.parts(len(cohort.runs))) for choice, cohort in zip(choices, plan.cohorts, strict=True))
    return min(most, chunks) if any(choice.compiled for choice in choices) else 1


def is_compiled(plan: Plan, choice: Choice) -> bool:
    """Whether all that this choice compiles has been compiled before, in this process or on this machine, which makes it quick."""
    return all(_is_compiled(plan, cohort, choice) for cohort in plan.cohorts)


def _is_compiled(plan: Plan, cohort: Cohort, choice: Choice) -> bool:
    here = Programs(cohort, plan.setting, choice.compiled, choice.together, choice.threads, choice.shared)
    before = found.compiling if (found := recall(cohort, plan.setting)) else {}
    return all(str(part) in before for part in here.missing)


def _choice(plan: Plan, cohort: Cohort, workers: int) -> Choice:
    runs, threads = len(cohort.runs), torch.get_num_threads()
    if not getattr(cohort.study.learner, "lanes", True):
        return Choice(Looped, runs, threads)
    uses = _uses(plan, cohort)
    found = known(plan, cohort, list(uses))
    fitting = plan.budget // workers // max(1, found.at_rest + found.in_flight)
    together = _together(runs, found.in_flight, fitting, workers) if _on_cpu(plan) else memory.chunk_size(runs, fitting)
    compiled = tuple(part for part, times in uses.items() if _pays(plan, part, times * runs, found, together, workers))
    if any(part.updates for part in compiled):
        shared = Draws(cohort, range(runs), plan.setting.dtype, plan.setting.device).shared
        return Choice(Vectorised, together, threads, compiled, shared)
    return Choice(_layout(plan.mode, found, runs), memory.chunk_size(runs, fitting), threads)


def _uses(plan: Plan, cohort: Cohort) -> dict[Part, int]:
    """The parts of the step that may be compiled, and how often each is used by a run; those used most first."""
    on_a_gpu = plan.mode == "auto" and not _on_cpu(plan)  # what compiling takes and saves there has not been measured
    if plan.mode in LAYOUTS or on_a_gpu or not can_compile(plan.setting.device):
        return {}
    steps = range(plan.start, plan.setting.steps + 1)
    return dict(Counter(part for step in steps for part in parts_at(cohort, step, plan.setting.steps)).most_common(MOST))


def _layout(mode: str, found: Measured, runs: int) -> Layout:
    if mode in LAYOUTS:
        return LAYOUTS[mode]
    return Looped if runs == 1 else min((Looped, Vectorised), key=lambda layout: found.eager[layout.name])


def _together(runs: int, in_flight: int, fitting: int, workers: int) -> int:
    """Lanes of a program: a power of two, so that other designs find it compiled, of which few stay empty."""
    near = 2 ** round(math.log2(max(1, BYTES_TOGETHER / max(1, in_flight))))
    sizes = [size for size in SIZES if size <= min(near, fitting)] or [1]
    return min(reversed(sizes), key=lambda size: math.ceil(math.ceil(runs / size) / workers) * (FIXED_COST + size))


def _pays(plan: Plan, part: Part, times: int, found: Measured, together: int, workers: int) -> bool:
    """Whether compiling a part takes less time than it saves when it is used so many times, by all runs together."""
    operations = found.operations[str(part)]
    if plan.mode == "compiled" or operations > MOST_OPERATIONS:
        return operations <= MOST_OPERATIONS
    eager = min(found.eager.values())
    expected = eager / SPEED_UP
    if not part.updates:
        expected *= MEASURING
        # Beside a compiled update, few lanes at a time pay for what a step takes however many there are, about as much as one run's.
        eager += found.eager["loop"] / together
    took = found.compiled.get(str(part), expected)
    cost = SECONDS_WARM if str(part) in found.compiling else SECONDS_TO_COMPILE + SECONDS_PER_OPERATION * operations
    return times * (eager - took / workers) > cost / workers  # other chunks train while one is compiled


def _cores_for_one(plan: Plan, choice: Choice) -> int:
    """Cores that each operation of a single run takes: all, if that makes it clearly faster. Not remembered, as the load changes."""
    cores = choice.threads
    if plan.setting.cores == cores:
        return cores
    make = partial(chunk_of, plan, plan.cohorts[0], [0], choice.layout)
    usual = seconds(make)
    with operations_on(plan.setting.cores):
        return plan.setting.cores if usual > WORTH_ALL_CORES * seconds(make) else cores
