"""Cohorts: the runs of a design that share their static knobs, and so can train as lanes of one program."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import noise
from ..errors import InputError
from ..knobs import Knobs, Spec, specs
from ..probe import Probe
from ..study import Study
from .lanes import cast

_KEPT = 32
_prepared: dict[str, tuple[Any, Any]] = {}


@dataclass(frozen=True)
class Cohort:
    """Runs with the same static knobs: `lanes` holds the value of every other knob per run."""

    study: Study
    knobs: Knobs
    runs: tuple[int, ...]
    seeds: tuple[int, ...]
    lanes: Mapping[str, tuple[Any, ...]]
    shared: Any
    labels: Mapping[str, Sequence[Any]]
    probes: tuple[Probe, ...]


class Restricted:
    """Knobs of which only some may be read; another raises, saying who read what and what to do."""

    def __init__(self, knobs: Any, allowed: frozenset[str], who: str, remedy: str, prefix: str = "") -> None:
        names = {name: name for name in specs(type(knobs))}
        names |= {name.removeprefix(prefix): name for name in names if prefix and name.startswith(prefix)}
        self.__dict__.update(_knobs=knobs, _allowed=allowed, _who=who, _remedy=remedy, _names=names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        knob = self._names.get(name)
        if knob is not None and knob not in self._allowed:
            raise InputError(f"{self._who} read knob {knob!r}; {self._remedy}.")
        return getattr(self._knobs, name)

    def view(self, prefix: str) -> "Restricted":
        """The knobs called `prefix_name`, readable as plain `name` too, see `Knobs.view`; as restricted as these."""
        return Restricted(self._knobs.view(prefix), self._allowed, self._who, self._remedy, f"{prefix}_")


def cohorts_of(
    study: Study, rows: Sequence[Mapping[str, Any]], probes: tuple[Probe, ...], device: torch.device, dtype: torch.dtype
) -> list[Cohort]:
    """Group the rows of a design by their static knobs, in the order in which they first appear."""
    known = specs(study.knobs)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for run, row in enumerate(rows):
        groups.setdefault(tuple(row[name] for name, spec in known.items() if not spec.is_lane), []).append(run)
    return [_cohort(study, rows, runs, known, probes, device, dtype) for runs in groups.values()]


def _cohort(
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    runs: list[int],
    known: Mapping[str, Spec],
    probes: tuple[Probe, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Cohort:
    knobs = study.knobs(**{name: rows[runs[0]][name] for name in known})
    shared = prepared(study, knobs, device, dtype)
    labels = dict(study.coords(knobs))
    if hasattr(study.learner, "coords"):
        labels |= study.learner.coords(knobs, shared)
    for p in probes:
        for dim in p.dims:
            if dim not in labels:
                raise InputError(
                    f"Probe {p.name!r} has dimension {dim!r}, for which study {study.name!r} gives no labels; add them to coords."
                )
    lanes = {name: tuple(rows[run][name] for run in runs) for name, spec in known.items() if spec.is_lane}
    return Cohort(study, knobs, tuple(runs), tuple(rows[run]["seed"] for run in runs), lanes, shared, labels, probes)


def lane_values(cohort: Cohort, values: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Any:
    """A knob's values, one a lane, as steps get them: a tensor to index, or plain numbers for a learner that is kept out of vmap."""
    if getattr(cohort.study.learner, "lanes", True):
        return torch.tensor(values, dtype=dtype, device=device)
    return list(values)


def prepared(study: Study, knobs: Knobs, device: torch.device, dtype: torch.dtype) -> Any:
    """What the learner prepares for these static knobs; computed once per content."""
    static = {name: getattr(knobs, name) for name, spec in specs(type(knobs)).items() if not spec.is_lane}
    content = json.dumps([study.module, id(study.learner), str(device), str(dtype), static], sort_keys=True)
    mark = hashlib.sha256(content.encode()).hexdigest()
    if mark not in _prepared:
        remedy = "it differs between runs that share the result; make it static"
        visible = Restricted(knobs, frozenset(static), f"prepare of {study.name!r}", remedy)
        with device:
            made = cast(study.learner.prepare(visible, noise.key_of(0, device=device)), dtype)
        _prepared[mark] = study.learner, made  # held on to, so that no other learner can get its id
        while len(_prepared) > _KEPT:
            _prepared.pop(next(iter(_prepared)))
    return _prepared[mark][1]
