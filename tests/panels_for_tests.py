"""What tests of the panel have in common: opening one without a screen, and studies that are slow or fail."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from learners_for_tests import Descent, Rate, parabola

import workbench as wb
from workbench.engine.experiment import Experiment
from workbench.knobs import knob
from workbench.panel.desk import Desk
from workbench.panel.panel import Panel

TINY = dict(width=16, depth=1, context=8, batch=4)


def opened(study="entropy_collapse", **given):
    """A panel that is closed at the end, and whose thread must be gone then."""
    return closing(wb.explore(study, **(TINY if isinstance(study, str) and not given.get("replay") else {}) | given))


@contextmanager
def closing(panel) -> Iterator[Panel]:
    try:
        yield panel
    finally:
        panel.close()
        panel._player.join(10)
        assert not panel._player.is_alive()


def desk_of(study=parabola, seeds=1, memory=2**20, steps=1000, knobs=None, **given):
    """A desk over an experiment on the CPU."""
    row = {name: getattr(study.knobs(**(knobs or {})), name) for name in study.knobs.__dataclass_fields__}
    free = [p.name for p in study.probes if p.cost == "free"]
    return Desk(study, Experiment(study, row, range(seeds), measured=free, memory=memory, steps=steps), "cpu", **given)


def trained(panel, until):
    """Train up to a step, and wait for it."""
    panel.press("run", until=until)
    panel.wait()
    assert panel.desk.problem == ""
    return panel


def advanced(desk, steps):
    for _ in range(steps):
        desk.advance()
    return desk


def worked(desk):
    """Go through what a command left to be done; the steps that were trained again."""
    steps = list(desk.work)
    desk.work = None
    return steps


def loss(panel, branch=None, name="train_loss"):
    """A curve of each run of the record, or of those of a branch."""
    record = panel.record if branch is None else panel.record.wb.where(branch=branch)
    return record.wb[name].values


class Hot(Rate):
    heat: int = knob(7, 0, 1000, acts="live", doc="step at which a small rate fails")


class Failing(Descent):
    """Raises at step `heat` unless the rate is at least 0.5."""

    lanes, reason = False, "it looks at numbers"

    def step(self, state, batch, knobs, shared, now):
        if int(now.step) == knobs.heat and knobs.lr < 0.5:
            raise RuntimeError("the net caught fire")
        return super().step(state, batch, knobs, shared, now)


class Slow(Descent):
    """Takes 5 ms a step."""

    def step(self, state, batch, knobs, shared, now):
        time.sleep(0.005)
        return super().step(state, batch, knobs, shared, now)


class Hungry(Descent):
    """Wants more memory than there is from step 3 on."""

    lanes, reason = False, "it looks at numbers"

    def step(self, state, batch, knobs, shared, now):
        if int(now.step) == 3:
            raise torch.OutOfMemoryError("out of memory, tried to allocate 9 GiB")
        return super().step(state, batch, knobs, shared, now)


hungry = replace(parabola, learner=Hungry())
failing = replace(parabola, knobs=Hot, learner=Failing())
slow = replace(parabola, learner=Slow())
