"""Probes: what they return is what they declare, for many runs at once as for each alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..engine import plan
from ..engine.lanes import LAYOUTS
from ..engine.plans import chunk_of
from ..probe import Probe
from ..study import Study
from .case import Case, Row
from .comparing import difference

TOLERANCE = 1e-5


def default_probes(case: Case) -> Iterator[str]:
    """The probes that a study always measures."""
    yield from measured(case, case.study.probes)


def optional_probes(case: Case) -> Iterator[str]:
    """The probes that a study offers; those that take long are measured less."""
    cheap = [p for p in case.study.optional_probes if p.cost == "free" and p.on == "moment"]
    yield from measured(case, cheap)
    yield from measured(case, [p for p in case.study.optional_probes if p not in cheap], in_full=False)


def measured(case: Case, probes: Sequence[Probe], in_full: bool = True) -> Iterator[str]:
    """Measure before and after an update, runs together and one by one; not `in_full`: only before, two runs of one design, one alone.

    A wrong shape is an error of the engine.
    """
    study, seen = replace(case.study, probes=tuple(probes), optional_probes=()), set()
    at = (0, case.steps) if in_full else (0,)
    for design in case.designs if in_full else [case.designs[0][:2]]:
        alone = values(study, design if in_full else design[:1], at, "loop")
        together = values(study, design, at, "lanes") if getattr(study.learner, "lanes", True) else alone
        for name, found in alone.items():
            if torch.isfinite(found).any():
                seen.add(name)
            if difference(found, together[name][: len(found)], TOLERANCE):
                yield f"Probe {name!r} gives other values for runs mapped together than one by one; keep to operations that vmap can map."
    for p in probes:
        if p.name not in seen:
            yield f"Probe {p.name!r} gives no finite value at the first moments of a small run; check what it reads."


def values(study: Study, rows: Sequence[Row], steps: Sequence[int], mode: str) -> Mapping[str, Tensor]:
    """What the probes return at `steps`, with one update between, (run, moment, ...); the steps are 0 and the last, where all fire."""
    ready, found = plan(study, rows, max(1, *steps), dtype=torch.float64), []
    with torch.no_grad():
        chunk = chunk_of(ready, ready.cohorts[0], range(len(rows)), LAYOUTS[mode])
        for step in steps:
            chunk.states, measured, _ = chunk.step(step)
            found.append(measured)
    return {name: torch.stack([each[name] for each in found], 1) for name in found[0]}


MEASURED = (default_probes, optional_probes)
