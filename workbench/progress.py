"""The progress bar of a run: how many runs, steps per second, time left, how many diverged."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeRemainingColumn

from .schema import Progress


class ProgressBar:
    """A bar over all updates of all runs, on standard error; `show=None` shows it on a terminal or in a notebook only."""

    def __init__(self, runs: int, start: int, stop: int, show: bool | None = None, label: str = "") -> None:
        self.runs, self.start, self.done = runs, start, dict.fromkeys(range(runs), start)
        self.diverged: set[int] = set()
        self.total = runs * (stop - start)
        self.began = time.perf_counter()
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]:,.0f} steps/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[diverged]} diverged"),
        )
        self.bar = Bar(*columns, console=Console(stderr=True), disable=not (_is_watched() if show is None else show), transient=False)
        self.task = self.bar.add_task(label or f"{runs} run{'s' * (runs != 1)}", total=self.total, rate=0.0, diverged=0)

    def update(self, item: Progress) -> None:
        """Take in how far some runs are."""
        self.done.update(dict.fromkeys(item.runs, item.done))
        self.diverged.update(run for run, step in zip(item.runs, item.diverged, strict=True) if step >= 0)
        completed = sum(self.done.values()) - self.runs * self.start
        rate = completed / max(time.perf_counter() - self.began, 1e-9)
        self.bar.update(self.task, completed=completed, rate=rate, diverged=len(self.diverged))

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()


def _is_watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
