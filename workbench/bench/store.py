"""Storing: what writing a record adds to training, and how long a large one takes to open and to draw."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from .. import noise
from ..catalogue import find
from ..design import grid
from ..engine import plan, run
from ..opening import open_record
from ..record import blank, save
from ..schema import Variable
from ..views import final_loss_against_lr
from . import Asked
from .probes import STUDY
from .tables import Table, number, spread

UPDATES = 1700  # for each second of a round; a record is written every two seconds and once at the end
RUNS, POINTS, CLOCK = 2000, 200, 10
VARIABLES = ("train_loss", "learning_rate", "gradient_norm_total", "weight_norm_total")
RATES = 10
AXES = dict(width=32, depth=2, context=32, batch=8, lr=[1e-3, 2e-3], seed=range(8))


def measure(asked: Asked) -> xr.Dataset:
    """Seconds over pair: of the same runs without and with a file, of opening a large record, of drawing its summary."""
    with tempfile.TemporaryDirectory() as folder:
        without, writing, updates = _written(Path(folder), asked)
        opening, drawing, size = _opened(Path(folder), asked)
    return xr.Dataset(
        {
            "without": ("pair", without, {"long_name": f"time of runs of {STUDY} that write nothing", "units": "s"}),
            "writing": ("pair", writing, {"long_name": "time of the same runs with a record on disk", "units": "s"}),
            "updates": ((), updates, {"long_name": "updates of each of these runs", "units": "step"}),
            "opening": ("pair", opening, {"long_name": f"time of opening a record of {RUNS} runs", "units": "s"}),
            "drawing": ("pair", drawing, {"long_name": "time of drawing its summary", "units": "s"}),
            "size": ((), size, {"long_name": "its size on disk", "units": "B"}),
        }
    )


def tables(found: xr.Dataset) -> Iterator[Table]:
    """What is measured, and what it should stay under."""
    without, writing = (found[name].values for name in ("without", "writing"))
    rows = [
        ["runs without a file, s", spread(without), ""],
        ["the same with a file, s", spread(writing), ""],
        ["cost of the file, %", spread(100 * (writing / without - 1)), "2.00"],
        ["opening a large record, s", spread(found["opening"].values), "1.00"],
        ["drawing its summary, s", spread(found["drawing"].values), "2.00"],
    ]
    size = f"{RUNS:,} runs x {POINTS} points x {len(VARIABLES)} variables, {number(found['size'] / 1e6)} MB"
    notes = [
        f"Runs: {int(found['updates'])} updates of 16 small transformers with the default probes of {STUDY}; both in turns.",
        f"Large record: {size}.",
    ]
    yield Table("Storing", ("what", "median [least, largest]", "at most"), rows, notes, ("what",))


def _written(folder: Path, asked: Asked) -> tuple[list[float], list[float], int]:
    def training(steps: int, **out: Any) -> float:
        return _seconds(lambda: run(STUDY, steps=steps, device="cpu", progress=False, **AXES, **out))[0]

    asked.say("storing: making ready")
    steps = max(1, round(UPDATES * asked.seconds))
    training(steps)  # what is to be compiled is compiled
    without, writing = [], []
    for i in range(asked.pairs):
        asked.say(f"storing: round {i + 1} of {asked.pairs}")
        without.append(training(steps))
        writing.append(training(steps, out=folder / "record.nc", overwrite=True))
    return without, writing, steps


def _opened(folder: Path, asked: Asked) -> tuple[list[float], list[float], int]:
    asked.say("storing: a large record")
    path = save(large_record(), folder / "large.nc")
    final_loss_against_lr(open_record(path)).to_dict()  # imports
    opening, drawing = [], []
    for _ in range(asked.pairs):
        took, record = _seconds(lambda: open_record(path))
        opening.append(took)
        drawing.append(_seconds(lambda record=record: final_loss_against_lr(record).to_dict())[0])
    return opening, drawing, path.stat().st_size


def large_record(runs: int = RUNS, points: int = POINTS) -> xr.DataTree:
    """A record of random walks: as many runs, and as many points of each of four variables."""
    study, steps = find(STUDY), CLOCK * (points - 1)
    rates = [1e-4 * 10 ** (i / 3) for i in range(RATES)]
    rows = grid(lr=rates, seed=range(runs // RATES)).rows(study.knobs)
    variables = [Variable(name, CLOCK, (), "float32", {"long_name": name, "units": "1", "cost": "free"}) for name in VARIABLES]
    schema = plan(study, rows[:1], steps).schema
    record = blank(replace(schema, rows=rows, variables=variables, attrs={"study": study.name, "title": study.title}))
    for name in VARIABLES:
        walk = noise.normal(noise.key_of(0), name, (len(rows), points)).cumsum(1)
        record[f"every_{CLOCK}"].dataset[name].values[:] = 4 + walk.numpy() / 100
    return record


def _seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = call()
    return time.perf_counter() - began, made
