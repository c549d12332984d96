"""Spike scores and recovery times of curves whose answer is counted by hand."""

import numpy as np
import pytest
import xarray as xr

from workbench.events import recovery_time, spike_score

WINDOW = 10


def curves(*rows, every=1):
    """Curves as a record has them, a run each."""
    return xr.DataArray(np.array(rows, float), dims=("run", "step"), coords={"step": every * np.arange(len(rows[0]))})


def wobbling(steps=60, **spikes):
    """0 and 2 in turn, so that any window of even length has mean 1 and deviation 1; `spikes` are heights by step, as s25=9."""
    row = np.resize([0.0, 2.0], steps)
    for name, height in spikes.items():
        row[int(name[1:])] = height
    return row


def test_a_spike_is_more_than_seven_deviations_above_the_mean_of_the_window_before():
    score = spike_score(curves(wobbling(), wobbling(s30=7.99), wobbling(s30=8.01), wobbling(s30=-100.0)), WINDOW)
    np.testing.assert_allclose(score, [0, 0, 1 / 50, 0])


def test_the_number_of_deviations_may_be_chosen():
    row = curves(wobbling(s30=7.1))
    assert [spike_score(row, WINDOW, n).item() for n in (6.0, 7.0)] == [1 / 50, 0]


def test_a_spike_that_is_still_in_the_window_hides_the_next():
    """A window of nine wobbles and a spike of 100: its mean is 10.8 and its deviation 29.7, so 100 again is none and 300 is one."""
    score = spike_score(curves(wobbling(s30=100, s35=100), wobbling(s30=100, s41=100), wobbling(s30=100, s35=300)), WINDOW)
    np.testing.assert_allclose(score, [1 / 50, 2 / 50, 2 / 50])


def test_values_without_a_whole_window_before_them_are_not_counted():
    assert spike_score(curves(wobbling(s9=100)), WINDOW).item() == 0
    assert spike_score(curves(wobbling(11, s10=100)), WINDOW).item() == 1
    assert np.isnan(spike_score(curves(wobbling(10)), WINDOW).item())


def test_a_run_that_diverged_is_scored_up_to_there():
    row = wobbling(s30=100)
    row[40:] = np.nan
    assert spike_score(curves(row), WINDOW).item() == pytest.approx(1 / 30)
    assert np.isnan(spike_score(curves(np.full(60, np.nan)), WINDOW).item())


def test_an_infinite_value_and_what_is_compared_with_it_are_not_counted():
    assert spike_score(curves(wobbling(s30=np.inf, s45=100)), WINDOW).item() == pytest.approx(1 / 39)


def test_a_level_without_any_scatter_has_no_spikes():
    assert spike_score(curves(np.full(40, 0.1), np.append(np.full(39, 0.1), 5.0)), WINDOW).values.tolist() == [0, 0]


def test_normal_noise_has_next_to_no_spikes_by_the_published_constants():
    noise = np.random.default_rng(0).normal(size=(1, 3000))
    assert spike_score(curves(*noise)).item() == 0
    noise[0, 2000::100] += 12
    assert spike_score(curves(*noise)).item() == pytest.approx(10 / 2000)


def test_recovery_is_counted_from_the_last_spike():
    excess = curves([0, 0, 5, 3, 2, 1, 0.4, 0.4, 0.2], [0, 0, 5, 5, 5, 5, 5, 5, 5], every=10)
    assert recovery_time(excess, 20, 0.5).values.tolist() == pytest.approx([40, np.nan], nan_ok=True)
    assert recovery_time(excess, xr.DataArray([0.0, np.nan], dims="run"), 0.5).values.tolist() == pytest.approx([0, np.nan], nan_ok=True)


def test_a_dip_of_one_value_is_no_recovery():
    excess = curves([9, 9, 0, 9, 9, 1, 1, 1])
    assert recovery_time(excess, 1, 1.0).item() == 1
    assert recovery_time(excess, 1, 1.0, window=3).item() == 4
    assert np.isnan(recovery_time(excess, 6, 1.0, window=3).item()) and np.isnan(recovery_time(excess, 0, 1.0, window=20).item())
