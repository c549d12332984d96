"""Beginning: each contender trains a few steps in a process of its own. How long it takes to begin, and the peak of memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from ..errors import InputError
from ..places import CACHE_VARIABLE
from . import Asked
from .contenders import WITHOUT_JAX, installed, kind
from .tables import Table, number

STEPS = 10
CODE = "import json; from workbench.bench.beginning import alone; print(json.dumps(alone({contender!r}, {case!r})))"
STATUS = Path("/proc/self/status")
# The engine twice: its first process compiles what later ones find.
PROCESSES = {"plain": "plain", "engine, first": "engine", "engine": "engine", "jax": "jax"}


def measure(asked: Asked) -> xr.Dataset:
    """Bytes and seconds over (case, process)."""
    from .cases import named

    cases, here = named(asked.cases), installed()
    found = np.full((2, len(cases), len(PROCESSES)), np.nan)
    for i, case in enumerate(cases):
        with tempfile.TemporaryDirectory() as cache:
            for j, (process, name) in enumerate(PROCESSES.items()):
                if name in here:
                    asked.say(f"{case.name}: beginning, {process}")
                    found[:, i, j] = _of_process(name, case.name, cache)
    dims = ("case", "process")
    return xr.Dataset(
        {
            "peak_memory": (dims, found[0], {"long_name": "largest resident memory over that after the imports", "units": "B"}),
            "beginning": (dims, found[1], {"long_name": f"time of making ready and of {STEPS} updates of all runs", "units": "s"}),
        },
        {"case": [case.name for case in cases], "process": list(PROCESSES)},
    )


def tables(found: xr.Dataset) -> Iterator[Table]:
    """A row a case."""
    rows = []
    for name in found["case"].values:
        one = found.sel(case=name)
        rows.append([name, *map(number, one["beginning"].values), *map(number, one["peak_memory"].values / 1e6)])
    notes = [
        f"Of a process over its imports, {STEPS} updates of all runs. The engine's first process has nothing compiled, the second has."
    ]
    without = bool(found["peak_memory"].sel(process="jax").isnull().all())
    columns = ("case", *(f"{process} {units}" for units in ("s", "MB") for process in found["process"].values))
    yield Table("Beginning", columns, rows, [*notes, WITHOUT_JAX] if without else notes, ("case",))


def alone(contender: str, case: str) -> tuple[int, float]:
    """Bytes by which a few updates raise the peak of this process, and the seconds they take with all that is made ready before."""
    from .cases import CASES

    make = kind(contender)
    before, began = peak(), time.perf_counter()
    make(CASES[case]).train(STEPS)
    return peak() - before, time.perf_counter() - began


def peak() -> int:
    """The largest resident memory that this process had so far, in bytes."""
    if STATUS.exists():
        # Linux hands getrusage's number on from a process to what it executes; this one begins anew.
        return next(1024 * int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _of_process(contender: str, case: str, cache: str) -> tuple[int, float]:
    code = CODE.format(contender=contender, case=case)
    place = {CACHE_VARIABLE: cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | place)
    if done.returncode:
        raise InputError(f"The process of {contender!r} on case {case!r} ended in an error: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)
