"""Speed on a GPU: 1 to 1,024 runs of the small transformer in runs x steps a second, beside the plain loop there."""

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr

from ..errors import InputError
from . import Asked
from .cases import named
from .ours import Engine
from .plain import Plain
from .rounds import rounds
from .tables import Table, number, spread

RUNS = (1, 16, 256, 1024)
LOOPED = 4  # runs of the plain loop, which takes as long for each of many
TARGETS = {1024: 50.0}


def measure(asked: Asked) -> xr.Dataset:
    """Seconds of an update of one run over (runs, contender, pair)."""
    device = checked(asked.device)
    if len(cases := named(asked.cases or ("d32",))) > 1:
        raise InputError("On a GPU one case is measured at a time; give --case once.")
    seconds, ways = [], []
    for runs in RUNS:
        made = {"plain": Plain(cases[0], device, min(runs, LOOPED)), "engine": Engine(cases[0], device, runs)}
        found, _ = rounds(made, asked, f"{cases[0].name}, {runs} runs")
        seconds.append([found["plain"], found["engine"]])
        ways.append(made["engine"].way)
    return xr.Dataset(
        {
            "seconds": (("runs", "contender", "pair"), seconds, {"long_name": "time of an update of one run", "units": "s"}),
            "way": ("runs", ways, {"long_name": "how the engine trained"}),
        },
        {"runs": list(RUNS), "contender": ["plain", "engine"]},
        {"case": cases[0].name, "gpu": torch.cuda.get_device_name(device), "precision": torch.get_float32_matmul_precision()},
    )


def tables(found: xr.Dataset) -> Iterator[Table]:
    """A row for each number of runs."""
    rows = []
    for runs in found["runs"].values:
        plain, engine = found["seconds"].sel(runs=runs).values
        medians = [number(np.median(1 / seconds)) for seconds in (plain, engine)]
        target = number(TARGETS[runs]) if runs in TARGETS else ""
        rows.append([str(runs), *medians, spread(plain / engine), target, str(found["way"].sel(runs=runs).item())])
    notes = [
        f"Runs x steps a second of {found.attrs['case']} in float32, matrix products in precision "
        f"{found.attrs['precision']!r}, on {found.attrs['gpu']}.",
        "bfloat16, compiled steps and CUDA graphs are left out: on a GPU the engine trains eagerly, in float32 or float64.",
    ]
    columns = ("runs", "plain", "engine", "engine/plain", "to reach", "engine trained")
    yield Table("Speed on the GPU", columns, rows, notes, columns[-1:])


def checked(device: str) -> torch.device:
    """The device, if it can be computed on; InputError otherwise."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {device!r} cannot be used here ({str(error).splitlines()[0]}); choose cpu or cuda.") from error
    return found
