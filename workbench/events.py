"""Events: one number per run, read off its curves. No torch."""

import numpy as np
import xarray as xr

EXCEEDED = 1.5
LAST_SHARE = 0.1


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
