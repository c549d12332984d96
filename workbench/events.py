"""Events: one number per run, read off its curves. No torch."""

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view

EXCEEDED = 1.5
LAST_SHARE = 0.1
SPIKE_WINDOW, SPIKE_DEVIATIONS = 1000, 7.0


def first_step(condition: xr.DataArray) -> xr.DataArray:
    """First step at which a condition over (run, step) is true; NaN for runs where it never is."""
    steps = condition["step"].values[np.argmax(condition.transpose("run", "step").values, axis=1)]
    return xr.where(condition.any("step"), xr.DataArray(steps.astype(float), dims="run"), np.nan)


def loss_exceeded_step(record: xr.DataTree) -> xr.DataArray:
    """First step at which the training loss exceeds 1.5 times its initial value; NaN if it never does."""
    loss = record.wb["train_loss"]
    return first_step(loss > EXCEEDED * loss.isel(step=0))


def final_loss(record: xr.DataTree) -> xr.DataArray:
    """Mean training loss over the last tenth of the steps, at most the initial loss, which also stands for a diverged run.

    The cap and the stand-in are those of Wortsman et al. 2023 (arXiv:2309.14322), where they define learning-rate sensitivity.
    The record of a fork, which does not know the initial loss, has neither: its final loss is as measured, NaN if diverged.
    """
    loss = record.wb["train_loss"]
    initial = loss.isel(step=0, drop=True)
    last = loss.isel(step=slice(-max(1, round(LAST_SHARE * loss.sizes["step"])), None)).mean("step", skipna=False)
    return last if record.attrs.get("start", 0) else xr.where(last < initial, last, initial)


def spike_score(values: xr.DataArray, window: int = SPIKE_WINDOW, deviations: float = SPIKE_DEVIATIONS) -> xr.DataArray:
    """Share of the values over (run, step) that lie more than `deviations` standard deviations above the mean of the `window` before.

    OLMo 2 (arXiv:2501.00656) takes 1000 values and 7 deviations, of loss and gradient norm; its released monitor 128 and 6. As there the
    deviation is that of a whole population, a spike is itself among the values that later ones are compared with, and where all values of a
    window are equal nothing is a spike. Only values with a whole finite window before them are counted; NaN for a run that has none.
    """
    ordered = values.transpose("run", "step")
    return xr.DataArray([_spike_share(row, window, deviations) for row in np.asarray(ordered.values, float)], dims="run")


def _spike_share(row: np.ndarray, window: int, deviations: float) -> float:
    if len(row) <= window:
        return np.nan
    before = sliding_window_view(row[:-1], window)
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        mean, deviation = before.mean(-1), before.std(-1)
    counted = np.isfinite(mean) & np.isfinite(row[window:])
    varies = before.max(-1) > before.min(-1)
    spikes = counted & varies & (row[window:] > mean + deviations * deviation)
    return spikes.sum() / counted.sum() if counted.any() else np.nan


def recovery_time(excess: xr.DataArray, after: xr.DataArray | float, margin: float, window: int = 1) -> xr.DataArray:
    """Steps from `after` on until an excess over (run, step) is back: the mean of the `window` values that follow is at most `margin`.

    `after` is one step or one a run. NaN for a run that does not come back, or whose `after` is NaN. The excess is that of a curve over
    what it is compared with: a twin, or its own level of before.
    """
    ordered = excess.transpose("run", "step")
    steps, heights = ordered["step"].values, np.asarray(ordered.values, float)
    start = np.broadcast_to(np.asarray(after, float), len(heights))
    if len(steps) < window:
        return xr.DataArray(np.full(len(heights), np.nan), dims="run")
    means = sliding_window_view(heights, window, axis=-1).mean(-1)
    begins = steps[: means.shape[1]]
    back = (means <= margin) & (begins >= start[:, None])
    return xr.DataArray(np.where(back.any(1), begins[back.argmax(1)] - start, np.nan), dims="run")
