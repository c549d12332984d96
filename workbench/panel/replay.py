"""Replays: a record looked at as if it were training now. Nothing is trained, and torch is not needed."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .. import places
from ..design import axes
from ..errors import InputError, unknown
from ..history import Series, Track
from ..knobs import Spec
from ..record import clocks_of
from ..schema import Change, Variable
from ..study import Study
from ..views.theme import word

SECONDS = 10.0  # in which a whole record goes by
SETTING = "setting"
BRANCH = "branch"


class Replay:
    """The runs of a record that differ only in the seed are a setting; one is shown from its first step to where the replay stands.

    What may be changed are the knobs that vary between runs: another value goes to the setting nearest to it.
    """

    def __init__(self, study: Study, record: xr.DataTree, row: Mapping[str, Any]) -> None:
        self.study, self.record = study, record
        self.knobs: Mapping[str, Spec] = {name: spec for name, spec in axes(study.knobs).items() if name != "seed"}
        self.settings = settings_of(record, self.knobs)
        self.variables = variables_of(record)
        self.steps, self.at = int(record.attrs["steps"]), 0
        self.resting: set[int] = set()
        self.carried = None
        self.cursor: int | None = None
        self._made = 0
        self.tracks: dict[int, Track] = {}
        self._settings: dict[int, Setting] = {}
        for branch in self.settings if BRANCH in record.coords else ():
            self._add(branch)
        self.selected = 1 if self.tracks else self._add(nearest(self.settings, row))

    @property
    def track(self) -> Track:
        """The selected setting."""
        return self.tracks[self.selected]

    @property
    def step(self) -> int:
        """Where the replay stands."""
        return self.at

    @property
    def row(self) -> Mapping[str, Any]:
        """The knobs of the selected setting."""
        return self.track.row

    @property
    def training(self) -> list[int]:
        """What may go on."""
        return list(self.tracks) if self.at < self.steps else []

    @property
    def origin(self) -> str:
        """What `wb.open` opens this record by: the study's name if it ships with the package, else its path."""
        source = Path(self.record.encoding.get("source", f"{self.study.name}.nc"))
        return self.study.name if source == places.datasets() / f"{self.study.name}.nc" else str(source)

    def selection(self) -> xr.DataTree:
        """The part of the record that is the selected setting."""
        names = [*self.varied, *([BRANCH] if BRANCH in self.record.coords else [])]
        return self.record.wb.where(**{name: self._settings[self.selected][name] for name in names})

    @property
    def varied(self) -> list[str]:
        """The knobs in which settings differ."""
        return varied_in(self.settings)

    def departure(self, asked: Mapping[str, Any]) -> str:
        """In what the selected setting is not what was asked for, as a sentence; empty if it is all that."""
        other = [f"{name} {word(self.row[name])} (asked: {word(value)})" for name, value in asked.items() if self.row[name] != value]
        return f"The nearest setting of the record has {', '.join(other)}." if other else ""

    @property
    def pace(self) -> float:
        """Steps per second at which a replay goes by."""
        return self.steps / SECONDS

    def advance(self) -> int:
        """One step further."""
        self.at = min(self.at + 1, self.steps)
        return 1

    def change(self, /, **knobs: Any) -> Track:
        """Show the setting that has these values, or the nearest; InputError for a knob that does not vary in this record."""
        checked = self._checked(knobs)
        found = nearest(self.settings, dict(self.row) | checked, first=list(checked))
        number = self.selected
        self._show(number, found)
        return self.track

    def twin(self, /, **knobs: Any) -> Track:
        """Another setting beside the selected one."""
        checked = self._checked(knobs)
        self.selected = self._add(nearest(self.settings, dict(self.row) | checked, first=list(checked)))
        return self.track

    def begin(self, row: Mapping[str, Any], seeds: Sequence[int], *, alone: bool = True) -> int:
        """Show one setting alone, from the start."""
        self.tracks, self._made, self.at = {}, 0, 0
        self.selected = self._add(nearest(self.settings, row))
        return self.selected

    def travel(self, step: int) -> Iterator[int]:
        """Go to a step."""
        if not 0 <= step <= self.steps:
            raise InputError(f"Step {step} is outside the record, which goes from step 0 to {self.steps}.")
        return self._arriving(step)

    def nearest(self, step: int) -> int:
        """Every step is there."""
        return step

    def kept(self, number: int) -> list[int]:
        """Every step is there; none needs to be marked."""
        return []

    def select(self, number: int) -> None:
        """Select a setting."""
        if not isinstance(number, int) or number not in self.tracks:
            raise InputError(f"There is no branch {number}; there are {', '.join(map(str, self.tracks))}.")
        self.selected = number

    def rest(self, number: int, resting: bool) -> None:
        """A record goes by as a whole."""
        raise InputError("A replay goes by as a whole; remove the setting instead.")

    def forget(self, number: int) -> None:
        """Take a setting away."""
        if len(self.tracks) == 1:
            raise InputError("It is the only setting shown; choose another one by its knobs.")
        self.tracks.pop(number)
        if number == self.selected:
            self.selected = next(iter(self.tracks))

    def measure(self, names: Sequence[str]) -> None:
        """A record holds what it holds."""

    def _checked(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        varied = self.varied
        for name in knobs:
            if name not in self.knobs:
                raise unknown("knob", name, self.knobs)
            if name not in varied:
                here = f"Every run of this record has {name} = {self.row[name]!r}"
                raise InputError(f"{here}; perturb it in a live panel: wb.explore({self.study.name!r}).")
        return {name: self.knobs[name].check(value) for name, value in knobs.items()}

    def _arriving(self, step: int) -> Iterator[int]:
        self.at = step
        yield step

    def _add(self, setting: "Setting") -> int:
        self._made += 1
        self._show(self._made, setting)
        return self._made

    def _show(self, number: int, setting: "Setting") -> None:
        name = setting.get(BRANCH, f"{SETTING} {number}")
        self._settings[number] = setting
        self.tracks[number] = track_of(self.record, setting, self.variables, number, name)


class Setting(dict[str, Any]):
    """The knobs that some runs share; `runs` are their places in the record."""

    def __init__(self, row: Mapping[str, Any], runs: Sequence[int]) -> None:
        super().__init__(row)
        self.runs = tuple(runs)


def settings_of(record: xr.DataTree, known: Mapping[str, Spec]) -> list[Setting]:
    """The runs of a record by their knobs and by the branch, if it has any; those that differ only in the seed together."""
    names = [name for name in (*known, BRANCH) if name in record.coords]
    columns = {name: record[name].values.tolist() for name in names}
    found: dict[tuple[Any, ...], list[int]] = {}
    for run in range(record.sizes["run"]):
        found.setdefault(tuple(columns[name][run] for name in names), []).append(run)
    return [Setting({**{n: known[n].default for n in known}, **dict(zip(names, row, strict=True))}, runs) for row, runs in found.items()]


def varied_in(settings: Sequence[Setting]) -> list[str]:
    """The knobs in which settings differ."""
    return [name for name in settings[0] if name != BRANCH and len({setting[name] for setting in settings}) > 1]


def nearest(settings: Sequence[Setting], row: Mapping[str, Any], first: Sequence[str] = ()) -> Setting:
    """The setting with fewest other values than `row`, numbers counted by their distance; knobs of `first` count before all others."""
    varied = varied_in(settings)

    def distance(setting: Setting) -> tuple[float, float]:
        each = {name: _apart(setting[name], row[name]) for name in varied if name in row}
        return sum(each[name] for name in first if name in each), sum(each.values())

    return min(settings, key=distance)


def _apart(a: Any, b: Any) -> float:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and not isinstance(a, bool):
        if a > 0 and b > 0:
            return min(1.0, abs(math.log10(a / b)) / 3)
        return 0.0 if a == b else 1.0
    return float(a != b)


def variables_of(record: xr.DataTree) -> dict[str, Variable]:
    """What a record holds, as its schema had it."""
    found = {}
    for name, clock in clocks_of(record).items():
        values = record.wb[name]
        dims = tuple(str(dim) for dim in values.dims if dim not in ("run", "step"))
        attrs = {key: str(value) for key, value in values.attrs.items()}
        found[name] = Variable(name, clock, dims, str(values.dtype), attrs)
    return found


def track_of(record: xr.DataTree, setting: Setting, variables: Mapping[str, Variable], number: int, name: str) -> Track:
    """The runs of a setting as a track that has been trained to its end."""
    runs, row = list(setting.runs), {name: value for name, value in setting.items() if name != BRANCH}
    places = _measured_places(record, runs, variables)
    labels = {
        dim: np.array(record.wb[v].indexes[dim])[kept].tolist()
        for v in variables
        for dim, kept in places.items()
        if dim in record.wb[v].dims
    }
    diverged = record["events"]["diverged_step"].values[runs]
    track = Track(
        number=number,
        name=name,
        kind=SETTING,
        seeds=tuple(record["seed"].values[runs].tolist()),
        first=row,
        row=row,
        variables=variables,
        labels=labels,
        step=int(record["events"]["steps_done"].values[runs].max()),
        changes=_changes(record, runs[0]),
        diverged=np.where(np.isnan(diverged), -1, diverged).astype(int),
    )
    for variable in variables:
        own = {dim: kept for dim, kept in places.items() if dim in record.wb[variable].dims}
        values = record.wb[variable].isel(run=runs, **own).transpose("step", "run", ...)
        track.own[variable] = Series.of(values["step"].values, values.values)
    return track


def _measured_places(record: xr.DataTree, runs: Sequence[int], variables: Mapping[str, Variable]) -> dict[str, np.ndarray]:
    """Of each dimension the places of the labels at which these runs have values: a net of two layers has no third."""
    found: dict[str, np.ndarray] = {}
    for name, variable in variables.items():
        measured = record.wb[name].isel(run=list(runs)).notnull()
        for dim in variable.dims:
            some = measured.any([d for d in measured.dims if d != dim]).values
            found[dim] = found.get(dim, np.zeros_like(some)) | some
    return {dim: np.flatnonzero(some) for dim, some in found.items()}


def _changes(record: xr.DataTree, run: int) -> list[Change]:
    t = record["timeline"].to_dataset(inherit=False)
    rows = zip(*(t[name].values.tolist() for name in ("changed_run", "at_step", "knob", "old", "new")), strict=True)
    number = record["run"].values[run]
    return [Change(0, step, knob, json.loads(old), json.loads(new)) for which, step, knob, old, new in rows if which == number]
