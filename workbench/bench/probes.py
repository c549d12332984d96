"""Probes: what measuring adds to training. The default ones of entropy_collapse together, and each optional one by itself."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from ..catalogue import find
from ..errors import InputError
from ..knobs import specs
from ..probe import CLOCKS, Probe
from . import Asked
from .cases import CASES, Case, named
from .chunk import chunk, seconds_of
from .ours import Engine
from .rounds import rounds
from .tables import Table, number, spread

STUDY = "entropy_collapse"
DEFAULT = f"defaults of {STUDY}"
SHORT = 0.25  # of a round's seconds, for one step of one chunk


def measure(asked: Asked) -> xr.Dataset:
    """Seconds of an update of one run over (case, probes, pair), and updates that a moment of each optional probe takes."""
    cases = transformers(asked.cases)
    return xr.concat([_of_case(case, asked) for case in cases], xr.Variable("case", [case.name for case in cases]))


def tables(found: xr.Dataset) -> Iterator[Table]:
    """The default probes, then the optional ones."""
    rows, singles = [], []
    for name in found["case"].values:
        alone, defaults = found["seconds"].sel(case=name).values
        rows.append([name, number(1e3 * np.median(alone)), number(1e3 * np.median(defaults)), spread(100 * (defaults / alone - 1)), "10"])
        for one in (found.sel(case=name, probe=probe) for probe in found["probe"].values):
            steps, clock = one["updates"].values, int(one["clock"])
            singles.append([name, one["probe"].item(), one["cost"].item(), str(clock), spread(steps), spread(100 * steps / clock)])
    notes = ["Milliseconds of an update of one run, with the loss alone and with all default probes at their clocks; whole streams."]
    yield Table("Default probes", ("case", "loss alone ms", "defaults ms", "cost %", "at most"), rows, notes, ("case",))
    columns = ("case", "probe", "cost class", "clock", "steps a moment", "cost %")
    notes = ["A moment's cost in updates, and in percent of training at the probe's clock; one chunk on one worker."]
    yield Table("Optional probes", columns, singles, notes, columns[:3])


def with_probes(case: Case, *probes: Probe) -> Case:
    """The case with these probes beside the loss."""
    return replace(case, study=replace(case.study, probes=tuple(dict.fromkeys((*case.study.probes, *probes)))))


def transformers(names: Sequence[str]) -> list[Case]:
    """The cases of these names, by default the small decoder; InputError for one without attention."""
    cases = named(names or ("d32",))
    for case in cases:
        if not _attends(case):
            able = ", ".join(name for name, case in CASES.items() if _attends(case))
            raise InputError(f"Case {case.name!r} has no attention for probes to read; choose {able}, or name other parts to measure.")
    return cases


def _attends(case: Case) -> bool:
    return "heads" in specs(case.study.knobs)


def _of_case(case: Case, asked: Asked) -> xr.Dataset:
    study = find(STUDY)
    made = {"train_loss": Engine(case), DEFAULT: Engine(with_probes(case, *study.probes))}
    # Rounds of whole hundreds of updates: each clock fires as often as it does in a long run.
    slowest = max(p.every for p in study.probes)
    seconds, _ = rounds(made, asked, f"{case.name}: default probes", slowest)
    singles = study.optional_probes
    updates = [_updates_of(case, p, asked) for p in singles]
    return xr.Dataset(
        {
            "seconds": (("probes", "pair"), list(seconds.values()), {"long_name": "time of an update of one run", "units": "s"}),
            "updates": (("probe", "pair"), updates, {"long_name": "time of measuring one moment over that of an update"}),
            "clock": ("probe", [p.every for p in singles], {"long_name": "updates from one moment to the next", "units": "step"}),
            "cost": ("probe", [p.cost for p in singles], {"long_name": "declared cost class"}),
        },
        {"probes": list(made), "probe": [p.name for p in singles]},
    )


def _updates_of(case: Case, probe: Probe, asked: Asked) -> list[float]:
    """In each round: what a moment of the probe takes, in updates."""
    asked.say(f"{case.name}: {probe.name}, making ready")
    ready, measuring = chunk(with_probes(case, probe))
    # A probe of every step is compiled into the update, others beside it.
    bare = chunk(case)[1] if probe.every == CLOCKS[0] else measuring
    found = []
    for i in range(asked.pairs):
        asked.say(f"{case.name}: {probe.name}, round {i + 1} of {asked.pairs}")
        without, with_it = (
            seconds_of(lambda one=one, step=step: one.step(step), ready, SHORT * asked.seconds) / len(one.positions)
            for one, step in ((bare, 1), (measuring, probe.every))
        )
        found.append(with_it / without - 1)
    return found
