"""A record while it grows: in memory and, where it has a path, in a store beside it with the states that runs can go on from."""

import shutil
import time
from pathlib import Path

import xarray as xr

from ..record import fill
from ..schema import Busy, Progress, Slab
from ..store import Store, partial_path
from . import checkpoints
from .stream import Item, Kept

FLUSH_SECONDS = 2.0
FLUSH_SHARE = 0.01  # of the time, at most


class Growing:
    """Takes what a stream yields. On disk are always the measured numbers up to any state that is kept there."""

    def __init__(self, record: xr.DataTree, out: str | Path | None) -> None:
        self.record, self.out = record, out
        self.store = Store(record, partial_path(out)) if out is not None else None
        self.before, self.began = float(record.attrs.get("seconds", 0.0)), time.monotonic()
        self.flushed, self.pause = self.began, FLUSH_SECONDS
        self.ended: list[tuple[int, ...]] = []

    @property
    def seconds(self) -> float:
        """Time that the record has taken so far, in all processes together."""
        return round(self.before + time.monotonic() - self.began, 2)

    def take(self, item: Item) -> None:
        """Put an item into the record, now and then into the store; states into files."""
        if isinstance(item, Kept):
            self._keep(item)
        elif not isinstance(item, Busy):
            self._fill(item)

    def _fill(self, item: Slab | Progress) -> None:
        fill(self.record, item)
        if self.store is None:
            return
        self.store.note(item)
        if isinstance(item, Progress) and item.done == self.record.attrs["steps"]:
            self.ended.append(tuple(item.runs))
        if time.monotonic() - self.flushed > self.pause:
            self.flush()

    def flush(self) -> None:
        """Bring the store up to date; the latest states of runs that have ended are no longer needed."""
        if self.store is None or self.out is None:
            return
        began = time.monotonic()
        self.store.flush(seconds=self.seconds)
        self.flushed = time.monotonic()
        self.pause = max(FLUSH_SECONDS, (self.flushed - began) / FLUSH_SHARE)
        while self.ended:
            checkpoints.forget_latest(checkpoints.folder_of(self.out), self.ended.pop())

    def leave(self) -> None:
        """End where the stream ended: what was measured stays in the store, and if that is nothing, nothing stays."""
        if self.out is None:
            return
        if (self.record["events"]["steps_done"] > self.record.attrs["start"]).any():
            self.flush()
        else:
            clear(self.out)

    def _keep(self, item: Kept) -> None:
        if self.out is not None:
            self.flush()
            states = dict(zip(item.runs, item.states, strict=True))
            folder = checkpoints.folder_of(self.out)
            checkpoints.save_states(folder, item.step, states, self.record.attrs["identity"], latest=item.latest)


def leftovers(out: str | Path) -> list[Path]:
    """What stands beside `out` of a run that was to write there."""
    return [folder for folder in (partial_path(out), checkpoints.folder_of(out)) if folder.exists()]


def clear(out: str | Path) -> None:
    """Delete that."""
    for folder in leftovers(out):
        shutil.rmtree(folder)
