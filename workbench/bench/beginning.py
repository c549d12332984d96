"""Peak memory: each contender trains a few steps in a process of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from ..places import CACHE_VARIABLE
from . import Asked
from .contenders import NAMES, WITHOUT_JAX, installed, kind
from .tables import Table, number

STEPS = 10
CODE = "from workbench.bench.memory import alone; print(alone({contender!r}, {case!r}))"
STATUS = Path("/proc/self/status")


def measure(asked: Asked) -> xr.Dataset:
    """Bytes over (case, contender), and over case those of the engine's first process, which compiles what later ones find."""
    from .cases import named

    cases, here = named(asked.cases), installed()
    found, first = np.full((len(cases), len(NAMES)), np.nan), np.zeros(len(cases))
    for i, case in enumerate(cases):
        with tempfile.TemporaryDirectory() as cache:
            asked.say(f"{case.name}: memory of the engine while it compiles")
            first[i] = _of_process("engine", case.name, cache)
            for j, name in enumerate(here):
                asked.say(f"{case.name}: memory of {name}")
                found[i, j] = _of_process(name, case.name, cache)
    long_name = "largest resident memory of a process over that after its imports"
    return xr.Dataset(
        {
            "peak_memory": (("case", "contender"), found, {"long_name": long_name, "units": "B"}),
            "compiling": ("case", first, {"long_name": f"{long_name}, of the engine where nothing is compiled yet", "units": "B"}),
        },
        {"case": [case.name for case in cases], "contender": list(NAMES)},
    )


def tables(found: xr.Dataset) -> Iterator[Table]:
    """A row a case."""
    rows = []
    for name in found["case"].values:
        one = found.sel(case=name)
        plain, engine, jax = (number(size / 1e6) for size in one["peak_memory"].values)
        rows.append([name, plain, engine, number(one["compiling"] / 1e6), jax])
    notes = [f"Of a process over its imports, {STEPS} updates of all runs."]
    without = bool(found["peak_memory"].sel(contender="jax").isnull().all())
    columns = ("case", "plain MB", "engine MB", "compiling MB", "jax MB")
    yield Table("Peak memory", columns, rows, [*notes, WITHOUT_JAX] if without else notes, ("case",))


def alone(contender: str, case: str) -> int:
    """Bytes by which a few updates raise the peak of this process."""
    from .cases import CASES

    make = kind(contender)
    before = peak()
    make(CASES[case]).train(STEPS)
    return peak() - before


def peak() -> int:
    """The largest resident memory that this process had so far, in bytes."""
    if STATUS.exists():
        # Linux hands getrusage's number on from a process to what it executes; this one begins anew.
        return next(1024 * int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _of_process(contender: str, case: str, cache: str) -> int:
    code = CODE.format(contender=contender, case=case)
    place = {CACHE_VARIABLE: cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | place).stdout)
