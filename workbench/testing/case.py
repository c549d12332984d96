"""A study under examination: small designs of its own, trained for a few steps, and its smoke record."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import xarray as xr

from ..engine import Kept, plan, run, stream
from ..engine.experiment import Experiment, horizon
from ..errors import InputError
from ..knobs import Spec, specs
from ..record import blank, fill
from ..schema import Progress
from ..study import Study

MOST_DESIGNS = 6
MEMORY = 2**34  # a fixed budget: a check must not depend on what else the machine does

Row = Mapping[str, Any]


class Case:
    """What the checks of one study have in common, each part made when first asked for."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._trained: dict[tuple[int, str], Trained] = {}

    @cached_property
    def designs(self) -> list[list[Row]]:
        """Three runs for each set of static knobs in the smoke budget and the presets: as given, with another seed and lanes, both."""
        known = specs(self.study.knobs)
        rows = self.study.budget("smoke").design.rows(self.study.knobs)
        rows += [row for preset in self.study.presets if (row := _with(rows[0], preset.knobs, known))]
        distinct = {tuple(row[name] for name, spec in known.items() if not spec.is_lane): row for row in reversed(rows)}
        return [_three(row, known) for row in list(reversed(distinct.values()))[:MOST_DESIGNS]]

    @property
    def steps(self) -> int:
        """Updates that show every phase, and little enough for rounding errors to stay small."""
        return max(4, 2 * len(self.study.phases))

    def trained(self, design: int, mode: str) -> "Trained":
        """One of the designs, trained to the end."""
        if (design, mode) not in self._trained:
            self._trained[design, mode] = train(self.study, self.designs[design], self.steps, mode=mode)
        return self._trained[design, mode]

    @cached_property
    def experiment(self) -> Experiment:
        """A few steps of the first run of the smoke budget, measured with all that gauges show, and half-way a twin."""
        row = self.study.budget("smoke").design.rows(self.study.knobs)[0]
        default = [p.name for p in self.study.probes]
        wanted = {*default, *(gauge.variable for gauge in self.study.gauges)}
        offered = [p.name for p in (*self.study.probes, *self.study.optional_probes) if p.name in wanted]
        live = Experiment(self.study, row, (row["seed"],), steps=horizon(self.study), measured=offered)
        for step in range(self.steps):
            if step == self.steps // 2:
                live.twin()
            live.advance()
        return live

    @cached_property
    def smoke(self) -> xr.DataTree:
        """The record of the smoke budget."""
        return run(self.study, budget="smoke", device="cpu", progress=False)


class Trained(NamedTuple):
    """What a short training left: record, final state and step of divergence (-1: none) of each run."""

    record: xr.DataTree
    states: Mapping[int, Any]
    diverged: Mapping[int, int]


def train(study: Study, rows: Sequence[Row], steps: int, *, until: int | None = None, **settings: Any) -> Trained:
    """Train some rows to the end or to `until`, by default in float64; `settings` are those of `engine.plan`."""
    ready = plan(study, rows, steps, **{"dtype": torch.float64, "memory_budget": MEMORY, **settings})
    record, final, diverged = blank(ready.schema), {}, {}
    for item in stream(ready, until=steps if until is None else until):
        if isinstance(item, Kept):
            final.update(zip(item.runs, item.states, strict=True))
            continue
        fill(record, item)
        if isinstance(item, Progress):
            diverged.update(zip(item.runs, item.diverged, strict=True))
    return Trained(record, final, diverged)


def _with(row: Row, knobs: Mapping[str, Any], known: Mapping[str, Spec]) -> Row | None:
    try:
        return {**row, **{name: known[name].check(value) for name, value in knobs.items()}}
    except (InputError, KeyError):
        return None  # that the preset is wrong is found elsewhere


def _three(row: Row, known: Mapping[str, Spec]) -> list[Row]:
    other = {name: _another(spec, row[name]) if spec.acts == "live" else row[name] for name, spec in known.items()}
    return [dict(row), {**row, **other, "seed": row["seed"] + 1}, {**row, "seed": row["seed"] + 1}]


def _another(spec: Spec, value: Any) -> Any:
    """A valid value near `value`."""
    found = spec.type(0.9 * value if value else 0.1 * (spec.high or 0))
    return found if found in spec.valid else value
