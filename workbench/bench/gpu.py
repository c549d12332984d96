"""Speed on a GPU: 1 to 1,024 runs of the small transformer in runs x steps a second, beside the plain loop there."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from ..engine import devices
from ..errors import InputError
from . import Asked
from .cases import Case, named
from .ours import Engine
from .plain import Plain
from .rounds import rounds
from .tables import Table, number, spread

RUNS = (1, 16, 256, 1024)
LOOPED = 4  # runs of the plain loop, which takes as long for each of many
TARGETS = {1024: 50.0}
PRECISIONS = {"float32": False, "bfloat16": True}  # whether torch.autocast takes bfloat16
MODES = {"engine": "auto", "compiled": "compiled"}


def measure(asked: Asked) -> xr.Dataset:
    """Seconds of an update of one run over (precision, runs, contender, pair)."""
    device = devices.usable(asked.device, "cpu")
    if len(cases := named(asked.cases or ("d32",))) > 1:
        raise InputError("On a GPU one case is measured at a time; give --case once.")
    found = xr.concat([_at(precision, cases[0], device, asked) for precision in PRECISIONS], "precision")
    return found.assign_coords(precision=list(PRECISIONS)).assign_attrs(case=cases[0].name, device=devices.called(device))


def tables(found: xr.Dataset) -> Iterator[Table]:
    """A row for each precision and number of runs."""
    each = [found.sel(precision=precision, runs=runs) for precision in found["precision"].values for runs in found["runs"].values]
    notes = [
        f"Runs x steps a second of {found.attrs['case']} on {found.attrs['device']}: medians, and ratios of a round.",
        "bfloat16 is that of torch.autocast, for the plain loop as well.",
    ]
    columns = ("precision", "runs", "plain", *MODES, *(f"{mode}/plain" for mode in MODES), "to reach", "engine trained")
    yield Table("Speed on the GPU", columns, [_row(one) for one in each], notes, (columns[0], columns[-1]))


def _row(one: xr.Dataset) -> list[str]:
    seconds = {name: one["seconds"].sel(contender=name).values for name in one["contender"].values}
    runs = int(one["runs"])
    medians = [number(np.median(1 / taken)) for taken in seconds.values()]
    ratios = [spread(seconds["plain"] / seconds[mode]) for mode in MODES]
    target = number(TARGETS[runs]) if runs in TARGETS else ""
    return [one["precision"].item(), str(runs), *medians, *ratios, target, one["way"].item()]


def _at(precision: str, case: Case, device: torch.device, asked: Asked) -> xr.Dataset:
    own = replace(case, study=replace(case.study))  # so that no program of another precision is taken for one of this
    with torch.autocast(device.type, torch.bfloat16, enabled=PRECISIONS[precision]):
        seconds, ways = zip(*(_of(own, device, runs, asked, precision) for runs in RUNS), strict=True)
    return xr.Dataset(
        {
            "seconds": (("runs", "contender", "pair"), list(seconds), {"long_name": "time of an update of one run", "units": "s"}),
            "way": ("runs", list(ways), {"long_name": "how the engine trained"}),
        },
        {"runs": list(RUNS), "contender": ["plain", *MODES]},
    )


def _of(case: Case, device: torch.device, runs: int, asked: Asked, precision: str) -> tuple[list[np.ndarray], str]:
    made = {"plain": Plain(case, device, min(runs, LOOPED))}
    made |= {name: Engine(case, device, runs, mode) for name, mode in MODES.items()}
    seconds, _ = rounds(made, asked, f"{case.name}, {runs} runs, {precision}")
    return list(seconds.values()), made["engine"].way
