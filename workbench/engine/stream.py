"""The engine as a generator: what the runs of a plan measure, stretch by stretch."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any

import torch

from ..progress import counted
from ..schema import Busy, Progress, Slab
from .choice import choose, eager
from .chunks import NOT_DIVERGED, Chunk
from .cohorts import Cohort
from .lanes import Vectorised
from .measured import Measured, recall, remember
from .measuring import seconds, synchronized
from .plans import Choice, Plan, chunk_of
from .pool import Job, in_turn
from .programs import Programs, give_up
from .threads import ONE_AT_A_TIME, operations_on

FIRST_STRETCH, LONGEST_STRETCH, TARGET_SECONDS = 10, 200, 0.3
TIMED = 3


@dataclass(frozen=True)
class Kept:
    """The states of some runs before update `step`; `latest` ones are there to go on from after a kill, until later ones replace them."""

    step: int
    runs: tuple[int, ...]
    states: tuple[Any, ...]
    latest: bool = False


Item = Slab | Progress | Busy | Kept


def stream(
    plan: Plan, *, keep: int | None = None, until: int | None = None, interactive: bool = False, latest: float | None = None
) -> Iterator[Item]:
    """Train all runs of a plan; yields slabs of measured numbers, progress, and states at multiples of `keep` and every `latest` seconds.

    The chunks of a plan train one after the other, each from its first step to its last, several at once where they are compiled. An
    `interactive` stream advances all of them side by side and begins at once: what pays to be compiled is compiled meanwhile, and
    taken over when it is ready. With `until` the runs stop before that update, and their states there are yielded.
    """
    choose(plan, interactive=interactive)
    train = partial(_trained, plan, _Stops(plan.setting.steps if until is None else until, until, keep, latest))
    for item in _side_by_side(plan, train) if interactive else in_turn(_jobs(plan, train), plan.workers):
        # A compiler that an interrupt has killed has not failed: by now the stream would be closed.
        if isinstance(item, _Failed):
            give_up(item.reason)
        else:
            yield item


@dataclass(frozen=True)
class _Failed:
    """A step could not be compiled."""

    reason: str


@dataclass(frozen=True)
class _Stops:
    """Where runs end, and where their states are yielded: at `until`, at multiples of `keep`, and every so many seconds."""

    end: int
    until: int | None
    keep: int | None
    seconds: float | None


def _jobs(plan: Plan, train: Callable[[Callable[[], list[Chunk]]], Iterator[Item]]) -> Iterator[Job]:
    # What is not compiled comes first: it trains while the others are.
    for cohort, choice in sorted(zip(plan.cohorts, plan.choices, strict=True), key=lambda pair: bool(pair[1].compiled)):
        ended = [part for part in choice.parts(len(cohort.runs)) if plan.reached.get(cohort.runs[part[0]]) == plan.setting.steps]
        if ended:
            runs = tuple(cohort.runs[i] for part in ended for i in part)
            yield partial(iter, [Progress(runs, plan.setting.steps, tuple(plan.diverged.get(run, NOT_DIVERGED) for run in runs))])
        parts = [part for part in choice.parts(len(cohort.runs)) if part not in ended]
        programs = _programs(plan, cohort, choice)
        if parts and programs.missing:
            yield partial(iter, [Busy(f"compiling the step of {counted(sum(map(len, parts)), 'run')}")])
            _compile(plan, cohort, choice, programs)
            if programs.failed:
                yield partial(iter, [_Failed(programs.failed)])
            if not any(part.updates for part in programs.ready):
                choice = _not_compiled(plan, cohort, choice)
        for part in parts:
            yield partial(train, partial(_chunks, plan, cohort, choice, programs, [part]))


def _not_compiled(plan: Plan, cohort: Cohort, choice: Choice) -> Choice:
    """What takes the place of a choice that could not be carried out, here and in the plan."""
    instead = eager(plan, cohort, choice)
    plan.choices = [instead if each is cohort else other for each, other in zip(plan.cohorts, plan.choices, strict=True)]
    return instead


def _side_by_side(plan: Plan, train: Callable[[Callable[[], list[Chunk]]], Iterator[Item]]) -> Iterator[Item]:
    chosen = zip(plan.cohorts, plan.choices, strict=True)
    cohorts = [(cohort, choice, _programs(plan, cohort, choice)) for cohort, choice in chosen]
    parts = [choice.parts(len(cohort.runs)) for cohort, choice, _ in cohorts]
    missing = [each for each in cohorts if each[2].missing]
    compiling = Thread(target=lambda: [_compile(plan, *each) for each in missing], name="workbench-compile", daemon=True)
    for item in train(lambda: [chunk for each, own in zip(cohorts, parts, strict=True) for chunk in _chunks(plan, *each, own)]):
        yield item
        yield from (_Failed(programs.failed) for _, _, programs in missing if programs.failed)
        if isinstance(item, Progress) and compiling.ident is None:
            compiling.start()


def _programs(plan: Plan, cohort: Cohort, choice: Choice) -> Programs:
    return Programs(cohort, plan.setting, choice.compiled, choice.together, choice.threads, choice.shared)


def _compile(plan: Plan, cohort: Cohort, choice: Choice, programs: Programs) -> None:
    """Make the programs of a cohort that are missing, and remember what they took."""
    with torch.no_grad(), operations_on(choice.threads):
        with ONE_AT_A_TIME:
            (example,) = _chunks(plan, cohort, choice, None, choice.parts(len(cohort.runs))[:1])
        measured = recall(cohort, plan.setting) or Measured()
        for part, program, took in programs.make(lambda part: example.call(plan.start, part)):
            name, step = str(part), _timed(program, example.call(plan.start, part), plan.setting.device) / choice.together
            measured.compiling[name] = took
            measured.compiled[name] = min(step, measured.compiled.get(name, step))  # others may have trained meanwhile
            remember(cohort, plan.setting, measured)


def _timed(program: Callable[..., Any], arguments: Sequence[Any], device: torch.device) -> float:
    best = float("inf")
    for _ in range(TIMED):
        began = synchronized(device)
        program(*arguments[1:])
        best = min(best, synchronized(device) - began)
    return best


def _chunks(plan: Plan, cohort: Cohort, choice: Choice, programs: Programs | None, parts: Sequence[range]) -> list[Chunk]:
    size = choice.together if choice.compiled else 0
    return [chunk_of(plan, cohort, part, choice.layout, programs, size) for part in parts]


def _trained(plan: Plan, stops: _Stops, make: Callable[[], list[Chunk]]) -> Iterator[Item]:
    """Some chunks from where they stand to their last step, side by side."""
    threads = min(choice.threads for choice in plan.choices)
    with torch.no_grad(), ONE_AT_A_TIME:
        chunks = make()
    step, length, kept = plan.reached.get(chunks[0].runs[0], plan.start), FIRST_STRETCH, time.monotonic()
    while True:
        if (stops.keep and step % stops.keep == 0) or step == stops.until:
            yield from (Kept(step, chunk.runs, chunk.run_states()) for chunk in chunks)
        if step == stops.end:
            return
        if stops.seconds is not None and time.monotonic() - kept > stops.seconds:
            yield from (Kept(step, chunk.runs, chunk.run_states(), latest=True) for chunk in chunks)
            kept = time.monotonic()
        stop = min(_aligned(step, length, stops.keep), stops.end)
        began = time.perf_counter()
        chunks = yield from _advanced(chunks, step, stop, threads)
        length = _next_length(length, time.perf_counter() - began)
        step = stop


def _advanced(chunks: list[Chunk], start: int, stop: int, threads: int) -> Iterator[Any]:
    waiting = [(chunk, start) for chunk in chunks]
    done: list[Chunk] = []
    while waiting:
        chunk, first = waiting.pop(0)
        yield from _computed(chunk.advance(first, stop), threads)
        if chunk.out_of_memory_at is None:
            done.append(chunk)
            continue
        if chunk.setting.device.type == "cuda":
            torch.cuda.empty_cache()
        waiting[:0] = [(half, chunk.out_of_memory_at) for half in chunk.halves()]
    return done


def _computed(items: Iterator[Any], threads: int) -> Iterator[Any]:
    """The same items; only while one is computed gradients are off, and torch takes so many threads."""
    while True:
        with torch.no_grad(), operations_on(threads):
            item = next(items, None)
        if item is None:
            return
        yield item


def _aligned(step: int, length: int, keep: int | None) -> int:
    stop = step - step % 10 + max(10, length)
    return min(stop, step - step % keep + keep) if keep else stop


def _next_length(length: int, seconds: float) -> int:
    if seconds < TARGET_SECONDS / 2:
        return min(2 * length, LONGEST_STRETCH)
    return max(FIRST_STRETCH, length // 2) if seconds > 2 * TARGET_SECONDS else length


def fastest_device(plans: Sequence[Plan]) -> torch.device:
    """The device of the plan whose first cohort makes an update in the least time."""
    with ONE_AT_A_TIME, torch.no_grad():
        found = [seconds(partial(chunk_of, each, each.cohorts[0], range(len(each.cohorts[0].runs)), Vectorised)) for each in plans]
    return plans[found.index(min(found))].setting.device
