"""The shelf of kept states: its bytes, what stays, how it is spread."""

import numpy as np
import pytest
import torch

from workbench.engine.kept import Shelf, State

BYTES = 40


def state(step, bytes=BYTES):
    return State(step, (dict(w=torch.zeros(bytes // 4)),), np.array([-1]))


def filled(states, steps, needed=()):
    shelf = Shelf(states * BYTES)
    for step in steps:
        shelf.keep(1, state(step), needed)
    return shelf


def test_a_state_has_the_bytes_of_the_tensors_of_all_its_runs():
    runs = (dict(w=torch.zeros(3), count=torch.zeros((), dtype=torch.int64), log="text"), dict(w=torch.zeros(3, dtype=torch.float64)))
    assert State(5, runs, np.array([-1, -1])).bytes == 3 * 4 + 8 + 3 * 8


def test_everything_is_kept_while_it_fits():
    shelf = filled(8, range(0, 80, 10))
    assert shelf.of(1) == list(range(0, 80, 10)) and shelf.bytes == 8 * BYTES


@pytest.mark.parametrize("states", [3, 4, 7, 20])
def test_a_shelf_stays_in_its_bytes_and_keeps_the_first_and_the_latest(states):
    shelf = Shelf(states * BYTES)
    for step in range(0, 1000, 10):
        shelf.keep(1, state(step), [(1, 0)])
        assert shelf.bytes == sum(each.bytes for each in shelf.states.values()) <= states * BYTES
        assert shelf.of(1)[0] == 0 and shelf.of(1)[-1] == step


@pytest.mark.parametrize("states", [4, 5, 8, 13, 32])
def test_what_stays_is_spread_evenly(states):
    """No gap is larger than two neighbouring ones together or three times another; the newest, which no thinning has reached, apart."""
    shelf = Shelf(states * BYTES)
    for step in range(0, 6000, 10):
        shelf.keep(1, state(step), [(1, 0)])
        gaps = np.diff(shelf.of(1))
        if len(gaps) > 2:
            assert gaps.max() <= (gaps[:-2] + gaps[1:-1]).min()
            assert gaps.max() < 3 * gaps[:-1].min()


def test_branches_are_thinned_where_the_gap_that_is_left_is_smallest():
    shelf = Shelf(7 * BYTES)
    for step in (0, 100, 200, 300):
        shelf.keep(1, state(step), ())
    for step in (0, 10, 20, 30):
        shelf.keep(2, state(step), ())
    assert shelf.of(1) == [0, 100, 200, 300] and shelf.of(2) == [0, 20, 30]


def test_needed_states_stay_though_they_do_not_fit():
    needed = [(1, step) for step in (10, 20, 40)]
    shelf = filled(3, range(0, 90, 10), needed)
    assert shelf.of(1) == [0, 10, 20, 40, 80] and shelf.bytes == 5 * BYTES


def test_a_state_that_does_not_fit_is_kept_as_the_latest():
    shelf = filled(3, (0, 10))
    shelf.keep(1, state(20, 100 * BYTES), ())
    assert shelf.of(1) == [0, 20]


def test_a_state_kept_again_takes_the_place_of_the_other():
    shelf = filled(5, (0, 10, 20))
    again = state(10, 2 * BYTES)
    shelf.keep(1, again, ())
    assert shelf.nearest(1, 10) is again and shelf.bytes == 4 * BYTES


def test_the_nearest_state_is_not_after_the_step():
    shelf = filled(9, (0, 10, 30))
    assert [shelf.nearest(1, step).step for step in (0, 9, 10, 29, 30, 1000)] == [0, 0, 10, 10, 30, 30]


def test_a_branch_or_one_of_its_states_is_let_go_of():
    shelf = filled(9, (0, 10, 20))
    shelf.keep(2, state(10), ())
    shelf.drop(1, 10)
    shelf.drop(1, 11)
    assert (shelf.of(1), shelf.of(2), shelf.bytes) == ([0, 20], [10], 3 * BYTES)
    shelf.drop(1)
    assert (shelf.of(1), shelf.of(2), shelf.bytes) == ([], [10], BYTES)
