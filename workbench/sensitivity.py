"""Sensitivity to the learning rate, and power laws over the size of a net (Wortsman et al. 2023, arXiv:2309.14322). No torch."""

import numpy as np
import xarray as xr

LOWEST, HIGHEST = 3e-4, 3e-1


def lr_sensitivity(loss: xr.DataArray, initial: xr.DataArray | float, lowest: float = LOWEST, highest: float = HIGHEST) -> xr.DataArray:
    """What the final `loss` (lr, ...) loses on average over the learning rates from `lowest` to `highest`, in its units.

    S = mean over lr of min(loss, initial) - min over lr of it. A diverged run (NaN) counts as the loss at initialization. The
    rates must be evenly spaced on a logarithmic scale or nearly so, as 3e-4, 1e-3, ..., 3e-1 are. NaN where all runs diverged.
    """
    inside = loss.where((loss["lr"] >= lowest) & (loss["lr"] <= highest), drop=True)
    capped = xr.where(inside < initial, inside, initial)
    return (capped - inside.min("lr")).mean("lr")


def slope(y: xr.DataArray, x: xr.DataArray, over: str) -> xr.DataArray:
    """Slope of the least-squares line through (x, y) along the dimension `over`; NaN where a value is missing or x is all the same."""
    away = x - x.mean(over)
    spread = (away**2).sum(over)
    return (away * y).sum(over, skipna=False) / spread.where(spread > 0)


def power_law(y: xr.DataArray, over: str) -> xr.Dataset:
    """The line through (log10 x, log10 y), x the coordinate of the dimension `over`: its `slope`, and its `intercept` at x = 1.

    `y` may have other dimensions, each of which gets a line of its own. NaN where a value is missing or not positive.
    """
    x, y = np.log10(y[over].astype(float)), np.log10(y.where(y > 0))
    found = slope(y, x, over)
    return xr.Dataset({"slope": found, "intercept": y.mean(over, skipna=False) - found * x.mean(over)})


def extrapolated(law: xr.Dataset, x: float | xr.DataArray) -> xr.DataArray:
    """What a power law says at x."""
    return 10 ** (law["intercept"] + law["slope"] * np.log10(x))
