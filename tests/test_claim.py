"""Claims: mean, Student interval and verdict."""

import json
import math

import numpy as np
import pytest
import xarray as xr

from workbench.claim import Claim, interval, judge


def claim(values, threshold=0.0, above=True):
    effect = lambda record: xr.DataArray(values, dims="seed")  # noqa: E731
    return Claim("slug", "statement", effect, threshold, "source", "paired by", above=above, units="nat")


def test_the_interval_is_student_s():
    """t(0.975, 3) = 3.182446305; mean 2.5 and standard error sqrt(5/3) / 2 of 1, 2, 3, 4."""
    mean, low, high = interval([1, 2, 3, 4])
    half = 3.182446305284263 * math.sqrt(5 / 3) / 2
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-12)


def test_equal_values_have_an_interval_of_no_width():
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_too_few_values_have_no_interval():
    assert interval([3.0])[0] == 3.0 and np.isnan(interval([3.0])[1:]).all()
    assert np.isnan(interval([])).all() and np.isnan(interval([1.0, np.nan, 2.0])).all()


@pytest.mark.parametrize(
    ("values", "threshold", "above", "status"),
    [
        ([1.0, 1.1, 0.9, 1.0], 0.5, True, "holds"),
        ([1.0, 1.1, 0.9, 1.0], 0.95, True, "fails"),  # the mean is beyond, the interval is not
        ([1.0, 1.1, 0.9, 1.0], 1.5, True, "fails"),
        ([1.0, 1.1, 0.9, 1.0], 1.5, False, "holds"),
        ([1.0, 1.1, 0.9, 1.0], 1.05, False, "fails"),
        ([1.0, 1.0, 1.0, 1.0], 1.0, True, "fails"),  # beyond means more than at
        ([1.0, 1.1, 0.9], 0.0, True, "undecided"),
        ([1.0, 1.1, 0.9, np.nan], 0.0, True, "undecided"),
        ([1.0, 1.1, 0.9, np.inf], 0.0, True, "undecided"),
        ([], 0.0, True, "undecided"),
    ],
)
def test_a_claim_holds_when_its_whole_interval_is_beyond_the_threshold(values, threshold, above, status):
    assert judge(claim(values, threshold, above), None).status == status


def test_a_verdict_says_what_it_is_of():
    verdict = judge(claim([1.0, 2.0, 3.0, 4.0]), None)
    row = verdict.as_dict()
    assert (row["slug"], row["statement"], row["units"], row["n"], row["mean"]) == ("slug", "statement", "nat", 4, 2.5)
    assert (row["threshold"], row["above"], row["paired"], row["threshold_source"]) == (0.0, True, "paired by", "source")
    assert json.loads(json.dumps(row)) == row
