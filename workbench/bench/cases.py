"""The models that are measured: each an ordinary study of this package with the loss as its only probe, and how many runs of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import noise
from ..design import Design
from ..engine import plan
from ..engine.plans import Plan
from ..errors import unknown
from ..knobs import at_least, knob
from ..learners import Loss, Supervised
from ..models import MLP, Convnet, Convolutional, Decoder, Patches, Perceptron, Transformer, VisionTransformer
from ..numerics import Rounding
from ..optimizers import Optimizers
from ..probes import train_loss
from ..schedules import Schedule
from ..study import Budget, Study
from ..tasks import ImageKnobs, Images, Text, TextKnobs

LONG = 100_000  # updates for which the engine chooses how to train, so that it chooses as for a long run
RATES = 1e-3, 3e-3
SHARE = 0.4  # of all pairs, that the sums of two numbers are learned from


@dataclass(frozen=True)
class Case:
    """`runs` runs of a study at these knobs; `target` is the ratio to the plain loop that is to be reached on two cores."""

    name: str
    study: Study
    runs: int
    knobs: Mapping[str, Any] = field(default_factory=dict)
    target: float = 0.95

    def rows(self, runs: int = 0) -> list[dict[str, Any]]:
        """The runs (by default as many as the case has), each with a learning rate and a seed of its own."""
        runs = runs or self.runs
        low, high = RATES
        rates = [low * (high / low) ** (i / runs) for i in range(runs)]
        grids = ({**{name: (value,) for name, value in self.knobs.items()}, "lr": (rate,), "seed": (i,)} for i, rate in enumerate(rates))
        return Design(tuple(grids)).rows(self.study.knobs)

    def plan(self, runs: int = 0, **settings: Any) -> Plan:
        """These runs made ready to train for long; `settings` are those of `engine.plan`."""
        return plan(self.study, self.rows(runs), LONG, **settings)


class Training(Schedule, Optimizers, Rounding, Loss):
    """What all of them can vary beside model and data, as the shipped study can."""


class TextSettings(Transformer, TextKnobs, Training):
    """A decoder on text."""


class ImageSettings(Transformer, Patches, ImageKnobs, Training):
    """A vision transformer on images."""


class ConvolutionalSettings(Convolutional, ImageKnobs, Training):
    """A convnet on images."""


class SumSettings(Perceptron, Training, defaults={"width": 256, "bias": False, "weight_decay": 1.0}):
    """An MLP on sums."""

    modulus: int = knob(97, 2, 113, valid=at_least(2), group="data", doc="what sums are taken modulo")


def sums(knobs: Any, key: Tensor) -> dict[str, Tensor]:
    """A fixed part of all pairs (a, b): x float32 (pairs, 2 modulus), both as one-hots, and y int64 (pairs,), a + b mod modulus."""
    return dict(_sums(knobs.modulus, key.device))


sums.reads = ("modulus",)
sums.constant = "every update sees all pairs that are learned from"


@lru_cache(maxsize=4)
def _sums(modulus: int, device: torch.device) -> dict[str, Tensor]:
    count = modulus**2
    chosen = noise.permutation(noise.key_of(0, device=device), "pairs", count)[: int(SHARE * count)]
    a, b = chosen // modulus, chosen % modulus
    numbers = torch.arange(modulus, device=device)
    x = torch.cat([a[:, None] == numbers, b[:, None] == numbers], 1)
    return {"x": x.float(), "y": (a + b) % modulus}


def _study(title: str, knobs: type, task: Any, model: Any, **parts: Any) -> Study:
    learner = Supervised(model, evaluation=getattr(task, "evaluation", None))
    budgets = {name: Budget(Design(({},)), 10) for name in ("smoke", "demo", "full")}
    return Study(__name__, title, knobs, task, learner, (train_loss,), budgets, _coords, **parts)


def _coords(knobs: Any) -> dict[str, range]:
    return dict(layer=range(knobs.depth), head=range(getattr(knobs, "heads", 1)))


TEXT = _study("Decoder on text", TextSettings, Text(), lambda knobs: Decoder(knobs, Text().vocabulary(knobs)))
IMAGES = _study("Vision transformer", ImageSettings, Images(), lambda knobs: VisionTransformer(knobs, Images().classes(knobs)))
CONVNET = _study("Convnet", ConvolutionalSettings, Images(), lambda knobs: Convnet(knobs, Images().classes(knobs)))
SUMS = _study("MLP on sums", SumSettings, sums, lambda knobs: MLP(knobs, 2 * knobs.modulus, knobs.modulus))

_D32 = dict(width=32, depth=2, heads=4, context=32, batch=8)
CASES = {
    case.name: case
    for case in (
        Case("d32", TEXT, 16, _D32, target=5.0),
        Case("d64", TEXT, 8, dict(width=64, depth=2, heads=4, context=64, batch=16), target=1.4),
        Case("mlp", SUMS, 8),
        Case("convnet", CONVNET, 8, dict(batch=32)),
        Case("vit", IMAGES, 8, dict(batch=16)),
        Case("d32x1", TEXT, 1, _D32),
        Case("mlpx1", SUMS, 1),
        Case("convnetx1", CONVNET, 1, dict(batch=32)),
    )
}


def named(names: Sequence[str]) -> list[Case]:
    """The cases of these names, by default all."""
    for name in names:
        if name not in CASES:
            raise unknown("case", name, CASES)
    return [CASES[name] for name in names or CASES]
