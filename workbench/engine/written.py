"""The record of an experiment: every run of every branch from step 0 on, what was changed, and the Python that makes the same runs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ..design import Design
from ..errors import InputError
from ..history import Track, is_picture
from ..record import blank, fill, timeline, with_claims, with_events, with_nodes
from ..schema import Progress, Schema, Slab, Variable
from ..study import Event, phase_starts
from .experiment import Experiment
from .plans import Choice
from .provenance import provenance

OF_BRANCH = {"branch": dict(units="1", long_name="branch of the experiment")}


def record_of(experiment: Experiment, only: int | None = None) -> xr.DataTree:
    """The record of an experiment as it stands, a run for each branch and seed, told apart by the coordinate `branch`; or of one branch.

    A branch's runs hold its whole history, the steps before it left its parent included; knobs are those of update 0, and `timeline` has
    what was changed later. Every branch has the last moment of its last step: where it is the last of all on every clock, as a finished
    run has it, else on the clocks that fire there. Pictures are
    in a node of their own, at the steps that were kept.
    """
    tracks = [track for number, track in experiment.tracks.items() if only in (None, number)]
    probes = {p.name for p in experiment.study.probes}
    stop = max(1, *(track.step for track in tracks))
    ready = experiment.plan_of(tracks, stop)
    runs = {track.number: _places(tracks, track) for track in tracks}
    names = [track.name for track in tracks for _ in track.seeds]
    measured = [v for v in experiment.variables.values() if any(v.name in track.own for track in tracks) or v.name in probes]
    numbers = [v for v in measured if not is_picture(v)]
    schema = Schema(
        rows=[{**row, "branch": name} for row, name in zip(ready.schema.rows, names, strict=True)],
        columns={**ready.schema.columns, **OF_BRANCH},
        variables=numbers,
        labels=_union([track.labels for track in tracks]),
        phases=phase_starts(experiment.study.phases, experiment.steps),
        start=0,
        stop=stop,
        attrs={**provenance(experiment.study, ready), "command": "wb.explore", "design": Design(()).to_json()},
    )
    record = blank(schema)
    for track in tracks:
        fill(record, Progress(runs[track.number], track.step, track.diverged.tolist()))
        for item in (*_measured(track, numbers), *_closing(experiment, track, stop)):
            if isinstance(item, Progress) or (item := _without_pictures(experiment, item)).values:
                fill(record, replace(item, runs=runs[track.number]))
    record.attrs["layouts"] = json.dumps([_layout(experiment, number, places) for number, places in runs.items()])
    record.attrs["threads"] = experiment.threads
    record = with_nodes(record, timeline=_timeline(tracks, runs), **_pictures(experiment, tracks))
    ends = np.concatenate([[track.step or -1] * len(track.seeds) for track in tracks])
    events = [_as_far_as_measured(event, ends) for event in experiment.study.events if _can_be_read(record, event)]
    return with_claims(with_events(record, events), experiment.study.claims)


def _can_be_read(record: xr.DataTree, event: Event) -> bool:
    """Whether what an event is read off was measured."""
    try:
        event.fn(record)
    except (LookupError, InputError):
        return False
    return True


def _as_far_as_measured(event: Event, ends: np.ndarray) -> Event:
    """An event read off the curve of each run up to its last step measured, not off the NaN that follow where others are ahead."""

    def fn(record: xr.DataTree) -> np.ndarray:
        found = np.full(len(ends), np.nan)
        for end in np.unique(ends[ends >= 0]):
            places = np.flatnonzero(ends == end)
            found[places] = event.fn(_until(record, places, end))
        return found

    return replace(event, fn=fn)


def _until(record: xr.DataTree, places: np.ndarray, end: int) -> xr.DataTree:
    """The record of some runs up to a step."""
    nodes = {"/": record.to_dataset(), **{name: node.to_dataset(inherit=False) for name, node in record.children.items()}}
    nodes = {name: node.isel(run=places) if "run" in node.dims else node for name, node in nodes.items()}
    return xr.DataTree.from_dict({name: node.sel(step=slice(end)) if "step" in node.dims else node for name, node in nodes.items()})


def _places(tracks: list[Track], track: Track) -> list[int]:
    first = sum(len(each.seeds) for each in tracks[: tracks.index(track)])
    return list(range(first, first + len(track.seeds)))


def _measured(track: Track, variables: list[Variable]) -> Iterator[Slab]:
    """What was measured of a branch, in stretches without a gap: a probe may have been off in between."""
    for v in variables:
        steps, values = track.series(v.name)
        gaps = np.flatnonzero(np.diff(steps) > v.clock) + 1
        for at, part in zip(np.split(steps, gaps), np.split(values, gaps, axis=1), strict=True):
            if len(at):
                yield Slab((), v.clock, at.tolist(), {v.name: part}, track.labels)


def _closing(experiment: Experiment, track: Track, stop: int) -> list[Slab | Progress]:
    """The last moment of a branch; of one that stands behind others on the clocks that fire at its step."""
    try:
        found = experiment.closing(track.number, track.step) if track.step else []
    except Exception:  # a step that raises has no moment, and must not take with it what was measured before
        return []
    return [item for item in found if track.step == stop or isinstance(item, Progress) or track.step % item.clock == 0]


def _without_pictures(experiment: Experiment, slab: Slab) -> Slab:
    return replace(slab, values={name: x for name, x in slab.values.items() if not is_picture(experiment.variables[name])})


def _union(labels: list[Any]) -> dict[str, list[Any]]:
    return {
        dim: list(dict.fromkeys(label for each in labels for label in each.get(dim, ())))
        for dim in dict.fromkeys(d for x in labels for d in x)
    }


def _layout(experiment: Experiment, number: int, runs: list[int]) -> dict[str, Any]:
    return Choice(experiment.layout_of(number), len(runs), experiment.threads).entry(runs)


def _timeline(tracks: list[Track], runs: dict[int, list[int]]) -> xr.Dataset:
    """Of each run the changes; those with which a branch begins name the run that it left."""
    found = []
    for track in tracks:
        for place, run in enumerate(runs[track.number]):
            for change in track.changes:
                begins = track.parent is not None and track.parent.number in runs and change.step == track.start
                found.append(replace(change, run=run, parent=runs[track.parent.number][place] if begins else -1))
    return timeline(found)


def _pictures(experiment: Experiment, tracks: list[Track]) -> dict[str, xr.Dataset]:
    """The pictures that were kept, as shares of white; NaN at steps that a branch has none of."""
    data = {}
    for v in experiment.variables.values():
        kept = [(track, *track.series(v.name)) for track in tracks] if is_picture(v) else []
        steps = sorted({step for _, steps, _ in kept for step in steps.tolist()})
        if not steps:
            continue
        labels = _union([track.labels for track in tracks])
        whole = np.full((sum(len(t.seeds) for t in tracks), len(steps), *(len(labels[d]) for d in v.dims)), np.nan, np.float32)
        for track, at, values in kept:
            places = [[labels[dim].index(each) for each in track.labels[dim]] for dim in v.dims]
            whole[np.ix_(_places(tracks, track), np.searchsorted(steps, at), *places)] = values / 255
        data[v.name] = xr.DataArray(
            whole, dims=("run", "step", *v.dims), coords={"step": steps, **{d: labels[d] for d in v.dims}}, attrs=dict(v.attrs)
        )
    return {"pictures": xr.Dataset(data)} if data else {}
