"""The player: a thread that carries out commands and trains between them. Callbacks only put commands into its queue."""

import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from threading import Condition, Thread, current_thread, get_native_id
from typing import Any

from ..errors import InputError
from .desk import COMMANDS, Desk

CLOSED = "This panel is closed; open another one with wb.explore."
HZ = 8.0
NICE = 5
PATIENCE = 5.0  # seconds to wait for a step to end
SLOWEST = 0.5  # seconds between two publications, however long they take
SHARE = 0.04  # of the time that publishing may take while it trains
SPEED_WINDOW = 2.0
ANSWERS = ("run", "step", "back", "reset", "preset", "seeds", "load")  # to trouble in training


@dataclass
class Task:
    """A command, or something to compute, that waits for its turn; `done` gets the outcome."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    compute: Callable[[Desk], Any] | None = None
    done: "Future[Any]" = field(default_factory=Future)


class Player(Thread):
    """Carries out commands between two steps and calls `publish`: while it trains at most 8 times a second and 4 % of the time.

    Whatever goes wrong in a step pauses and is said in the panel; the branches stand where they stood before it.
    """

    def __init__(self, desk: Desk, publish: Callable[[], None]) -> None:
        super().__init__(name="workbench-panel", daemon=True)
        self.desk, self.publish = desk, publish
        self.busy = {"training": 0.0, "publishing": 0.0}
        self._tasks: deque[Task] = deque()
        self._wake = Condition()
        self._closed = False
        self._published = self._next_step = self._took = 0.0
        self._times: deque[float] = deque(maxlen=2_000)
        self._arriving: list[Task] = []

    def ask(self, task: Task) -> "Future[Any]":
        """Put a task into the queue, from any thread. Of values set one after the other on one knob only the last is carried out."""
        with self._wake:
            if self._closed:
                task.done.set_exception(InputError(CLOSED))
                return task.done
            last = self._tasks[-1] if self._tasks else None
            if last and task.name == last.name == "set" and set(task.arguments) == set(last.arguments):
                self._tasks.pop()
                task.done.add_done_callback(lambda outcome: _pass_on(outcome, last.done))
            self._tasks.append(task)
            self._wake.notify()
        return task.done

    def close(self) -> None:
        """Stop after the step that is being computed, and wait for that, but not for ever."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self is not current_thread() and self.is_alive():
            self.join(PATIENCE)

    @property
    def is_closed(self) -> bool:
        """Whether it takes no commands any more."""
        return self._closed

    @property
    def speed(self) -> float:
        """Steps per second of late."""
        now = time.monotonic()
        recent = [at for at in list(self._times) if now - at < SPEED_WINDOW]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0

    def run(self) -> None:
        """Until it is closed: a command if there is one, else a step if it is training, else wait."""
        _give_way()
        while not self._closed:
            task = self._next()
            if task is not None:
                self._carry_out(task)
            elif self.desk.work is not None:
                self._work()
            elif self.desk.running and time.monotonic() >= self._next_step:
                self._step()
            else:
                continue
            if not self.desk.running or time.monotonic() - self._published >= max(1 / HZ, self._took / SHARE):
                self._publish()
        self._settle(InputError(CLOSED))

    def _next(self) -> Task | None:
        with self._wake:
            if self.desk.work is not None:
                return self._first_pause()
            if not self._tasks and not self._closed:
                wait = self._next_step - time.monotonic() if self.desk.running else None
                if wait is None or wait > 0:
                    self._wake.wait(None if wait is None else min(wait, 1 / HZ))
            return self._tasks.popleft() if self._tasks else None

    def _first_pause(self) -> Task | None:
        """While something long is computed only a pause is let through, which breaks it off."""
        found = next((task for task in self._tasks if task.name == "pause"), None)
        if found is not None:
            self._tasks.remove(found)
        return found

    def _carry_out(self, task: Task) -> None:
        if not task.done.set_running_or_notify_cancel():
            return
        try:
            if task.compute is not None:
                task.done.set_result(task.compute(self.desk))
                return
            if task.name not in COMMANDS:
                raise InputError(f"There is no button {task.name!r}; there are {', '.join(COMMANDS)}.")
            button = getattr(self.desk, task.name)
            _fits(task, button)
            button(**task.arguments)
            if task.name in ANSWERS:
                self.desk.problem = ""
        except Exception as error:  # whatever a study raises is said in the panel, and the thread goes on
            self._refuse(task, error)
            return
        if task.name == "pause":
            self._settle(InputError("It was broken off by a pause; press it again if it is still wanted."))
        if task.name in ("run", "speed"):
            self._next_step = 0.0  # a slow pace must not hold up a faster one
        if self.desk.work is not None:
            self._arriving.append(task)
        else:
            task.done.set_result(None)

    def _refuse(self, task: Task, error: Exception) -> None:
        if isinstance(error, InputError):
            self.desk.message = str(error)
            task.done.set_exception(error)
            return
        self._trouble(error)
        task.done.set_exception(error)

    def _work(self) -> None:
        assert self.desk.work is not None
        try:
            self.desk.reached = next(self.desk.work)
            return
        except StopIteration:
            self.desk.work = None
            self._settle(None)
        except Exception as error:  # as above
            self.desk.work = None
            self._say(error)
            self._settle(error)
        self._published = 0.0

    def _settle(self, error: Exception | None) -> None:
        for task in [*self._arriving, *(self._tasks if self._closed else ())]:
            if not task.done.done():
                task.done.set_result(None) if error is None else task.done.set_exception(error)
        self._arriving.clear()

    def _step(self) -> None:
        began = time.perf_counter()
        now = time.monotonic()
        limit = self.desk.limit or getattr(self.desk.source, "pace", 0.0)
        self._next_step = max(self._next_step, now - 1 / HZ) + 1 / limit if limit else 0.0
        try:
            self.desk.advance()
        except Exception as error:  # as above
            self._say(error)
        self._times.append(now)
        self.busy["training"] += time.perf_counter() - began

    def _say(self, error: Exception) -> None:
        """Pause, and show why; what was said first is there when a pause is seen."""
        if isinstance(error, InputError):
            self.desk.message, self.desk.running = str(error), False
        else:
            self._trouble(error)

    def _trouble(self, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        at = f"({where.name}, line {where.lineno} of {Path(where.filename).name})"
        self.desk.problem = " ".join([f"{type(error).__name__}: {error} {at}", *getattr(error, "__notes__", ())])
        self.desk.running = False  # last: who waits for a pause then reads why

    def _publish(self) -> None:
        began = time.perf_counter()
        try:
            self.publish()
        except Exception as error:  # a front that has gone must not end the training
            self._trouble(error)
        self._published, took = time.monotonic(), time.perf_counter() - began
        if self.desk.running:
            self._took = min((self._took + took) / 2, SHARE * SLOWEST)
            self.busy["publishing"] += took


def _give_way() -> None:
    """Let the page and the kernel's other threads have the processor first, where threads have priorities of their own (Linux)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)


def _fits(task: Task, button: Callable[..., Any]) -> None:
    """InputError where a button is pressed with other arguments than it takes."""
    takes = signature(button)
    try:
        given = takes.bind(**task.arguments).arguments
    except TypeError as error:
        raise InputError(f"{task.name!r} cannot be pressed like that: {error}.") from error
    for name, value in given.items():
        kind = takes.parameters[name].annotation
        if kind is not Any and not isinstance(value, int | float if kind is float else kind):
            raise InputError(
                f"{task.name!r} cannot be pressed like that: {name} is {value!r}, which is no {getattr(kind, '__name__', kind)}."
            )


def _pass_on(outcome: "Future[Any]", to: "Future[Any]") -> None:
    if to.done():
        return
    error = outcome.exception()
    to.set_result(None) if error is None else to.set_exception(error)
