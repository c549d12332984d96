"""Batches: drawn once for all runs that share a seed and the knobs that their task reads, and for a block of steps at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .. import noise
from .cohorts import Cohort, Restricted, lane_values
from .lanes import cast, size_in_bytes, stack
from .threads import ONE_AT_A_TIME

BLOCK_BYTES = 2**21
LONGEST_BLOCK = 64


class Draws:
    """The batches of some runs of a cohort, step by step."""

    def __init__(self, cohort: Cohort, positions: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.cohort, self.dtype, self.device = cohort, dtype, device
        self.task = cohort.study.task
        self.reads = frozenset(getattr(self.task, "reads", ()))
        self.constant = bool(getattr(self.task, "constant", ""))
        names = sorted(self.reads & set(cohort.lanes))
        rows = [(cohort.seeds[0 if self.constant else i], *(cohort.lanes[name][i] for name in names)) for i in positions]
        distinct = list(dict.fromkeys(rows))
        place = {row: i for i, row in enumerate(distinct)}
        self.of_lane = torch.tensor([place[row] for row in rows], device=device)
        self.keys = noise.fold(noise.key_of(torch.tensor([row[0] for row in distinct]), device=device), "task")
        self.lanes = {name: lane_values(cohort, [row[i + 1] for row in distinct], dtype, device) for i, name in enumerate(names)}
        self.mapped = getattr(cohort.study.learner, "lanes", True)
        self.vectorised = self.mapped and getattr(self.task, "lanes", True)
        self.first, self.drawn, self.block = 0, 0, None

    @property
    def shared(self) -> bool:
        """Whether all lanes have the same batch."""
        return len(self.keys) == 1

    def at(self, step: int) -> tuple[Any, bool]:
        """The batch of every lane at `step`, and whether it is one batch that all lanes share."""
        if not self.vectorised:
            return self._in_turn(step)
        if not self.first <= step < self.first + self.drawn and not (self.constant and self.drawn):
            self._draw_ahead(step)
        place = 0 if self.constant else step - self.first
        if self.shared:
            return tree_map(lambda leaf: leaf[place, 0], self.block), True
        return tree_map(lambda leaf: leaf[place, self.of_lane], self.block), False

    def _draw_ahead(self, step: int) -> None:
        """Fill the block from `step` on: one step at first, then twice as many each time while they take little memory."""
        follows = step == self.first + self.drawn > 0
        most = self.drawn * BLOCK_BYTES // max(1, size_in_bytes(self.block)) if follows else 1
        steps = 1 if self.constant else max(1, min(2 * self.drawn, most, LONGEST_BLOCK))
        self.block = None  # what was drawn before is let go of first
        at = torch.arange(step, step + steps, device=self.device)
        keys = noise.fold(self.keys.repeat(steps, 1), at.repeat_interleave(len(self.keys)))
        lanes = {name: values.repeat(steps) for name, values in self.lanes.items()}
        with ONE_AT_A_TIME:  # a task may hold a model
            drawn = torch.vmap(self._one)(keys, lanes)
        self.block = tree_map(lambda leaf: leaf.unflatten(0, (steps, len(self.keys))), drawn)
        self.first, self.drawn = step, steps

    def _in_turn(self, step: int) -> tuple[Any, bool]:
        keys = noise.fold(self.keys, torch.tensor(step, device=self.device))
        with ONE_AT_A_TIME:
            drawn = [self._one(key, {name: values[i] for name, values in self.lanes.items()}) for i, key in enumerate(keys)]
        if self.shared:
            return drawn[0], True
        of_lanes = [drawn[i] for i in self.of_lane]
        return (stack(of_lanes) if self.mapped else of_lanes), False

    def _one(self, key: Tensor, lanes: dict[str, Any]) -> Any:
        knobs = Restricted(
            self.cohort.knobs.filled(lanes), self.reads, f"the task of {self.cohort.study.name!r}", "name it in the task's reads"
        )
        return cast(self.task(knobs, key), self.dtype)
