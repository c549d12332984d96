"""Series that grow, and tracks that know what was measured before they left their parents."""

import numpy as np
import pytest

from workbench.history import MOST_PICTURES, Series, Track, is_picture
from workbench.schema import Change, Variable

LOSS = Variable("loss", 1, (), "float32", {})
NORM = Variable("norm", 10, ("tensor",), "float32", {})
PLACE = Variable("place", 1, ("layer", "head"), "int64", {})
DIGITS = Variable("digits", 10, ("sample", "y", "x"), "uint8", {})
VARIABLES = {v.name: v for v in (LOSS, NORM, PLACE, DIGITS)}
LABELS = dict(tensor=["a", "b", "c"], layer=[0, 1], head=[0], sample=[0], y=[0, 1], x=[0, 1, 2])


def track(start=0, parent=None, labels=(), seeds=(0,), **more):
    return Track(1, "run 1", "new run", seeds, {"lr": 0.1}, {"lr": 0.1}, VARIABLES, LABELS | dict(labels), start, parent, **more)


def measured(own, name, steps, value=lambda step: [float(step)]):
    for step in steps:
        own.add(name, step, np.array(value(step), VARIABLES[name].dtype))
    return own


def numbered(most, count):
    series = Series(most)
    for step in range(count):
        series.append(step, np.array([step]))
    return series


# Series


def test_a_series_keeps_all_that_it_is_given_however_long_it_grows():
    series = Series()
    for step in range(0, 10_000, 10):
        series.append(step, np.array([[step, -step]], "float32"))
    np.testing.assert_array_equal(series.steps, np.arange(0, 10_000, 10))
    np.testing.assert_array_equal(series.values[:, 0, 1], -np.arange(0, 10_000, 10))
    assert series.values.dtype == "float32" and series.values.shape == (1000, 1, 2)


def test_an_empty_series_has_no_steps():
    assert len(Series().steps) == len(Series(5).values) == 0


def test_a_whole_series_is_what_it_was_made_of():
    series = Series.of(np.array([0, 10]), np.array([[1.0], [2.0]]))
    assert series.steps.tolist() == [0, 10] and series.values.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("most", [2, 3, 8, 48])
def test_a_series_of_at_most_so_many_spreads_them_evenly_and_has_the_first_and_the_latest(most):
    series = Series(most)
    for step in range(500):
        series.append(step, np.array([step]))
        assert len(series.steps) <= most
        assert (series.steps[0], series.steps[-1]) == (0, step)
        apart = np.diff(series.steps)
        assert len(set(apart[:-1].tolist())) <= 1 and (len(apart) < 2 or apart[-1] <= apart[0])
        np.testing.assert_array_equal(series.values[:, 0], series.steps)


def test_a_full_series_is_never_less_than_half_full():
    assert min(len(numbered(8, count).steps) for count in range(8, 200)) == 5


# Tracks


def test_a_branch_tells_of_its_parents_steps_before_it_left_and_of_its_own_since():
    root = measured(track(), "loss", range(10))
    branch = measured(track(4, root), "loss", range(4, 6), lambda step: [100.0 + step])
    twig = measured(track(5, branch), "loss", range(5, 7), lambda step: [200.0 + step])
    steps, values = twig.series("loss")
    assert steps.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert values.tolist() == [[0, 1, 2, 3, 104, 205, 206]]
    assert [each.start for each in twig.ancestors] == [4, 0]


def test_a_branch_that_goes_further_back_than_its_parents_start_has_nothing_of_the_parent():
    root = measured(track(), "loss", range(10))
    branch = measured(track(6, root), "loss", range(6, 9), lambda step: [100.0 + step])
    early = measured(track(3, root), "loss", range(3, 5), lambda step: [200.0 + step])
    assert early.series("loss")[1].tolist() == [[0, 1, 2, 203, 204]]
    assert branch.series("loss")[1].tolist() == [[0, 1, 2, 3, 4, 5, 106, 107, 108]]


@pytest.mark.parametrize(
    ("until", "expected"), [(0, []), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 104]), (99, [0, 1, 2, 3, 104])]
)
def test_a_series_can_end_before_a_step(until, expected):
    branch = measured(track(4, measured(track(), "loss", range(10))), "loss", [4], lambda step: [100.0 + step])
    assert branch.series("loss", until)[1].tolist() == [expected]


def test_values_have_runs_before_steps():
    two = measured(track(seeds=(3, 5)), "place", range(4), lambda step: [[[step], [0]], [[-step], [1]]])
    _, values = two.series("place")
    assert values.shape == (2, 4, 2, 1) and values.dtype == "int64"
    assert values[1, :, 0, 0].tolist() == [0, -1, -2, -3]


def test_what_was_never_measured_has_no_steps_and_its_shape():
    steps, values = track(seeds=(0, 1)).series("place")
    assert steps.tolist() == [] and values.shape == (2, 0, 2, 1)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "b", "c"], [1, 2, 3]),
        (["b", "c", "d"], [2, 3, np.nan]),
        (["c", "z", "a"], [3, np.nan, 1]),
        (["new", "a", "newer", "b", "newest", "c"], [np.nan, 1, np.nan, 2, np.nan, 3]),
        (["other"], [np.nan]),
    ],
)
def test_a_parents_values_stand_under_the_labels_of_the_branch(labels, expected):
    root = measured(track(), "norm", [0, 10], lambda step: [[1, 2, 3]])
    branch = measured(track(10, root, dict(tensor=labels)), "norm", [10], lambda step: [np.arange(len(labels))])
    steps, values = branch.series("norm")
    assert steps.tolist() == [0, 10]
    np.testing.assert_array_equal(values[0], [expected, range(len(labels))])


def test_several_dimensions_may_have_other_labels():
    root = measured(track(), "place", [0], lambda step: [[[1], [2]]])
    branch = track(1, root, dict(layer=[1, 0, 2], head=[7, 0]))
    np.testing.assert_array_equal(branch.series("place")[1][0, 0], [[np.nan, 2], [np.nan, 1], [np.nan, np.nan]])


def test_pictures_are_bytes_with_rows_and_columns_and_few_are_kept():
    assert [is_picture(v) for v in VARIABLES.values()] == [False, False, False, True]
    shown = measured(track(), "digits", range(0, 2000, 10), lambda step: np.full((1, 1, 2, 3), step // 10))
    steps, values = shown.series("digits")
    assert len(steps) <= MOST_PICTURES and steps[0] == 0 and steps[-1] == 1990
    np.testing.assert_array_equal(values[0, :, 0, 1, 2], steps // 10)
    assert values.dtype == "uint8"


def test_the_row_of_an_update_has_the_changes_up_to_it():
    changed = track(changes=[Change(0, 3, "lr", 0.1, 0.5), Change(0, 7, "lr", 0.5, 0.2)])
    assert [changed.row_at(update)["lr"] for update in (0, 2, 3, 6, 7, 50)] == [0.1, 0.1, 0.5, 0.5, 0.2, 0.2]
    assert [changed.row_before(update)["lr"] for update in (0, 3, 4, 7, 8)] == [0.1, 0.1, 0.5, 0.5, 0.2]
