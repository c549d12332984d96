"""Batches: drawn once for all runs that share a seed and the knobs that their task reads."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .. import noise
from .cohorts import Cohort, Restricted, lane_values
from .lanes import cast


class Draws:
    """The batches of some runs of a cohort, step by step."""

    def __init__(self, cohort: Cohort, positions: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.cohort, self.dtype, self.device = cohort, dtype, device
        self.task = cohort.study.task
        self.reads = frozenset(getattr(self.task, "reads", ()))
        names = sorted(self.reads & set(cohort.lanes))
        rows = [(cohort.seeds[i], *(cohort.lanes[name][i] for name in names)) for i in positions]
        distinct = list(dict.fromkeys(rows))
        place = {row: i for i, row in enumerate(distinct)}
        self.of_lane = torch.tensor([place[row] for row in rows], device=device)
        self.keys = noise.fold(noise.key_of(torch.tensor([row[0] for row in distinct]), device=device), "task")
        self.lanes = {name: lane_values(cohort, [row[i + 1] for row in distinct], dtype, device) for i, name in enumerate(names)}
        self.vectorised = getattr(cohort.study.learner, "lanes", True) and getattr(self.task, "lanes", True)

    def at(self, step: int) -> tuple[Any, bool]:
        """The batch of every lane at `step`, and whether it is one batch that all lanes share."""
        keys = noise.fold(self.keys, torch.tensor(step, device=self.device))
        if len(self.keys) == 1:
            return self._one(keys[0], {name: values[0] for name, values in self.lanes.items()}), True
        if self.vectorised:
            drawn = torch.vmap(self._one)(keys, self.lanes)
            return tree_map(lambda leaf: leaf[self.of_lane], drawn), False
        drawn = [self._one(key, {name: values[i] for name, values in self.lanes.items()}) for i, key in enumerate(keys)]
        return [drawn[i] for i in self.of_lane], False

    def _one(self, key: Tensor, lanes: dict[str, Any]) -> Any:
        knobs = Restricted(
            self.cohort.knobs.filled(lanes), self.reads, f"the task of {self.cohort.study.name!r}", "name it in the task's reads"
        )
        return cast(self.task(knobs, key), self.dtype)
