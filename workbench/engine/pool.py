"""Jobs on several threads, and what they yield as one stream."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

import torch

Job = Callable[[], Iterator[Any]]

AHEAD = 4  # items that a worker may be ahead of who takes them
_END = object()


def in_turn(jobs: Iterable[Job], workers: int) -> Iterator[Any]:
    """The items of all jobs. They begin in their order, up to `workers` at once, each on a thread of its own; one worker runs here.

    `jobs` itself is gone through in one more thread, so that the next job can be prepared while others run. An error in any of these
    ends the stream with that error. When the stream is closed, jobs end after the item they are at.
    """
    if workers == 1:
        for job in jobs:
            yield from job()
        return
    stream = _Stream(AHEAD * workers)
    with ThreadPoolExecutor(workers, "workbench-train") as pool:
        Thread(target=stream.feed, args=(jobs, pool), name="workbench-prepare", daemon=True).start()
        try:
            while (item := stream.items.get()) is not _END:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stream.closed.set()
            pool.shutdown(wait=False, cancel_futures=True)
            torch.set_num_threads(torch.get_num_threads())  # what threads begun from now on take is what the last worker set


class _Stream:
    """A bounded queue of items, errors and the end, that nobody waits for once it is closed."""

    def __init__(self, size: int) -> None:
        self.items: Queue[Any] = Queue(size)
        self.closed = Event()

    def put(self, item: Any) -> None:
        while not self.closed.is_set():
            try:
                return self.items.put(item, timeout=0.1)
            except Full:
                continue

    def feed(self, jobs: Iterable[Job], pool: ThreadPoolExecutor) -> None:
        try:
            futures = []
            for job in jobs:
                if self.closed.is_set():
                    return
                futures.append(pool.submit(self.run, job))
            wait(futures)
            self.put(_END)
        except BaseException as error:
            self.put(error)

    def run(self, job: Job) -> None:
        try:
            for item in job():
                self.put(item)
                if self.closed.is_set():
                    return
        except BaseException as error:
            self.put(error)
