"""Short measurements of a step: what it holds, how many operations it has, and how long it takes in each layout."""

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch

from . import memory
from .chunks import Chunk
from .cohorts import Cohort
from .lanes import LAYOUTS, Looped, Vectorised, size_in_bytes
from .measured import Measured, recall, remember
from .plans import Plan, chunk_of
from .programs import Part

TRIED = 8  # lanes
REPEATS = 3
MEASURING = 0.3  # of an update: what a part that only measures takes, to run and to compile


def known(plan: Plan, cohort: Cohort, parts: Sequence[Part] = ()) -> Measured:
    """What is known of the step of a cohort and of these parts of it; what is wanted and not known yet is measured."""
    found = recall(cohort, plan.setting) or Measured()
    before = deepcopy(found)
    missing = [part for part in parts if str(part) not in found.operations]
    if missing or not found.in_flight:
        alone = chunk_of(plan, cohort, range(1), Vectorised)
        alone.step(plan.setting.steps)  # so that data are there before memory is counted
        with memory.Meter() as meter:
            alone.step(plan.setting.steps)  # at the end every clock fires
        found.at_rest, found.in_flight = size_in_bytes(alone.states), meter.peak
        found.operations |= {str(part): _operations(alone, part) for part in missing}
    layouts = (Looped, Vectorised) if len(cohort.runs) > 1 else (Looped,)
    for layout in layouts if plan.mode not in LAYOUTS else ():
        if layout.name not in found.eager:
            few = range(min(TRIED, len(cohort.runs)) if layout is Vectorised else 1)
            found.eager[layout.name] = seconds(partial(chunk_of, plan, cohort, few, layout)) / len(few)
    if found != before:
        remember(cohort, plan.setting, found)
    return found


def _operations(chunk: Chunk, part: Part) -> int:
    """Tensor operations of a part; one that only measures does what its probes do, and some of the step."""
    update = Part(part.phase, 1)
    with memory.Meter() as usual:
        chunk.eager(1, [update])
    if part.updates:
        return usual.operations
    with memory.Meter() as more:
        chunk.eager(1, [update, part])
    return more.operations - usual.operations + round(MEASURING * usual.operations)


def seconds(make: Callable[[], Chunk], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of some updates, of which nothing is kept; infinite where they do not fit into memory."""
    best = math.inf
    try:
        chunk = make()
        for _ in range(repeats):
            began = synchronized(chunk.setting.device)
            chunk.step(1)
            best = min(best, synchronized(chunk.setting.device) - began)
    except torch.OutOfMemoryError:
        pass
    return best


def synchronized(device: torch.device) -> float:
    """The time, once all that was asked of the device has been done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
