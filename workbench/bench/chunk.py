"""One chunk of a case's runs with its programs compiled, stepped by hand: for what is too small to see in a whole stream."""

import time
from collections.abc import Callable
from typing import Any

import torch

from ..engine.choice import choose
from ..engine.chunks import Chunk
from ..engine.plans import Plan, chunk_of
from ..engine.programs import Programs
from ..engine.threads import operations_on
from .cases import Case


def chunk(case: Case, runs: int = 0) -> tuple[Plan, Chunk]:
    """The plan of a case, and the first of the chunks it trains in."""
    ready = case.plan(runs)
    choose(ready)
    (cohort,), (choice,) = ready.cohorts, ready.choices
    programs = Programs(cohort, ready.setting, choice.compiled, choice.together, choice.threads, choice.shared)
    with torch.no_grad():
        positions = choice.parts(len(cohort.runs))[0]
        made = chunk_of(ready, cohort, positions, choice.layout, programs, choice.together if choice.compiled else 0)
        for _ in programs.make(lambda part: made.call(0, part)):
            pass
    return ready, made


def seconds_of(call: Callable[[], Any], ready: Plan, seconds: float) -> float:
    """Seconds of a call, the mean over as many as fit into `seconds` and at least one, on the threads of the plan."""
    times, began = 0, time.perf_counter()
    with torch.no_grad(), operations_on(ready.choices[0].threads):
        while not times or time.perf_counter() - began < seconds:
            call()
            times += 1
    return (time.perf_counter() - began) / times
