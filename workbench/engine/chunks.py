"""Chunks: the lanes of a cohort that advance together, and one stretch of their training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import noise
from ..errors import InputError
from ..probe import Probe
from ..schema import Progress, Slab, due
from ..study import Now, phase_starts
from .cohorts import Cohort, lane_values
from .draws import Draws
from .lanes import Layout, cast, is_finite

NOT_DIVERGED = -1


@dataclass(frozen=True)
class Setting:
    """What all chunks of a run of the engine have in common."""

    steps: int
    device: torch.device
    dtype: torch.dtype


class Chunk:
    """Lanes of one cohort: their states, live knobs and keys, advanced stretch by stretch."""

    def __init__(self, cohort: Cohort, positions: Sequence[int], states: Sequence[Any], layout: Layout, setting: Setting) -> None:
        self.cohort, self.positions, self.layout, self.setting = cohort, list(positions), layout, setting
        self.states = layout.pack(states)
        self.lanes = {n: lane_values(cohort, [v[i] for i in positions], setting.dtype, setting.device) for n, v in cohort.lanes.items()}
        self.keys = noise.key_of(torch.tensor([cohort.seeds[i] for i in positions]), device=setting.device)
        self.draws = Draws(cohort, self.positions, setting.dtype, setting.device)
        self.diverged = np.full(len(positions), NOT_DIVERGED)
        self.out_of_memory_at: int | None = None

    @property
    def runs(self) -> tuple[int, ...]:
        """The runs of the design that train here."""
        return tuple(self.cohort.runs[i] for i in self.positions)

    def advance(self, start: int, stop: int) -> Iterator[Slab | Progress]:
        """Make the updates `start` to `stop` - 1, and at the end of the run take the last moment; yields what was measured.

        Out of memory, it stops before the update that does not fit, sets `out_of_memory_at`, and can be continued by `halves`.
        """
        stretch = _Stretch(self.cohort, start, self.setting.steps)
        last = stop + (stop == self.setting.steps)
        self.out_of_memory_at = None
        for step in range(start, last) if (self.diverged < 0).any() else ():
            try:
                new, values, finite = self.step(step)
            except torch.OutOfMemoryError:
                if len(self.positions) == 1:
                    raise
                self.out_of_memory_at = stop = step
                break
            stretch.add(values, finite)
            if step < self.setting.steps:
                self.states = new
        yield from stretch.slabs(self.runs, self.diverged)
        yield Progress(self.runs, stop, tuple(int(s) for s in self.diverged))

    def step(self, step: int) -> tuple[Any, dict[str, Tensor], Tensor]:
        """The states after update `step`, the values of the probes that are due, and which lanes are finite; changes nothing."""
        now = torch.tensor(step, dtype=torch.int64, device=self.setting.device)
        probes = [p for p in self.cohort.probes if p.every in due(step, self.setting.steps)]
        measured = {p.name: self._measure(p, now) for p in probes if p.on == "state"}
        batch, shared_batch = self.draws.at(step)
        traced = tuple(p for p in probes if p.on == "moment")
        fn = partial(one_step, self.cohort, traced, phase_at(self.cohort, step, self.setting.steps), now, self.setting.dtype)
        new, (seen, finite) = self.layout.map(fn, self.states, batch, shared_batch, self.lanes, self.keys)
        for p in probes:
            check_shape(p, tuple((measured | seen)[p.name].shape[1:]), self.cohort.labels)
        return new, measured | seen, finite

    def run_states(self) -> tuple[Any, ...]:
        """The present state of each run."""
        return tuple(self.layout.unpack(self.states, i) for i in range(len(self.positions)))

    def halves(self) -> tuple["Chunk", "Chunk"]:
        """Two chunks that go on where this one stands, each with half of its lanes."""
        middle = len(self.positions) // 2
        return self._part(range(middle)), self._part(range(middle, len(self.positions)))

    def _part(self, indices: Sequence[int]) -> "Chunk":
        states = [self.layout.unpack(self.states, i) for i in indices]
        part = Chunk(self.cohort, [self.positions[i] for i in indices], states, self.layout, self.setting)
        part.diverged = self.diverged[list(indices)]
        return part

    def _measure(self, p: Probe, now: Tensor) -> Tensor:
        keys = noise.fold(self.keys, now)
        of_one = partial(of_state, self.cohort, p)
        if p.vectorised and self.layout.name == "lanes":
            return torch.vmap(of_one)(self.states, self.lanes, keys)
        lanes = ({name: values[i] for name, values in self.lanes.items()} for i in range(len(self.positions)))
        return torch.stack([of_one(*each) for each in zip(self.run_states(), lanes, keys, strict=True)])


class _Stretch:
    """Values gathered step by step, turned into slabs at the end of a stretch."""

    def __init__(self, cohort: Cohort, start: int, steps: int) -> None:
        self.cohort, self.start, self.steps = cohort, start, steps
        self.seen: dict[int, dict[str, list[Tensor]]] = {}
        self.finite: list[Tensor] = []

    def add(self, values: dict[str, Tensor], finite: Tensor) -> None:
        self.finite.append(finite)
        for p in self.cohort.probes:
            if p.name in values:
                self.seen.setdefault(p.every, {}).setdefault(p.name, []).append(values[p.name])

    def slabs(self, runs: Sequence[int], diverged: np.ndarray) -> Iterator[Slab]:
        """What was gathered, diverged lanes blanked; writes the step at which a lane diverged into `diverged`."""
        if not self.finite:
            return
        finite = torch.stack(self.finite, 1).cpu().numpy()
        for i in np.flatnonzero((diverged < 0) & ~finite.all(1)):
            diverged[i] = self.start + int(np.argmin(finite[i]))
        for clock, by_name in self.seen.items():
            steps = [s for s in range(self.start, self.start + len(self.finite)) if clock in due(s, self.steps)]
            gone = (diverged[:, None] >= 0) & (np.array(steps)[None] >= diverged[:, None])
            values = {name: _blanked(torch.stack(tensors, 1).cpu().numpy(), gone) for name, tensors in by_name.items()}
            yield Slab(runs, clock, steps, values, self.cohort.labels)


def one_step(
    cohort: Cohort, probes: tuple[Probe, ...], phase: str, step: Tensor, dtype: torch.dtype, state: Any, batch: Any, lanes: Any, key: Tensor
) -> tuple[Any, tuple[dict[str, Tensor], Tensor]]:
    """One update of one run: the function that is mapped over lanes and traced."""
    knobs = cohort.knobs.filled(lanes)
    now = Now(step.to(dtype), noise.fold(key, step), phase)
    new, moment = cohort.study.learner.step(state, batch, knobs, cohort.shared, now)
    values = {p.name: torch.as_tensor(p(moment), device=key.device) for p in probes}
    finite = is_finite(state["params"] if isinstance(state, dict) and "params" in state else state)
    if "loss" in vars(moment):
        finite = finite & torch.isfinite(torch.as_tensor(moment.loss))
    return cast(new, dtype), (values, finite)


def of_state(cohort: Cohort, p: Probe, state: Any, lanes: Any, key: Tensor) -> Tensor:
    """The value of a state probe for one run."""
    return torch.as_tensor(p(state, cohort.knobs.filled(lanes), cohort.shared, key), device=key.device)


def phase_at(cohort: Cohort, step: int, steps: int) -> str:
    """The phase in which update `step` falls; the last moment belongs to the last phase."""
    return [name for name, first in phase_starts(cohort.study.phases, steps) if first <= min(step, steps - 1)][-1]


def check_shape(p: Probe, shape: tuple[int, ...], labels: Any) -> None:
    """Raise if a probe returned another shape than its dimensions have."""
    declared = tuple(len(labels[dim]) for dim in p.dims)
    if shape != declared:
        sizes = ", ".join(f"{dim}={size}" for dim, size in zip(p.dims, declared, strict=True)) or "none, a single number"
        raise InputError(f"Probe {p.name!r} declares dimensions ({sizes}) but returned shape {shape}; return one value per label.")


def _blanked(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    if gone.any() and np.issubdtype(values.dtype, np.floating):
        values = values.copy()
        values[gone] = np.nan
    return values
