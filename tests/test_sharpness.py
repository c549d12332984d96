"""Sharpness in the logits, in float32 against the corner of the box in float64 and far from any training."""

import numpy as np
import pytest
import torch

from workbench.probes import sharpness_in_logits

EPSILON = 5e-4


def at_the_corner(logits, target):
    """100 (L(corner) - L) / (1 + L) of one row in float64, the rise summed by hand."""
    y = np.array(logits, float)
    reach = EPSILON * (np.abs(y) + 1)
    p = np.exp(y - y.max()) / np.exp(y - y.max()).sum()
    others = np.arange(len(y)) != target
    rise = np.log1p((p[others] * np.expm1(reach[others] + reach[target])).sum())
    return 100 * rise / (1 - np.log(p[target]))


@pytest.mark.parametrize("target", [0, 2])
@pytest.mark.parametrize("likely", [0.0, 3.0, 15.0, 20.0, 60.0])
def test_no_digits_are_lost_however_sure_the_model_is(likely, target):
    logits = [likely, 0.0, -1.0, 0.5]
    found = sharpness_in_logits(torch.tensor([logits]), torch.tensor([target])).item()
    assert found == pytest.approx(at_the_corner(logits, target), rel=2e-5) and found > 0


@pytest.mark.parametrize("size", [1e4, 1e6])
def test_logits_of_any_size_give_a_number_that_is_not_negative(size):
    for target in (0, 1):
        found = sharpness_in_logits(torch.tensor([[size, 0.0, -size]]), torch.tensor([target])).item()
        assert np.isfinite(found) and found >= 0
