"""What the tests of the command line share: a study that trains in no time, and a call as from a shell.

Question.   When does gradient descent on a parabola diverge?
Phenomenon. Above a rate of 2 every update moves away from the minimum.
Try.        Raise `lr` above 2.
Cites.      None: the recursion x <- (1 - lr) x is solved by hand.
"""

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from workbench import noise
from workbench.__main__ import main
from workbench.claim import Claim
from workbench.design import grid
from workbench.knobs import Knobs, at_least, knob
from workbench.probe import Probe, probe
from workbench.study import Budget, Event, Moment, Preset, Study


class Descent(Knobs):
    lr: float = knob(0.1, 1e-3, 10.0, log=True, doc="learning rate")
    units: int = knob(2, 1, 8, valid=at_least(1), doc="number of coordinates")
    mirrored: bool = knob(False, doc="start on the other side of the minimum")
    shape: Literal["bowl", "flat"] = knob("bowl", doc="what is descended", acts="shape")
    label: str = knob("none", doc="any text")


class Learner:
    def prepare(self, knobs: Any, key: Any) -> None:
        return None

    def init(self, key: Any, knobs: Any, shared: Any) -> dict[str, Any]:
        start = noise.normal(key, "start", (knobs.units,))
        return dict(params=dict(x=-start if knobs.mirrored else start))

    def step(self, state: Any, batch: Any, knobs: Any, shared: Any, now: Any) -> tuple[dict[str, Any], Moment]:
        x = state["params"]["x"]
        return dict(params=dict(x=x - knobs.lr * x)), Moment(loss=(x * x).sum() / 2, x=x)


def task(knobs: Any, key: Any) -> dict[str, Any]:
    return dict(unused=noise.normal(key, "unused", (1,)))


@probe()
def loss(m: Any) -> Any:
    """Height above the minimum"""
    return m.loss


@probe("unit")
def position(m: Any) -> Any:
    """Coordinates"""
    return m.x


def excess(record: Any) -> Any:
    """Final height at a rate of 2.5 minus that at 0.1, per seed."""
    high, low = (record.wb.where(lr=rate).wb["loss"].isel(step=-1).astype(float).swap_dims(run="seed") for rate in (2.5, 0.1))
    return high - low


def study(*probes: Probe, **parts: Any) -> Study:
    """The parabola, with other probes or parts."""
    given = dict(
        title="Descent on a parabola",
        knobs=Descent,
        task=task,
        learner=Learner(),
        probes=probes or (loss,),
        optional_probes=(position,),
        coords=lambda knobs: dict(unit=range(knobs.units)),
        budgets=dict(
            smoke=Budget(grid(lr=(0.1, 2.5)), 20),
            demo=Budget(grid(lr=(0.1, 2.5)), 50),
            full=Budget(grid(lr=(0.1, 2.5), seed=range(4)), 20),
        ),
        presets=(Preset("diverging", dict(lr=2.5), "Too fast."),),
        claims=(Claim("entropy-collapse", "Too high a rate climbs", excess, 0.0, "any climb", "the start"),),
        events=(Event("first_loss", lambda record: record.wb["loss"].isel(step=0), "1", "loss at the start"),),
    )
    return Study("parabola", **(given | parts))


def stopping(number: int, draw: int) -> Study:
    """The parabola, whose process gets a signal at a draw of a batch; the first few draws only measure."""
    seen = []

    def stops(knobs: Any, key: Any) -> dict[str, Any]:
        seen.append(key)
        if len(seen) == draw:
            os.kill(os.getpid(), number)
        return task(knobs, key)

    stops.lanes, stops.reason = False, "each draw of a step is counted"
    return study(task=stops)


class Answer(NamedTuple):
    """What a command left: its exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def caller(capsys: Any) -> Callable[..., Answer]:
    """A function that runs a command line in this process."""

    def call(*words: object) -> Answer:
        try:
            main([str(word) for word in words], prog_name="workbench")
        except SystemExit as stop:
            return Answer(stop.code or 0, *capsys.readouterr())
        raise AssertionError("a command ends by leaving")

    return call
