"""Chunks: the lanes of a cohort that advance together, and one stretch of their training."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import noise
from ..probe import Probe
from ..schema import Progress, Slab, due
from .cohorts import Cohort, lane_values
from .draws import Draws
from .lanes import Layout
from .programs import Part, Program, Programs, parts_at
from .step import Setting, check_shape, of_state, one_step
from .threads import ONE_AT_A_TIME

NOT_DIVERGED = -1


class Chunk:
    """Lanes of one cohort: their states, live knobs and keys, advanced stretch by stretch.

    With `programs` there are `size` lanes, whose last repeat the last run where there are fewer.
    """

    def __init__(
        self,
        cohort: Cohort,
        positions: Sequence[int],
        states: Sequence[Any],
        layout: Layout,
        setting: Setting,
        programs: Programs | None = None,
        size: int = 0,
    ) -> None:
        self.cohort, self.positions, self.layout, self.setting, self.programs = cohort, list(positions), layout, setting, programs
        filler = max(0, size - len(self.positions))
        lanes = self.positions + self.positions[-1:] * filler
        self.states = layout.pack([*states, *states[-1:] * filler])
        self.lanes = {n: lane_values(cohort, [v[i] for i in lanes], setting.dtype, setting.device) for n, v in cohort.lanes.items()}
        self.keys = noise.key_of(torch.tensor([cohort.seeds[i] for i in lanes]), device=setting.device)
        self.draws = Draws(cohort, lanes, setting.dtype, setting.device)
        self.diverged = np.full(len(self.positions), NOT_DIVERGED)
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
        parts = parts_at(self.cohort, step, self.setting.steps)
        values = self._measured(step)
        if self.programs and parts[0] in self.programs.ready:
            new, seen, finite = self._compiled(step, parts, self.programs.ready)
        else:
            new, (seen, finite) = self.eager(step, parts)
        values |= seen
        for p in self.cohort.probes:
            if p.name in values:
                check_shape(p, tuple(values[p.name].shape[1:]), self.cohort.labels)
        return new, values, finite

    def call(self, step: int, *parts: Part) -> tuple[Any, ...]:
        """The step of one lane as a function, the number of the step, and what `Layout.map` wants beside."""
        probes = tuple(p for part in parts for p in part.probes(self.cohort))
        fn = partial(one_step, self.cohort, probes, parts[0].phase, self.setting.dtype)
        now = torch.tensor(step, dtype=torch.int64, device=self.setting.device)
        return fn, now, self.states, *self.draws.at(step), self.lanes, self.keys

    def eager(self, step: int, parts: Sequence[Part]) -> tuple[Any, Any]:
        """What `Layout.map` gives for the step and the probes of these parts."""
        fn, now, *given = self.call(step, *parts)
        with ONE_AT_A_TIME:
            return self.layout.map(partial(fn, now), *given)

    def _compiled(self, step: int, parts: Sequence[Part], ready: Mapping[Part, Program]) -> tuple[Any, dict[str, Tensor], Tensor]:
        """The update always comes from the same program: what is measured on slower clocks does not change a run."""
        _, *given = self.call(step, parts[0])
        new, (seen, finite) = ready[parts[0]](*given)
        left = [part for part in parts[1:] if part not in ready]
        for part in parts[1:]:
            seen |= ready[part](*given) if part in ready else {}
        if left:
            seen |= self.eager(step, left)[1][0]
        return new, seen, finite

    def run_states(self) -> tuple[Any, ...]:
        """The present state of each run."""
        return tuple(self.layout.unpack(self.states, i) for i in range(len(self.positions)))

    def halves(self) -> tuple["Chunk", "Chunk"]:
        """Two chunks that go on where this one stands, each with half of its runs; they are not compiled."""
        middle = len(self.positions) // 2
        return self._part(range(middle)), self._part(range(middle, len(self.positions)))

    def _part(self, indices: Sequence[int]) -> "Chunk":
        states = [self.layout.unpack(self.states, i) for i in indices]
        part = Chunk(self.cohort, [self.positions[i] for i in indices], states, self.layout, self.setting)
        part.diverged = self.diverged[list(indices)]
        return part

    def _measured(self, step: int) -> dict[str, Tensor]:
        """The values of the state probes that are due."""
        fires = due(step, self.setting.steps)
        probes = [p for p in self.cohort.probes if p.on == "state" and p.every in fires]
        if not probes:
            return {}
        keys = noise.fold(self.keys, torch.tensor(step, device=self.setting.device))
        with ONE_AT_A_TIME:
            return {p.name: self._of_states(p, keys) for p in probes}

    def _of_states(self, p: Probe, keys: Tensor) -> Tensor:
        of_one = partial(of_state, self.cohort, p)
        if p.vectorised and self.layout.name == "lanes":
            return torch.vmap(of_one)(self.states, self.lanes, keys)
        lanes = ({name: values[i] for name, values in self.lanes.items()} for i in range(len(self.positions)))
        return torch.stack([of_one(*each) for each in zip(self.run_states(), lanes, keys, strict=False)])


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
        finite = torch.stack(self.finite, 1)[: len(runs)].cpu().numpy()
        for i in np.flatnonzero((diverged < 0) & ~finite.all(1)):
            diverged[i] = self.start + int(np.argmin(finite[i]))
        for clock, by_name in self.seen.items():
            steps = [s for s in range(self.start, self.start + len(self.finite)) if clock in due(s, self.steps)]
            gone = (diverged[:, None] >= 0) & (np.array(steps)[None] >= diverged[:, None])
            values = {name: _blanked(torch.stack(tensors, 1)[: len(runs)].cpu().numpy(), gone) for name, tensors in by_name.items()}
            yield Slab(runs, clock, steps, values, self.cohort.labels)


def _blanked(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    if gone.any() and np.issubdtype(values.dtype, np.floating):
        values = values.copy()
        values[gone] = np.nan
    return values
