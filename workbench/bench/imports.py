"""Imports: how long a person waits before anything has begun, and that looking does not wait for torch."""

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import xarray as xr

from . import Asked
from .tables import Table, number

TIMES = 9
COMMANDS = {"import workbench": ["-c", "import workbench"], "workbench list": ["-m", "workbench", "list"]}
LIMITS = {"import workbench": 0.3, "workbench list": 0.6}
SAME = {
    "import workbench": "import workbench",
    "workbench list": "from workbench.__main__ import main; main(['list'], standalone_mode=False)",
}
ASKED = "; import sys; print('torch' in sys.modules)"


def measure(asked: Asked) -> xr.Dataset:
    """Seconds over (command, time) of processes that do nothing else, and whether each imports torch."""
    asked.say("imports")
    seconds = [[_seconds(words) for _ in range(TIMES)] for words in COMMANDS.values()]
    torch = [_output(["-c", code + ASKED]).splitlines()[-1] == "True" for code in SAME.values()]
    return xr.Dataset(
        {
            "seconds": (("command", "time"), seconds, {"long_name": "time of a process", "units": "s"}),
            "torch": ("command", np.array(torch, "int8"), {"long_name": "whether it imports torch"}),
        },
        {"command": list(COMMANDS)},
    )


def tables(found: xr.Dataset) -> Iterator[Table]:
    """A row a command."""
    rows = []
    for name in found["command"].values:
        one = found.sel(command=name)
        times = one["seconds"].values
        rows.append([name, number(times.min()), number(np.median(times)), number(LIMITS[name]), "yes" if one["torch"] else "no"])
    columns = ("command", "least s", "median s", "at most", "imports torch")
    yield Table("Imports", columns, rows, [f"Seconds of {TIMES} processes each, Python's own start among them."], ("command",))


def _seconds(words: list[str]) -> float:
    began = time.perf_counter()
    _output(words)
    return time.perf_counter() - began


def _output(words: list[str]) -> str:
    return subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True).stdout
