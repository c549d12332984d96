"""Running a design: the stream consumed into a record, a growing store and a progress bar."""

import hashlib
import inspect
import json
import platform
import shlex
import shutil
import sys
import time
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
import xarray as xr

from .. import __version__
from ..catalogue import find
from ..design import Design, grid
from ..design import axes as axes_of
from ..errors import InputError, unknown
from ..progress import ProgressBar
from ..record import blank, fill, save, with_claims, with_events, writable
from ..schema import Progress
from ..store import Store, partial_path
from ..study import Study
from . import checkpoints
from .lanes import LAYOUTS
from .stream import Kept, Plan, fastest_device, initial_state, plan, stream

FLUSH_SECONDS = 2.0
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
    mode: Literal["auto", "lanes", "loop"] = "auto",
    memory: float | None = None,
    progress: bool | None = None,
    overwrite: bool = False,
    **axes: Any,
) -> xr.DataTree:
    """Train every run of a design and return its record.

    `axes` are knobs and `seed`, each a value or several, crossed; they replace the same axes of `budget`'s design and of the
    `preset`. `steps` is the number of updates; `probes` names optional probes to add. With `out` the record is written there
    (growing in `out`.partial.zarr meanwhile), with `keep` the states at multiples of that many steps too. `memory` is the budget
    in bytes (default: half of what is free). `mode` and `device` are chosen by measurement unless given.

    An interrupt ends the run: the record so far is returned with a warning. Raises InputError for anything that cannot be run.
    """
    study = find(study) if isinstance(study, str) else study
    design = designed(study, budget, preset, axes)
    _known(study, axes)
    steps = _count("steps", study.budget(budget or "demo").steps if steps is None else steps)
    _choice("dtype", dtype, DTYPES)
    _choice("mode", mode, ("auto", *LAYOUTS))
    if memory is not None and not (isinstance(memory, (int, float)) and memory > 0):
        raise InputError(f"memory is {memory!r}; it must be a number of bytes above 0.")
    if keep is not None and _count("keep", keep) and out is None:
        raise InputError("Kept states are files beside the record; give out= together with keep=.")
    probes = (probes,) if isinstance(probes, str) else probes
    probes = tuple(dict.fromkeys((*(study.budget(budget).probes if budget else ()), *probes)))
    settings = dict(probes=probes, mode=mode, dtype=DTYPES[dtype], memory_budget=None if memory is None else int(memory))
    rows = design.rows(study.knobs)
    if out is not None:
        _check_output(out, overwrite)
    ready = plan(study, rows, steps, device=_device(device, study, rows, steps, settings), **settings)
    if keep is not None:
        checkpoints.check(initial_state(ready.cohorts[0], 0, ready.setting))
    attrs = provenance(study, ready) | {"design": design.to_json(), "memory_budget": ready.budget}
    return _consume(ready, attrs, out, keep, progress, overwrite)


def _known(study: Study, given: Mapping[str, Any]) -> None:
    knobs = axes_of(study.knobs)
    options = [name for name in inspect.signature(run).parameters if name not in ("study", "axes")]
    for name in given:
        if name not in knobs:
            raise unknown("knob", name, [*knobs, *options])


def designed(study: Study, budget: str | None, preset: str | None, axes: Mapping[str, Any]) -> Design:
    """The runs that a budget, a preset and axes describe together; later ones win."""
    grids = study.budget(budget).design.grids if budget else ({},)
    start = study.preset(preset).knobs if preset else {}
    return Design(tuple(grid(**{**each, **start, **axes}).grids[0] for each in grids))


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be a whole number, at least 1.")
    return value


def _choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")


def _check_output(out: str | Path, overwrite: bool) -> None:
    writable(out, overwrite=overwrite)
    if not overwrite and (left := _leftovers(out)):
        raise InputError(
            f"An earlier run to {str(out)!r} left {str(left[0])!r}: what it measured opens with wb.open. Move that away, "
            "give another name, or replace it with overwrite=True (--force)."
        )


def _leftovers(out: str | Path) -> list[Path]:
    return [folder for folder in (partial_path(out), checkpoints.folder_of(out)) if folder.exists()]


def _clear(out: str | Path) -> None:
    for folder in _leftovers(out):
        shutil.rmtree(folder)


def _device(device: str, study: Study, rows: Sequence[Mapping[str, Any]], steps: int, settings: Mapping[str, Any]) -> torch.device:
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        few = rows[:8]
        return fastest_device([plan(study, few, steps, device=torch.device(d), **settings) for d in ("cpu", "cuda")])
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {device!r} cannot be used here ({str(error).splitlines()[0]}); choose auto, cpu or cuda.") from error
    return found


def provenance(study: Study, ready: Plan) -> dict[str, Any]:
    """Where a record comes from: study, source, versions, device, command, time."""
    module = sys.modules.get(study.module)
    source = inspect.getsource(module) if module and getattr(module, "__file__", None) else ""
    versions = {"workbench": __version__, "torch": torch.__version__, "xarray": xr.__version__, "python": platform.python_version()}
    return {
        "identity": uuid.uuid4().hex,
        "study": study.name,
        "title": study.title,
        "source_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "versions": json.dumps(versions),
        "device": _device_name(ready.setting.device),
        "dtype": str(ready.setting.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "data_sha256": json.dumps(_data_hashes(ready)),
        "start": ready.start,
        "command": _command(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _data_hashes(ready: Plan) -> list[str]:
    hashed = getattr(ready.study.task, "data_hash", None)
    return list(dict.fromkeys(hashed(cohort.knobs) for cohort in ready.cohorts)) if hashed else []


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def _command() -> str:
    name = Path(sys.argv[0]).name
    return shlex.join(["workbench", *sys.argv[1:]]) if name in ("__main__.py", "workbench") else "wb.run"


def _consume(
    ready: Plan, attrs: dict[str, Any], out: str | Path | None, keep: int | None, show: bool | None, overwrite: bool
) -> xr.DataTree:
    ready.schema.attrs.update(attrs)
    record = blank(ready.schema)
    if out is not None:
        _clear(out)
    store = Store(record, partial_path(out)) if out is not None else None
    began, interrupted = time.perf_counter(), False
    try:
        _fill_from(ready, record, store, out, keep, show)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if store and (record["events"]["steps_done"] > ready.start).any():
            store.flush()
        elif store and out is not None:
            _clear(out)
    record.attrs["seconds"] = round(time.perf_counter() - began, 2)
    record.attrs["layouts"] = json.dumps({name: [r for r, n in ready.layouts.items() if n == name] for name in set(ready.layouts.values())})
    if interrupted:
        return _interrupted(record, store)
    record = with_claims(with_events(record, ready.study.events), ready.study.claims)
    if store and out is not None:
        save(record, out, overwrite=overwrite)
        store.remove()
        record.encoding["source"] = str(out)
    return record


def _fill_from(ready: Plan, record: xr.DataTree, store: Store | None, out: str | Path | None, keep: int | None, show: bool | None) -> None:
    flushed = time.monotonic()
    with ProgressBar(ready.runs, ready.start, ready.setting.steps, show) as bar:
        for item in stream(ready, keep=keep):
            if isinstance(item, Kept):
                checkpoints.save_states(
                    checkpoints.folder_of(out), item.step, dict(zip(item.runs, item.states, strict=True)), record.attrs["identity"]
                )
                continue
            fill(record, item)
            if isinstance(item, Progress):
                bar.update(item)
            if store:
                store.note(item)
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    store.flush()
                    flushed = time.monotonic()


def _interrupted(record: xr.DataTree, store: Store | None) -> xr.DataTree:
    done = int(record["events"]["steps_done"].min())
    where = f"; it stands in {store.path}" if store and store.path.exists() else ""
    record.attrs["interrupted"] = 1
    warnings.warn(f"Interrupted after {done} of {record.attrs['steps']} steps; what was measured is returned{where}.", stacklevel=4)
    return record
