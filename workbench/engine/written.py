"""The record of an experiment: every run of every branch from step 0 on, what was changed, and the Python that makes the same runs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ..design import Design
from ..history import Track, is_picture
from ..record import blank, fill, timeline, with_claims, with_events, with_nodes
from ..schema import Schema, Slab, Variable
from ..study import phase_starts
from .experiment import Experiment
from .plans import Choice
from .provenance import provenance

OF_BRANCH = {"branch": dict(units="1", long_name="branch of the experiment")}


def record_of(experiment: Experiment) -> xr.DataTree:
    """The record of an experiment as it stands, a run for each branch and seed, told apart by the coordinate `branch`.

    A branch's runs hold its whole history, the steps before it left its parent included; knobs are those at step 0, and `timeline` has
    what was changed later. Branches that stand at the last step have the last moment of every clock, as a finished run has. Pictures are
    in a node of their own, at the steps that were kept.
    """
    tracks = list(experiment.tracks.values())
    stop = max(track.step for track in tracks)
    ready, _ = experiment.plan_of(tracks[0].number, max(stop, 1))
    runs = {track.number: _places(tracks, track) for track in tracks}
    numbers = [v for v in experiment.variables.values() if not is_picture(v)]
    schema = Schema(
        rows=[dict(track.first) | {"seed": seed, "branch": track.name} for track in tracks for seed in track.seeds],
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
        for slab in (*_measured(track, numbers), *(experiment.closing(track.number, stop) if track.step == stop else ())):
            values = {name: x for name, x in slab.values.items() if not is_picture(experiment.variables[name])}
            if values:
                fill(record, replace(slab, runs=runs[track.number], values=values))
    record.attrs["layouts"] = json.dumps([entry for track in tracks for entry in _layouts(experiment, track, runs[track.number])])
    record.attrs["threads"] = experiment.threads
    events = record["events"].dataset
    events["steps_done"].values[:] = np.concatenate([[track.step] * len(track.seeds) for track in tracks])
    diverged = np.concatenate([track.diverged for track in tracks]).astype(float)
    events["diverged_step"].values[:] = np.where(diverged < 0, np.nan, diverged)
    record = with_nodes(record, timeline=_timeline(tracks, runs), **_pictures(experiment, tracks))
    return with_claims(with_events(record, experiment.study.events), experiment.study.claims)


def _places(tracks: list[Track], track: Track) -> list[int]:
    first = sum(len(each.seeds) for each in tracks[: tracks.index(track)])
    return list(range(first, first + len(track.seeds)))


def _measured(track: Track, variables: list[Variable]) -> Iterator[Slab]:
    for v in variables:
        steps, values = track.series(v.name)
        if len(steps):
            yield Slab((), v.clock, steps.tolist(), {v.name: values}, track.labels)


def _union(labels: list[Any]) -> dict[str, list[Any]]:
    return {
        dim: list(dict.fromkeys(label for each in labels for label in each.get(dim, ())))
        for dim in dict.fromkeys(d for x in labels for d in x)
    }


def _layouts(experiment: Experiment, track: Track, runs: list[int]) -> Iterator[dict[str, Any]]:
    _, layout = experiment.plan_of(track.number, max(track.step, 1))
    yield Choice(layout, len(runs), experiment.threads).entry(runs)


def _timeline(tracks: list[Track], runs: dict[int, list[int]]) -> xr.Dataset:
    """Of each run the changes; those with which a branch begins name the run that it left."""
    found = []
    for track in tracks:
        for place, run in enumerate(runs[track.number]):
            for change in track.changes:
                begins = track.parent is not None and change.step == track.start
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
        first = 0
        for track, at, values in kept:
            places = [[labels[dim].index(each) for each in track.labels[dim]] for dim in v.dims]
            rows = range(first, first + len(track.seeds))
            first += len(track.seeds)
            whole[np.ix_(rows, np.searchsorted(steps, at), *places)] = values / 255
        data[v.name] = xr.DataArray(
            whole, dims=("run", "step", *v.dims), coords={"step": steps, **{d: labels[d] for d in v.dims}}, attrs=dict(v.attrs)
        )
    return {"pictures": xr.Dataset(data)} if data else {}
