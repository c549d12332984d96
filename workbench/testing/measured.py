"""Probes: what they return is what they declare, for many runs at once as for each alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..probe import Probe
from .case import Case, train

TOLERANCE = 1e-5


def default_probes(case: Case) -> Iterator[str]:
    """The probes that a study always measures, on each of its designs."""
    yield from measured(case, case.study.probes)


def optional_probes(case: Case) -> Iterator[str]:
    """The probes that a study offers; those that take long are measured less."""
    cheap = [p for p in case.study.optional_probes if p.cost == "free" and p.on == "moment"]
    yield from measured(case, cheap)
    yield from measured(case, [p for p in case.study.optional_probes if p not in cheap], in_full=False)


def measured(case: Case, probes: Sequence[Probe], in_full: bool = True) -> Iterator[str]:
    """Train with these probes, runs together and one by one; not `in_full`: before the first update, one run of one design alone.

    A wrong shape is an error of the engine.
    """
    study, seen = replace(case.study, probes=tuple(probes), optional_probes=()), set()
    few = dict(until=None if in_full else 1)
    for design in case.designs if in_full else case.designs[:1]:
        lanes = train(study, design if in_full else design[:2], case.steps, mode="lanes", **few).record
        loop = train(study, design if in_full else design[:1], case.steps, mode="loop", **few).record
        for p in probes:
            ours, theirs = lanes.wb[p.name].values, loop.wb[p.name].values
            if np.isfinite(ours).any():
                seen.add(p.name)
            if not _agree(ours[: len(theirs)], theirs):
                yield f"Probe {p.name!r} gives other values for runs mapped together than one by one; keep to operations that vmap can map."
    for p in probes:
        if p.name not in seen:
            yield f"Probe {p.name!r} gives no finite value in any small run of the study; check what it reads."


def _agree(ours: np.ndarray, theirs: np.ndarray) -> bool:
    finite = np.abs(theirs[np.isfinite(theirs)])
    return np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * finite.max(initial=0.0), equal_nan=True)


MEASURED = (default_probes, optional_probes)
