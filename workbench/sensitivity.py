"""Sensitivity to the learning rate, and laws over the size of a net (Wortsman et al. 2023, arXiv:2309.14322). No torch."""

import numpy as np
import xarray as xr

LOWEST, HIGHEST = 3e-4, 3e-1


def lr_sensitivity(loss: xr.DataArray, initial: xr.DataArray | float, lowest: float = LOWEST, highest: float = HIGHEST) -> xr.DataArray:
    """What the final `loss` (lr, ...) loses on average over the learning rates from `lowest` to `highest`, in its units.

    S = mean over lr of min(loss, initial) - min over lr of it. A diverged run (NaN) counts as the loss at initialization. The
    rates must be evenly spaced on a logarithmic scale or nearly so, as 3e-4, 1e-3, ..., 3e-1 are. NaN where all runs diverged, or none
    has such a rate.
    """
    inside = loss.where((loss["lr"] >= lowest) & (loss["lr"] <= highest), drop=True)
    if not inside.sizes["lr"]:
        return xr.full_like(loss.isel(lr=0, drop=True), np.nan)
    capped = xr.where(inside < initial, inside, initial)
    return (capped - inside.min("lr")).mean("lr")


def slope(y: xr.DataArray, x: xr.DataArray, over: str) -> xr.DataArray:
    """Slope of the least-squares line through (x, y) along the dimension `over`; NaN where a value is missing or x is all the same."""
    away = x - x.mean(over)
    spread = (away**2).sum(over)
    return (away * y).sum(over, skipna=False) / spread.where(spread > 0)


def exponent(y: xr.DataArray, over: str) -> xr.DataArray:
    """Exponent of the power law y ~ x^exponent, x the coordinate of the dimension `over`: the least-squares slope of the logarithms.

    `y` may have other dimensions, each of which gets an exponent of its own. NaN where a value is missing or not positive.
    """
    return slope(np.log10(y.where(y > 0)), np.log10(y[over].astype(float)), over)


def extrapolated(y: xr.DataArray, over: str, x: float | xr.DataArray, degree: int = 1) -> xr.DataArray:
    """What the least-squares polynomial of log10 y in log10 of the coordinate `over` says at x: of degree 1 a power law, 2 a parabola.

    NaN where a value is missing or not positive, and where there are not more values than the degree.
    """
    logs = np.log10(y.where(y > 0)).assign_coords({over: np.log10(y[over].astype(float))})
    known = logs.notnull().all(over) & (logs.sizes[over] > degree)
    law = logs.fillna(0.0).polyfit(over, min(degree, logs.sizes[over] - 1))["polyfit_coefficients"]
    return 10 ** xr.polyval(xr.DataArray(np.log10(x)), law).where(known)


def trained_decades(loss: xr.DataArray, most: xr.DataArray | float) -> xr.DataArray:
    """Decades of learning rate over which the final `loss` (lr, ...) is at most `most`; it is linear in log10(lr) between the rates.

    NaN where a loss is missing.
    """
    ordered = loss.sortby("lr").transpose("lr", ...)
    decades = xr.DataArray(np.diff(np.log10(ordered["lr"].values)), dims="lr")
    left, right = (ordered.isel(lr=part).drop_vars("lr") for part in (slice(None, -1), slice(1, None)))
    low, high = np.minimum(left, right), np.maximum(left, right)
    rises = high > low
    share = ((most - low) / (high - low).where(rises, 1.0)).clip(0, 1)
    return (decades * share.where(rises | low.isnull() | high.isnull(), (low <= most).astype(float))).sum("lr", skipna=False)
