"""The loop that a person writes who has PyTorch alone: one run after the other, eager, autograd, torch.optim.AdamW."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .. import inputs, models
from ..engine.step import initial_states
from ..engine.threads import allowed, operations_on
from ..models.parts import BatchNorm
from ..optimizers import of_role
from ..tasks import Images, Text
from .cases import Case

TRIED = 10

Batch = tuple[Tensor, Tensor]


class Run:
    """One run: its model, with the values of a state, and its optimizer."""

    def __init__(self, make: Callable[[Any], nn.Module], knobs: Any, state: Mapping[str, Any], rate: float, device: torch.device) -> None:
        self.model = module(make, knobs, state).to(device)
        self.optimizer = _adamw(self.model, knobs, rate)

    def update(self, batch: Batch) -> Tensor:
        """One update; the loss before it."""
        x, y = batch
        loss = F.cross_entropy(self.model(x).flatten(0, -2), y.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Plain:
    """The runs of a case, from the engine's own first weights. Operations take one core or all, whichever is faster.

    `seconds_on` has the seconds of an update by number of threads, `operations` the floating-point operations of the matrix products
    and convolutions of an update.
    """

    def __init__(self, case: Case, device: torch.device | None = None, runs: int = 0) -> None:
        ready = case.plan(runs, device=device)
        (cohort,), device = ready.cohorts, ready.setting.device
        states = initial_states(cohort, range(ready.runs), ready.setting)
        begin = partial(Run, case.study.learner.model, cohort.knobs)
        self.many = [begin(state, rate, device) for state, rate in zip(states, cohort.lanes["lr"], strict=True)]
        self.draw = drawing(case, cohort.knobs, device)
        self.losses: list[list[float]] = []
        tried = begin(states[0], cohort.lanes["lr"][0], device)
        self.operations = _operations(tried, self.draw)
        self.seconds_on = {threads: _seconds_on(threads, tried, self.draw) for threads in sorted({1, allowed()})}
        self.threads = min(self.seconds_on, key=lambda threads: self.seconds_on[threads])

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.many)

    def train(self, steps: int) -> float:
        """Make so many updates of every run; the seconds they took. Losses are read once a run, at the end."""
        began = time.perf_counter()
        with operations_on(self.threads):
            for run in self.many:
                losses = [run.update(self.draw()) for _ in range(steps)]
                self.losses.append(torch.stack(losses).tolist())
        return time.perf_counter() - began


def module(make: Callable[[Any], nn.Module], knobs: Any, state: Mapping[str, Any]) -> nn.Module:
    """The model with the values of a state. Its batch norms become torch's own, which are faster: nobody would write them otherwise."""
    made = models.build(make, knobs)
    for path, part in list(made.named_modules()):
        if isinstance(part, BatchNorm):
            made.set_submodule(path, nn.BatchNorm2d(part.weight.shape[0], track_running_stats=True))
    made = made.to_empty(device="cpu")
    counts = {name: torch.zeros_like(x) for name, x in made.named_buffers() if name.endswith("num_batches_tracked")}
    made.load_state_dict({**state["params"], **state["buffers"], **counts})
    return made


def drawing(case: Case, knobs: Any, device: torch.device) -> Callable[[], Batch]:
    """A function that draws a batch (x, y) with torch's generator, as the task does from keys."""
    task = case.study.task
    if isinstance(task, Text):
        codes = torch.tensor(inputs.text(knobs.text).training, device=device).long()
        offsets = torch.arange(knobs.context + 1, device=device)
        return lambda: _windows(codes, offsets, knobs.batch)
    if isinstance(task, Images):
        pictures = inputs.images(knobs.images)
        pixels = torch.tensor(pictures.training, dtype=torch.float32, device=device)
        pixels, labels = (pixels - pixels.mean()) / pixels.std(), torch.tensor(pictures.training_labels, device=device)
        return lambda: _pictures(pixels, labels, knobs.batch)
    fixed = task(knobs, torch.zeros(2, dtype=torch.int64, device=device))
    return lambda: (fixed["x"], fixed["y"])


def _windows(codes: Tensor, offsets: Tensor, count: int) -> Batch:
    window = codes[torch.randint(len(codes) - len(offsets) + 1, (count, 1), device=codes.device) + offsets]
    return window[:, :-1], window[:, 1:]


def _pictures(pixels: Tensor, labels: Tensor, count: int) -> Batch:
    index = torch.randint(len(labels), (count,), device=labels.device)
    return pixels[index], labels[index]


def _adamw(model: nn.Module, knobs: Any, rate: float) -> torch.optim.AdamW:
    decayed = of_role(models.roles(model), "matrix", "embedding", "readout")
    groups = [
        dict(params=[p for name, p in model.named_parameters() if (name in decayed) == decays], weight_decay=knobs.weight_decay * decays)
        for decays in (True, False)
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=(knobs.beta1, knobs.beta2), eps=knobs.epsilon)


def _operations(run: Run, draw: Callable[[], Batch]) -> int:
    with FlopCounterMode(display=False) as counter:
        run.update(draw())
    return counter.get_total_flops()


def _seconds_on(threads: int, run: Run, draw: Callable[[], Batch]) -> float:
    with operations_on(threads):
        run.update(draw())
        began = time.perf_counter()
        torch.stack([run.update(draw()) for _ in range(TRIED)]).tolist()
    return (time.perf_counter() - began) / TRIED
