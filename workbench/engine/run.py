"""Running a design: the stream consumed into a record, a growing store and a progress bar."""

import inspect
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import torch
import xarray as xr

from ..catalogue import find
from ..design import Design, grid
from ..design import axes as axes_of
from ..errors import InputError, unknown
from ..knobs import specs
from ..progress import ProgressBar
from ..record import blank, save, with_claims, with_events, writable
from ..schema import Busy, Progress
from ..store import partial_path
from ..study import Study
from . import checkpoints, devices
from .choice import MODES, choose
from .growing import Growing, clear, leftovers
from .plans import Plan, plan
from .provenance import computation, provenance
from .resume import begun, continued
from .step import initial_states
from .stream import fastest_device, stream

LATEST_SECONDS = 20.0
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def run(
    study: str | Study,
    *,
    budget: str | None = None,
    preset: str | None = None,
    steps: int | None = None,
    probes: Sequence[str] = (),
    out: str | Path | None = None,
    keep: int | None = None,
    device: str = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    mode: Literal["auto", "lanes", "loop", "compiled"] = "auto",
    memory: float | None = None,
    progress: bool | None = None,
    overwrite: bool = False,
    resume: bool = False,
    **axes: Any,
) -> xr.DataTree:
    """Train every run of a design and return its record.

    `axes` are knobs and `seed`, each a value or several, crossed; they replace the same axes of `budget`'s design and of the
    `preset`. `steps` is the number of updates; `probes` names optional probes to add. With `out` the record is written there
    (growing in `out`.partial.zarr meanwhile), with `keep` the states at multiples of that many steps too. `memory` is the budget
    in bytes (default: half of what is free). `mode` and `device` are chosen by measurement unless given.

    An interrupt ends the run: the record so far is returned with a warning. With `resume` a run to the same `out` that was
    interrupted or killed goes on from the latest states that it left (every 20 seconds, and those of `keep`), and ends on the same
    machine with the same numbers, bit for bit, as if it had never stopped. Raises InputError for anything that cannot be run.
    """
    study = find(study) if isinstance(study, str) else study
    _known(study, axes)
    steps = _count("steps", study.budget(budget or "demo").steps if steps is None else steps)
    design = designed(study, budget, preset, axes, steps)
    _choice("dtype", dtype, DTYPES)
    _choice("mode", mode, MODES)
    if memory is not None and not (isinstance(memory, (int, float)) and memory > 0):
        raise InputError(f"memory is {memory!r}; it must be a number of bytes above 0.")
    if keep is not None and _count("keep", keep) and out is None:
        raise InputError("Kept states are files beside the record; give out= together with keep=.")
    probes = (probes,) if isinstance(probes, str) else probes
    probes = tuple(dict.fromkeys((*(study.budget(budget).probes if budget else ()), *probes)))
    clocks = study.budget(budget).clocks if budget else {}
    settings = dict(probes=probes, clocks=clocks, mode=mode, dtype=DTYPES[dtype], memory_budget=None if memory is None else int(memory))
    rows = design.rows(study.knobs)
    if resume and out is None:
        raise InputError("Only a run with an output can be resumed; give out= (--out) together with resume= (--resume).")
    left = begun(out) if resume and out is not None else None
    if left is not None:
        writable(out, overwrite=overwrite)
        device = devices.of_record(left).type if device == "auto" else device
    elif out is not None:
        _check_output(out, overwrite)
    ready = plan(study, rows, steps, device=_device(device, study, rows, steps, settings), **settings)
    if keep is not None:
        checkpoints.check(initial_states(ready.cohorts[0], [0], ready.setting)[0])
    origin = {"design": design.to_json(), "memory_budget": ready.budget}
    if left is None:
        choose(ready)
        ready.schema.attrs.update(provenance(study, ready) | origin | computation(ready))
        record = blank(ready.schema)
    else:
        record = left
        continued(ready, record, provenance(study, ready) | origin, out)
    record = _consumed(record, ready, out, keep, progress)
    if out is not None and "interrupted" not in record.attrs:
        save(record, out, overwrite=overwrite)
        shutil.rmtree(partial_path(out))
        record.encoding["source"] = str(out)
    return record


def _known(study: Study, given: Mapping[str, Any]) -> None:
    knobs = axes_of(study.knobs)
    options = [name for name in inspect.signature(run).parameters if name not in ("study", "axes")]
    for name in given:
        if name not in knobs:
            raise unknown("knob", name, [*knobs, *options])


def designed(study: Study, budget: str | None, preset: str | None, axes: Mapping[str, Any], steps: int) -> Design:
    """The runs that a budget, a preset and axes describe together; later ones win. Knobs that follow the number of steps do so."""
    grids = study.budget(budget).design.grids if budget else ({},)
    start = study.preset(preset).knobs if preset else {}
    following = {name: steps for name, spec in specs(study.knobs).items() if spec.follows == "steps"}
    return Design(tuple(grid(**{**following, **each, **start, **axes}).grids[0] for each in grids))


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be a whole number, at least 1.")
    return value


def _choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")


def _check_output(out: str | Path, overwrite: bool) -> None:
    writable(out, overwrite=overwrite)
    if not overwrite and (left := leftovers(out)):
        measured = "what it measured opens with wb.open. Go on with it by resume=True (--resume), or " if partial_path(out) in left else ""
        raise InputError(
            f"An earlier run to {str(out)!r} left {str(left[0])!r}: {measured}move it away, give another name, or replace it with "
            "overwrite=True (--force)."
        )
    clear(out)


def _device(device: str, study: Study, rows: Sequence[Mapping[str, Any]], steps: int, settings: Mapping[str, Any]) -> torch.device:
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        few = rows[:8]
        return fastest_device([plan(study, few, steps, device=torch.device(d), **settings) for d in ("cpu", "cuda")])
    return devices.usable(device, "auto or cpu")


def _consumed(record: xr.DataTree, ready: Plan, out: str | Path | None, keep: int | None, show: bool | None) -> xr.DataTree:
    """The record filled by the stream of its plan; with events and claims if it came to its end."""
    growing, interrupted = Growing(record, out), False
    kept = out is not None and checkpoints.can_be_kept(initial_states(ready.cohorts[0], [0], ready.setting))
    try:
        with (
            ProgressBar(ready.runs, ready.start, ready.setting.steps, show) as bar,
            closing(stream(ready, keep=keep, latest=LATEST_SECONDS if kept else None)) as items,
        ):
            for item in items:
                growing.take(item)
                if isinstance(item, Busy):
                    bar.say(item)
                elif isinstance(item, Progress):
                    bar.update(item)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        growing.leave()
    record.attrs |= {"seconds": growing.seconds, "layouts": ready.layouts}
    if interrupted:
        return _interrupted(record, out)
    return with_claims(with_events(record, ready.study.events), ready.study.claims)


def _interrupted(record: xr.DataTree, out: str | Path | None) -> xr.DataTree:
    done, steps = record["events"]["steps_done"].values, record.attrs["steps"]
    how_far = (
        f"after {done[0]} of {steps} steps" if (done == done[0]).all() else f"with {(done == steps).sum()} of {len(done)} runs complete"
    )
    where = f"; it stands in {partial_path(out)}, go on by resume=True" if out is not None and partial_path(out).exists() else ""
    record.attrs["interrupted"] = 1
    warnings.warn(f"Interrupted {how_far}; what was measured is returned{where}.", stacklevel=4)
    return record
