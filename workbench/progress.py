"""The progress of a run: how many runs, steps per second, time left, how many diverged."""

import sys
import time
from collections import deque
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from .schema import Busy, Progress

REMEMBERED = 100
LINE_SECONDS = 10.0
FORESEEN = 0.02  # of all updates, after which the time left can be told: at the start data are read and steps compiled


class ProgressBar:
    """A bar over all updates of all runs on a terminal or in a notebook, on standard error.

    Elsewhere `show=True` writes a line now and then, and `show=None` nothing; `show=False` is silent everywhere. `label` names what
    is computed, by default the number of runs.
    """

    def __init__(self, runs: int, start: int, stop: int, show: bool | None = None, label: str = "") -> None:
        self.runs, self.start, self.done = runs, start, dict.fromkeys(range(runs), start)
        self.label = label or counted(runs, "run")
        self.diverged: set[int] = set()
        self.total = runs * (stop - start)
        self.seen = deque([(time.monotonic(), 0)], REMEMBERED)
        self.in_lines = bool(show) and not _is_watched()
        self.spoke = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[text]}"),
        )
        self.bar = Bar(*columns, console=Console(stderr=True), disable=show is False or not _is_watched())
        self.task = self.bar.add_task(self.label, total=self.total, text="")

    def say(self, item: Busy) -> None:
        """Tell what is being done before more steps can be made."""
        self.bar.update(self.task, text=item.doing)
        if self.in_lines:
            print(f"{self.label}: {item.doing}", file=sys.stderr, flush=True)

    def update(self, item: Progress) -> None:
        """Take in how far some runs are."""
        self.done.update(dict.fromkeys(item.runs, item.done))
        self.diverged.update(run for run, step in zip(item.runs, item.diverged, strict=True) if step >= 0)
        self.seen.append((time.monotonic(), self.completed))
        self.bar.update(self.task, completed=self.completed, text=self.text)
        if self.in_lines and (time.monotonic() - self.spoke > LINE_SECONDS or self.completed == self.total):
            self.spoke = time.monotonic()
            print(f"{self.completed / self.total:4.0%} of {self.label}: {self.text}", file=sys.stderr, flush=True)

    @property
    def completed(self) -> int:
        """Updates made, all runs together."""
        return sum(self.done.values()) - self.runs * self.start

    @property
    def text(self) -> str:
        """Steps per second over the latest stretches, time left at that rate, and how many runs diverged."""
        (then, before), (now, completed) = self.seen[0], self.seen[-1]
        rate = (completed - before) / max(now - then, 1e-9)
        foreseen = rate and FORESEEN * self.total <= completed < self.total
        left = f"{timedelta(seconds=round((self.total - completed) / rate))} left, " if foreseen else ""
        return f"{rate:,.0f} steps/s, {left}{len(self.diverged)} diverged"

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()


def counted(number: int, thing: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _is_watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
