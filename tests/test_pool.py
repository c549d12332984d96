"""Jobs on threads: all items come, in each job's order; errors come through; closing ends what runs."""

import threading
import time
from functools import partial

import pytest

from workbench.engine.pool import AHEAD, in_turn


def counting(name, count):
    for i in range(count):
        yield name, i


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_all_items_of_all_jobs_come_in_the_order_of_each(workers):
    found = list(in_turn([partial(counting, name, 20) for name in range(7)], workers))
    assert sorted(found) == [(name, i) for name in range(7) for i in range(20)]
    for name in range(7):
        assert [i for each, i in found if each == name] == list(range(20))


def test_one_worker_runs_in_the_thread_that_asks():
    def where():
        yield threading.current_thread()

    assert list(in_turn([where], 1)) == [threading.current_thread()]
    assert list(in_turn([where], 2)) != [threading.current_thread()]


def test_so_many_jobs_run_at_once_and_no_more():
    running, most, lock = [0], [0], threading.Lock()

    def job():
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        yield None
        with lock:
            running[0] -= 1

    assert len(list(in_turn([job] * 12, 3))) == 12
    assert most[0] == 3


def test_the_next_job_is_prepared_while_others_run():
    prepared = threading.Event()

    def first():
        assert prepared.wait(10)
        yield "first"

    def jobs():
        yield first
        prepared.set()
        yield partial(iter, ["second"])

    assert sorted(in_turn(jobs(), 2)) == ["first", "second"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("where", ["in a job", "in preparing"])
def test_an_error_ends_the_stream_with_it(workers, where):
    def failing():
        yield 1
        raise ValueError(where)

    def jobs():
        yield partial(counting, "a", 3)
        if where == "in preparing":
            raise ValueError(where)
        yield failing

    with pytest.raises(ValueError, match=where):
        list(in_turn(jobs(), workers))


def test_workers_do_not_run_far_ahead_and_stop_when_the_stream_is_closed():
    made = []

    def endless(name):
        while True:
            made.append(name)
            yield name

    items = in_turn([partial(endless, name) for name in range(4)], 2)
    for _ in range(10):
        next(items)
    time.sleep(0.3)
    ahead = len(made)
    assert ahead <= 10 + 2 * AHEAD + 2
    items.close()
    at_close = len(made)
    time.sleep(0.3)
    assert len(made) == at_close <= ahead + 2 and set(made) <= {0, 1}
