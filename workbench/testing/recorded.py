"""The smoke record: complete, forkable, the same after saving and opening; events, claims and summary can be computed."""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from ..claim import MIN_SEEDS
from ..engine import fork, plan
from ..opening import open_record
from ..record import blank, save, with_events
from .case import Case

STEPS_AFTER_FORK = 5
MOST_LINES = 6


def complete(case: Case) -> Iterator[str]:
    """The smoke run reaches its end and fills every default variable."""
    record, budget = case.smoke, case.study.budget("smoke")
    if not (record["events"]["steps_done"].values == budget.steps).all():
        yield f"The smoke run did not make its {budget.steps} updates."
    for p in case.study.probes_named(budget.probes):
        values = record.wb[p.name]
        if values.dims != ("run", "step", *p.dims):
            yield f"Variable {p.name!r} has dimensions {values.dims} in the record, not run, step and those that its probe declares."
        if not np.isfinite(values.values).any():
            yield f"Variable {p.name!r} has no finite value in the smoke record."


def returns(case: Case) -> Iterator[str]:
    """A record that is saved and opened again is the same record."""
    with tempfile.TemporaryDirectory() as folder:
        opened = open_record(save(case.smoke, Path(folder) / "smoke.nc"))
    for name, node in case.smoke.children.items():
        if not node.to_dataset().equals(opened[name].to_dataset()):
            yield f"Node {name!r} of the smoke record changes when it is saved and opened again."
    if missing := {**case.smoke.attrs}.keys() - opened.attrs.keys():
        yield f"The smoke record loses its attribute {min(missing)!r} when it is saved."


def forks(case: Case) -> Iterator[str]:
    """A fork with nothing changed equals its parent exactly."""
    steps = case.study.budget("smoke").steps
    at = steps // 2
    parent, child = fork(case.smoke, 0, at, study=case.study, steps=min(steps, at + STEPS_AFTER_FORK), progress=False)
    for name in parent.wb.variables:
        if not parent.wb[name].equals(child.wb[name]):
            yield f"Variable {name!r} differs between a run and its twin that changes nothing; all that changes belongs into the state."


def claims(case: Case) -> Iterator[str]:
    """Claims give one number a seed on a record of the full design; its curves are random numbers here, so any value will do."""
    if not case.study.claims:
        return
    record = _full_of_noise(case)
    seeds = len(np.unique(record["seed"].values))
    if seeds < MIN_SEEDS:
        yield f"The full budget has {seeds} seeds; claims are judged over at least {MIN_SEEDS}."
    for claim in case.study.claims:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of means over nothing, which the noise may bring about
            effect = claim.effect(record)
        dims = getattr(effect, "dims", None)
        if dims != ("seed",) or effect.size != seeds:
            yield f"The effect of claim {claim.statement!r} has dimensions {dims}; it must be one number a seed (dimension 'seed')."


def summary(case: Case) -> Iterator[str]:
    """The summary is a few lines of text."""
    if case.study.summary is None:
        return
    lines = list(case.study.summary(case.smoke))
    if not lines or len(lines) > MOST_LINES or not all(isinstance(line, str) and line.strip() and "\n" not in line for line in lines):
        yield f"The summary of the smoke record is {lines!r}; it must be one to {MOST_LINES} lines of text."


def predictions(case: Case) -> Iterator[str]:
    """The outcome of a prediction is the place of one of its answers, of one run as of several seeds."""
    record = case.smoke
    first = record.wb.where(**{name: record[name].values[0] for name in record.wb.knobs})
    for asked in case.study.predictions:
        outcome, answers = asked.outcome(first), len(asked.answers)
        if not isinstance(outcome, (int, np.integer)) or not 0 <= outcome < answers:
            yield f"The outcome of prediction {asked.question!r} is {outcome!r}; it must be the place of one of its {answers} answers."


def _full_of_noise(case: Case) -> xr.DataTree:
    study, budget = case.study, case.study.budget("full")
    record = blank(plan(study, budget.design.rows(study.knobs), budget.steps, probes=budget.probes, clocks=budget.clocks).schema)
    rng = np.random.default_rng(0)
    for node in record.children.values():
        for values in (v.values for v in node.dataset.data_vars.values() if "step" in v.dims):
            values[...] = rng.uniform(size=values.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return with_events(record, study.events)


RECORDED = (complete, returns, forks, claims, predictions, summary)
