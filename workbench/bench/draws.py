"""Draws: what the batches of many runs take, beside the updates that they are for."""

from collections.abc import Iterator

import xarray as xr

from ..engine.draws import Draws
from . import Asked
from .cases import Case, named
from .chunk import chunk, seconds_of
from .tables import Table, spread

RUNS = 1024
STEPS = 64


def measure(asked: Asked) -> xr.Dataset:
    """Seconds over (case, pair) of drawing for one step of 1,024 runs, and of that step; on one worker both."""
    cases = named(asked.cases or ("d32",))
    return xr.concat([_of_case(case, asked) for case in cases], xr.Variable("case", [case.name for case in cases]))


def tables(found: xr.Dataset) -> Iterator[Table]:
    """A row a case."""
    rows = []
    for name in found["case"].values:
        draw, step = (found[part].sel(case=name).values for part in ("draw", "step"))
        rows.append([name, str(RUNS), spread(1e3 * draw), spread(1e3 * step), spread(100 * draw / step), "10"])
    notes = [f"Milliseconds of one step of all runs, chunk after chunk on one worker; the batches of {STEPS} steps from the first on."]
    yield Table("Draws", ("case", "runs", "drawing ms", "step ms", "share %", "at most"), rows, notes, ("case",))


def _of_case(case: Case, asked: Asked) -> xr.Dataset:
    asked.say(f"{case.name}: draws, making ready")
    ready, one = chunk(case, RUNS)
    (cohort,), (choice,) = ready.cohorts, ready.choices
    parts = choice.parts(RUNS)

    def draw() -> None:
        for each in [Draws(cohort, part, ready.setting.dtype, ready.setting.device) for part in parts]:
            for step in range(STEPS):
                each.at(step)

    drawing, stepping = [], []
    for i in range(asked.pairs):
        asked.say(f"{case.name}: draws, round {i + 1} of {asked.pairs}")
        drawing.append(seconds_of(draw, ready, asked.seconds / 2) / STEPS)
        stepping.append(seconds_of(lambda: one.step(1), ready, asked.seconds / 2) * len(parts))
    attrs = {"units": "s"}
    return xr.Dataset(
        {
            "draw": ("pair", drawing, {"long_name": f"time of drawing the batches of {RUNS} runs for one step", **attrs}),
            "step": ("pair", stepping, {"long_name": f"time of one step of {RUNS} runs on one worker", **attrs}),
        }
    )
