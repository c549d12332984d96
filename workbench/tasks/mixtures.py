"""Points of the plane around the modes of a mixture: what a generator has to cover."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import noise
from ..errors import InputError
from ..knobs import above, at_least, knob
from .batch import Batch

RADIUS = 2.0
EXAMPLES = 1  # the seed of the points of a finite data set


class MixtureKnobs(Batch):
    """How many modes there are, where, how wide they are, and how many of their points are known."""

    mixture: Literal["ring", "grid"] = knob("ring", group="data", doc="modes on a circle of radius 2, or on a square of side 4")
    modes: int = knob(8, 2, 25, valid=at_least(1), group="data", doc="modes of the mixture, all of the same weight")
    mode_width: float = knob(0.1, 0.02, 0.5, valid=above(0.0), group="data", doc="standard deviation of a mode along each axis")
    examples: int = knob(
        0, 0, 1000, valid=at_least(0), units="example", group="data", doc="real points that there are; 0: new ones in every batch"
    )


@dataclass(frozen=True)
class Mixtures:
    """Points drawn from a mixture of round normal distributions: anew for every batch, or from `examples` of them with replacement."""

    reads: ClassVar[tuple[str, ...]] = ("mixture", "modes", "mode_width", "examples", "batch", "critic_steps")

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """x float32 (critic_steps * batch, 2)."""
        count = knobs.critic_steps * knobs.batch
        if not knobs.examples:
            return {"x": points(knobs, key, count)}
        return {"x": examples(knobs, knobs.examples, key.device)[noise.randint(key, "example", knobs.examples, (count,))]}


def examples(knobs: Any, count: int, device: torch.device | str = "cpu") -> Tensor:
    """The real points that a finite data set begins with, the same for all seeds, float32 (count, 2)."""
    return points(knobs, noise.key_of(EXAMPLES, device), count)


def points(knobs: Any, key: Tensor, count: int) -> Tensor:
    """`count` points of the mixture, float32 (count, 2)."""
    at = centres(knobs, key.device)
    return at[noise.randint(key, "mode", len(at), (count,))] + knobs.mode_width * noise.normal(key, "point", (count, 2))


def centres(knobs: Any, device: torch.device | str = "cpu") -> Tensor:
    """The modes, float32 (modes, 2). InputError for a grid whose number of modes is no square."""
    if knobs.mixture == "ring":
        angle = 2 * math.pi * torch.arange(knobs.modes, device=device) / knobs.modes
        return RADIUS * torch.stack([angle.cos(), angle.sin()], 1)
    side = math.isqrt(knobs.modes)
    if side**2 != knobs.modes:
        raise InputError(f"Knob 'modes' is {knobs.modes}, and mixture='grid' needs a square number; choose {side**2} or {(side + 1) ** 2}.")
    along = torch.linspace(-RADIUS, RADIUS, side, device=device)
    return torch.cartesian_prod(along, along).reshape(-1, 2)
