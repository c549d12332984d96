"""Going on with a record that an earlier process left unfinished."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..errors import InputError
from ..opening import open_record
from ..record import clocks_of
from ..store import partial_path
from . import checkpoints
from .choice import choose_again
from .cohorts import Cohort
from .plans import Plan
from .step import initial_states

# What must be as it was for the record to end as if it had never been interrupted.
DECIDES = ("study", "start", "steps", "dtype", "device", "design", "source_sha256", "data_sha256", "versions")
SAID = {"source_sha256": "another version of the study's source", "data_sha256": "other data"}


def begun(out: str | Path) -> xr.DataTree | None:
    """The unfinished record that grows beside `out`, if there is one; InputError if the record is there and finished."""
    if partial_path(out).exists():
        return open_record(partial_path(out))
    if Path(out).exists():
        raise InputError(f"Record {str(out)!r} is complete; there is nothing to resume. Give another name to make a new one.")
    return None


def continued(ready: Plan, record: xr.DataTree, attrs: Mapping[str, Any], out: str | Path) -> None:
    """Put into the plan how far each run of the record is, and its state there; InputError if the record is of another plan.

    Chunks whose runs are all at their end stay so; others go on from the latest state that was kept of all their runs together, or from
    the start.
    """
    _same(ready, record, attrs, out)
    choose_again(ready, record.attrs["layouts"])
    done, diverged = (record["events"][name].values for name in ("steps_done", "diverged_step"))
    with torch.no_grad():
        for cohort, choice in zip(ready.cohorts, ready.choices, strict=True):
            for part in choice.parts(len(cohort.runs)):
                runs = [cohort.runs[i] for i in part]
                reached = ready.setting.steps if (done[runs] == ready.setting.steps).all() else _loaded(ready, cohort, part, record, out)
                ready.reached.update(dict.fromkeys(runs, reached))
                ended = reached == ready.setting.steps
                found = {run: diverged[run] for run in runs if np.isfinite(diverged[run])}
                ready.diverged.update({run: int(at) for run, at in found.items() if at < reached or ended})


def _same(ready: Plan, record: xr.DataTree, attrs: Mapping[str, Any], out: str | Path) -> None:
    wanted = {**attrs, "steps": ready.setting.steps}
    for name in DECIDES:
        if record.attrs[name] != wanted[name]:
            said = SAID | {"design": _knobs(record.attrs["design"], wanted["design"])}
            raise _other(out, said.get(name, f"{name} {record.attrs[name]}, not {wanted[name]}"))
    before, now = clocks_of(record), {variable.name: variable.clock for variable in ready.schema.variables}
    if before != now:
        other = sorted(name for name, _ in before.items() ^ now.items())
        raise _other(out, f"other probes, or on other clocks ({', '.join(dict.fromkeys(other))})")


def _knobs(before: str, now: str) -> str:
    """Which knobs two designs, as JSON, have other values of."""
    grids = [json.loads(design) for design in (before, now)]
    pairs = zip(*grids, strict=True) if len(grids[0]) == len(grids[1]) else ()
    names = sorted({name for one, other in pairs for name in one.keys() | other.keys() if one.get(name) != other.get(name)})
    return f"other values of {', '.join(names)}" if names else "another design"


def _other(out: str | Path, how: str) -> InputError:
    return InputError(
        f"The unfinished record {str(partial_path(out))!r} was begun with {how}; give what it was begun with, another name, or replace "
        "it with overwrite=True (--force) and without resume."
    )


def _loaded(ready: Plan, cohort: Cohort, part: range, record: xr.DataTree, out: str | Path) -> int:
    runs = [cohort.runs[i] for i in part]
    kept = checkpoints.nearest(checkpoints.folder_of(out), runs, ready.setting.steps, record.attrs["identity"])
    if kept is None:
        return ready.start
    step, path = kept
    likes = initial_states(cohort, part, ready.setting)
    ready.states.update({run: checkpoints.load_state(path, run, like) for run, like in zip(runs, likes, strict=True)})
    return step
