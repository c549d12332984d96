"""What a user of this package gets: a stream of a plan, trained as the engine chooses for a long run."""

import time
from dataclasses import replace

import torch

from ..engine import Kept, stream
from ..engine.choice import choose
from .cases import LONG, Case


class Engine:
    """The runs of a case. What is timed is a whole stream, from the call to its last item, that goes on from the states of the last."""

    def __init__(self, case: Case, device: torch.device | None = None, runs: int = 0, mode: str = "auto") -> None:
        self.ready = case.plan(runs, device=device, mode=mode)
        choose(self.ready)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return self.ready.runs

    @property
    def way(self) -> str:
        """How they train, as the engine chose."""
        (choice,) = self.ready.choices
        compiled = f"compiled ({', '.join(map(str, choice.compiled))})" if choice.compiled else "eager"
        return f"{choice.layout.name}, {choice.together} together, {compiled}, threads {choice.threads}, workers {self.ready.workers}"

    def train(self, steps: int) -> float:
        """Make so many updates of every run; the seconds they took. The first time programs are compiled."""
        start = self.ready.start if self.ready.start + steps < LONG else 0
        going_on, states = replace(self.ready, start=start), {}
        began = time.perf_counter()
        for item in stream(going_on, until=start + steps):
            if isinstance(item, Kept):
                states.update(zip(item.runs, item.states, strict=True))
        took = time.perf_counter() - began
        self.ready = replace(going_on, start=start + steps, states=states)
        return took
