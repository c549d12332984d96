"""Speed: the plain loop, the engine and JAX on the same models, taking turns."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from . import Asked
from .cases import Case, named
from .contenders import NAMES, WITHOUT_JAX, installed, kind
from .rounds import rounds
from .tables import Table, number, spread


def measure(asked: Asked) -> xr.Dataset:
    """Seconds of an update of one run over (case, contender, pair), and what they are compared with."""
    if asked.device != "cpu":
        from . import gpu

        return gpu.measure(asked)
    cases = named(asked.cases)
    return xr.concat([_of_case(case, asked) for case in cases], xr.Variable("case", [case.name for case in cases]))


def tables(found: xr.Dataset) -> Iterator[Table]:
    """How fast, and how the engine and the plain loop trained."""
    if "case" not in found.dims:
        from . import gpu

        yield from gpu.tables(found)
        return
    each = [found.sel(case=name) for name in found["case"].values]
    columns = ("case", "runs", "plain ms", "engine ms", "jax ms", "engine/plain", "to reach", "engine/jax", "% of peak")
    peak = spread(found["matrix_product_rate"].values.ravel() / 1e9)
    notes = [
        "Milliseconds of an update of one run, and ratios of speed: median [least, largest] of the rounds.",
        f"The peak is {peak} GFLOP/s, a float32 matrix product on all cores.",
    ]
    without = bool(found["seconds"].sel(contender="jax").isnull().all())
    yield Table("Speed", columns, [_speed(one) for one in each], [*notes, WITHOUT_JAX] if without else notes, words=("case",))
    columns = ("case", "plain ms, 1 thread", "all threads", "taken", "engine")
    yield Table("How they trained", columns, [_way(one) for one in each], words=("case", "engine"))


def _speed(one: xr.Dataset) -> list[str]:
    plain, engine, jax = one["seconds"].values
    share = float(one["operations"]) / engine / one["matrix_product_rate"].values
    medians = [number(1e3 * np.median(seconds)) for seconds in (plain, engine, jax)]
    reach = number(one["target"])
    return [one["case"].item(), str(int(one["runs"])), *medians, spread(plain / engine), reach, spread(jax / engine), spread(100 * share)]


def _way(one: xr.Dataset) -> list[str]:
    return [one["case"].item(), *map(number, 1e3 * one["plain_seconds"].values), str(int(one["plain_threads"])), one["way"].item()]


def _of_case(case: Case, asked: Asked) -> xr.Dataset:
    made = {name: kind(name)(case) for name in installed()}
    plain = made["plain"]
    on = list(plain.seconds_on.values())
    seconds, rates = rounds(made, asked, case.name)
    missing = np.full(asked.pairs, np.nan)
    return xr.Dataset(
        {
            "seconds": (
                ("contender", "pair"),
                [seconds.get(name, missing) for name in NAMES],
                {"long_name": "time of an update of one run", "units": "s"},
            ),
            "matrix_product_rate": ("pair", rates, {"long_name": "operations a second of a float32 matrix product", "units": "1/s"}),
            "operations": ((), plain.operations, {"long_name": "floating-point operations of an update of one run"}),
            "runs": ((), case.runs, {"long_name": "runs that train together"}),
            "target": ((), case.target, {"long_name": "speed of the engine over that of the plain loop, to be reached on two cores"}),
            "plain_seconds": ("threads", [on[0], on[-1]], {"long_name": "time of an update of the plain loop", "units": "s"}),
            "plain_threads": ((), plain.threads, {"long_name": "threads that the plain loop took"}),
            "way": ((), made["engine"].way, {"long_name": "how the engine trained"}),
        },
        {"contender": list(NAMES), "threads": ["one", "all"]},
    )
