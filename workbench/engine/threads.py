"""How many cores a computation takes, and the lock of what may not run twice at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

# A model's module is filled with one run's values while it is called, and taps lie in one list: two threads must not do either at once.
ONE_AT_A_TIME = RLock()

_left: int | None = None


def allowed() -> int:
    """Cores that may be taken: all of them, or as many as OMP_NUM_THREADS or torch.set_num_threads say."""
    threads = torch.get_num_threads()
    return _cores() if threads == _left else min(_cores(), threads)


def leave_a_core() -> None:
    """Let torch's operations take one core less than there are, unless the number of threads was chosen.

    torch's threads wait for each other at every operation: where one of them shares its core, with a browser say, all are slowed.
    """
    global _left
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() >= _cores() > 1:
        _left = _cores() - 1
        torch.set_num_threads(_left)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def operations_on(threads: int) -> Iterator[None]:
    """Let each of torch's operations take this many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
