"""Sensitivity to the learning rate and power laws, on numbers that can be checked by hand."""

import numpy as np
import pytest
import xarray as xr

from workbench.sensitivity import exponent, extrapolated, lr_sensitivity, slope

RATES = [3e-4, 1e-3, 3e-3, 1e-2]


def losses(*values, rates=RATES, **coords):
    return xr.DataArray(np.array(values, float), dims="lr", coords={"lr": rates, **coords})


def test_a_diverged_run_counts_as_the_loss_at_initialization():
    assert lr_sensitivity(losses(5, 3, 2, np.nan), 6.0).item() == 2.0  # mean of 3, 1, 0, 4
    assert lr_sensitivity(losses(5, 3, 2, 1e9), 6.0).item() == 2.0
    assert lr_sensitivity(losses(5, 3, 2, np.inf), 6.0).item() == 2.0


def test_the_same_loss_at_all_rates_is_no_sensitivity():
    assert lr_sensitivity(losses(2, 2, 2, 2), 6.0).item() == 0.0


def test_a_shift_of_all_losses_changes_nothing():
    assert lr_sensitivity(losses(5, 3, 2, np.nan) + 7, 13.0).item() == pytest.approx(2.0)


def test_only_rates_of_the_interval_count():
    wide = losses(9, 5, 3, 2, 4, 9, rates=[1e-4, *RATES, 1.0])
    assert lr_sensitivity(wide, 6.0).item() == lr_sensitivity(losses(5, 3, 2, 4), 6.0).item() == 1.5
    assert lr_sensitivity(wide, 6.0, lowest=3e-3).item() == lr_sensitivity(losses(2, 4, rates=[3e-3, 1e-2]), 6.0).item() == 1.0


def test_each_seed_and_size_has_its_own():
    loss = xr.concat([losses(5, 3, 2, np.nan), losses(2, 1, 1, 2)], xr.IndexVariable("seed", [4, 5]))
    initial = xr.DataArray([6.0, 5.0], dims="seed", coords={"seed": [4, 5]})
    assert lr_sensitivity(loss, initial).to_series().to_dict() == {4: 2.0, 5: 0.5}


def test_where_all_diverged_there_is_none():
    assert np.isnan(lr_sensitivity(losses(*[np.nan] * 4), 6.0))


def test_without_a_rate_in_the_range_there_is_none():
    assert np.isnan(lr_sensitivity(losses(3.0, 2.0, 2.5, 3.0), 6.0, lowest=10.0, highest=20.0))


def over_size(values, sizes=(10.0, 100.0, 1000.0)):
    return xr.DataArray(np.asarray(values, float), dims="size", coords={"size": list(sizes)})


def test_a_power_law_is_found_and_extrapolated():
    size = over_size([10, 100, 1000])
    y = xr.concat([3 * size**0.5, 2 * size**-1.5], "seed")
    np.testing.assert_allclose(exponent(y, "size"), [0.5, -1.5])
    np.testing.assert_allclose(extrapolated(y, "size", 1e4), [300, 2e-6])
    assert extrapolated(y, "size", size["size"]).dims == ("size", "seed")


@pytest.mark.parametrize("degree", [1, 2])
def test_a_law_is_the_least_squares_polynomial_of_the_logarithms(degree):
    rng = np.random.default_rng(0)
    size, y = rng.uniform(10, 1000, 6), rng.uniform(1, 100, 6)
    law = np.polyfit(np.log10(size), np.log10(y), degree)
    np.testing.assert_allclose(extrapolated(over_size(y, size), "size", 5e3, degree), 10 ** np.polyval(law, np.log10(5e3)))
    if degree == 1:
        np.testing.assert_allclose(exponent(over_size(y, size), "size"), law[0])


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_a_value_that_has_no_logarithm_makes_no_law(value):
    y = xr.concat([over_size([value, 2, 3]), over_size([1, 2, 3])], "seed")
    assert np.isnan(exponent(y, "size")).values.tolist() == [True, False]
    assert np.isnan(extrapolated(y, "size", 1e4, 2)).values.tolist() == [True, False]


@pytest.mark.parametrize("degree", [1, 2])
def test_too_few_values_make_no_law(degree):
    y = over_size([1, 2, 3]).isel(size=slice(degree))
    assert np.isnan(extrapolated(y, "size", 1e4, degree))


def test_a_slope_per_seed_and_none_of_a_single_point():
    x = over_size([10, 100, 1000])
    y = xr.concat([2 * np.log10(x) + 5, -np.log10(x)], "seed")
    np.testing.assert_allclose(slope(y, np.log10(x), "size"), [2, -1])
    assert np.isnan(slope(y.isel(size=[0]), np.log10(x).isel(size=[0]), "size")).all()
