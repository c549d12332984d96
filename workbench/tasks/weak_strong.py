"""Samples with a weak feature in all of them, a strong one in most, and noise (Lu et al. 2023, arXiv 2310.17074)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import noise
from ..errors import InputError
from ..knobs import at_least, between, knob
from .batch import Batch

WEAK, STRONG = 0, 1  # axes of the features
HELD_OUT = 256

Raw = dict[str, Tensor]  # y, -1 or 1, (sample,) and noise of variance 1, (sample, 2, dimension)


class WeakStrongKnobs(Batch, defaults={"batch": 1}):
    """What a sample is made of, and how many there are."""

    samples: int = knob(60, 10, 400, valid=at_least(1), units="example", group="data", doc="examples in the training set")
    dimension: int = knob(200, 50, 1000, valid=at_least(3), group="data", doc="length of a patch")
    strong_share: float = knob(
        0.95, 0.0, 1.0, valid=between(0.0, 1.0), group="data", doc="share of the samples that have the strong feature"
    )
    weak_norm: float = knob(1.0, 0.1, 5.0, group="data", doc="norm of the weak feature")
    strong_norm: float = knob(3.0, 0.1, 5.0, group="data", doc="norm of the strong feature")
    noise: float = knob(0.2, 0.0, 1.0, group="data", doc="standard deviation of each number of a noise patch")


@dataclass(frozen=True)
class WeakStrong:
    """Which samples of its training set a run sees in an update; `raw` draws the set, `samples` makes x and y of it."""

    reads: ClassVar[tuple[str, ...]] = ("samples", "batch")

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """index int64 (batch,), all different; InputError if there are fewer samples."""
        if knobs.batch > knobs.samples:
            raise InputError(f"A batch of {knobs.batch} has more than all {knobs.samples} samples; lower batch or raise samples.")
        return {"index": noise.permutation(key, "sample", knobs.samples)[: knobs.batch]}

    def raw(self, knobs: Any, key: Tensor) -> Raw:
        """What the training set of a run is made of."""
        return _raw(key, knobs.samples, knobs.dimension)

    def samples(self, knobs: Any, raw: Raw, index: Tensor) -> dict[str, Tensor]:
        """The training samples of these places (B,): x (B, 3, dimension), y (B,). The first have the strong feature, a share as given."""
        raw = {name: values[index] for name, values in raw.items()}
        return _assembled(knobs, raw, index + 0.5 < knobs.strong_share * knobs.samples)

    def all_samples(self, knobs: Any, raw: Raw) -> dict[str, Tensor]:
        """The whole training set, as from `samples`."""
        return self.samples(knobs, raw, torch.arange(knobs.samples, device=raw["y"].device))

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> Raw:
        """What held-out samples are made of, the same in all runs."""
        return _raw(noise.fold(noise.key_of(0, device=device), "held out"), HELD_OUT, knobs.dimension)

    def weak_only(self, knobs: Any, raw: Raw) -> dict[str, Tensor]:
        """Samples none of which has the strong feature: x (sample, 3, dimension), y (sample,)."""
        return _assembled(knobs, raw, torch.zeros_like(raw["y"], dtype=torch.bool))


def _raw(key: Tensor, samples: int, dimension: int) -> Raw:
    return {"y": 2.0 * noise.randint(key, "label", 2, (samples,)) - 1, "noise": noise.normal(key, "noise", (samples, 2, dimension))}


def _assembled(knobs: Any, raw: Raw, has_strong: Tensor) -> dict[str, Tensor]:
    """A patch y u, a patch y v or noise, a patch of noise. Features lie along axes of their own, where there is no noise."""
    y, z = raw["y"], raw["noise"]
    axes = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)[: STRONG + 1]
    spread = knobs.noise * z * (1 - axes.sum(0))
    weak, strong = (y[:, None] * norm * axes[axis] for norm, axis in ((knobs.weak_norm, WEAK), (knobs.strong_norm, STRONG)))
    second = torch.where(has_strong[:, None], strong, spread[:, 0])
    return {"x": torch.stack([weak, second, spread[:, 1]], 1), "y": y}
