"""One task out of several, by the value of a static knob."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import unknown


@dataclass(frozen=True)
class Choice:
    """The task named by `knobs.<knob>`; it stands in for that task wherever a batch, an evaluation set or a label is asked for."""

    knob: str
    tasks: tuple[tuple[str, Any], ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The knob that chooses, and all that any of the tasks reads."""
        return tuple(dict.fromkeys((self.knob, *(name for _, task in self.tasks for name in task.reads))))

    @property
    def constant(self) -> str:
        """Why batches do not depend on the seed, where that holds of every task; else empty."""
        reasons = [getattr(task, "constant", "") for _, task in self.tasks]
        return "; ".join(dict.fromkeys(reasons)) if all(reasons) else ""

    def of(self, knobs: Any) -> Any:
        """The task that these knobs choose."""
        name, tasks = getattr(knobs, self.knob), dict(self.tasks)
        if name not in tasks:
            raise unknown("task", name, tasks)
        return tasks[name]

    def __call__(self, knobs: Any, key: Tensor) -> Any:
        """A batch of the chosen task."""
        return self.of(knobs)(knobs, key)

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The held-out set of the chosen task."""
        return self.of(knobs).evaluation(knobs, device)

    def labels(self, knobs: Any) -> tuple[str, ...]:
        """What each value of y stands for in the chosen task."""
        return self.of(knobs).labels(knobs)

    def data_hash(self, knobs: Any) -> str:
        """sha256 of the data of the chosen task."""
        return self.of(knobs).data_hash(knobs)


def choose(knob: str, **tasks: Any) -> Choice:
    """`choose("data", text=Text(), images=Images())`: the knob `data` says which."""
    return Choice(knob, tuple(tasks.items()))
