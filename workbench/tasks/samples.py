"""Small training sets with one number to predict for each sample, drawn once for each run.

A batch is a random `order` of all samples, int64 (sample,). Whoever takes the first B of them has a batch of B drawn without replacement,
the batches of different sizes hold one another, and all samples make a full batch.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import inputs, noise
from ..errors import InputError
from ..knobs import Knobs, at_least, knob

POOLED = 2


class SampleKnobs(Knobs):
    """How many samples a run trains on."""

    samples: int = knob(200, 16, 500, valid=at_least(2), units="example", group="data", doc="examples in the training set")


class SparseKnobs(Knobs):
    """What a regression on random inputs has to find."""

    features: int = knob(100, 8, 400, valid=at_least(1), group="data", doc="numbers in an input of a regression")
    nonzeros: int = knob(5, 1, 40, valid=at_least(1), group="data", doc="weights of the regression's target that are not zero")


class _Ordered:
    reads: ClassVar[tuple[str, ...]] = ("samples",)

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """The order in which an update takes its samples: int64 (sample,)."""
        return {"order": noise.permutation(key, "order", knobs.samples)}


@dataclass(frozen=True)
class ImageSamples(_Ordered):
    """Images averaged over 2 x 2 pixels, standardized like those of `Images`. The first half of the classes is 1, the rest is -1."""

    def training(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """The training set of the run of this key: x float32 (sample, 14, 14), y float32 (sample,)."""
        x, y = _pictures(inputs.images(knobs.images), "training", key.device)
        if knobs.samples > len(y):
            raise InputError(f"Knob 'samples' is {knobs.samples}, and image set {knobs.images!r} has {len(y)} to train on; choose fewer.")
        chosen = noise.permutation(key, "samples", len(y))[: knobs.samples]
        return {"x": x[chosen], "y": y[chosen]}

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """All held-out images: x float32 (sample, 14, 14), y float32 (sample,)."""
        x, y = _pictures(inputs.images(knobs.images), "held_out", torch.device(device))
        return {"x": x, "y": y}

    def size(self, knobs: Any) -> int:
        """Numbers in an input."""
        return (inputs.SIDE // POOLED) ** 2

    def data_hash(self, knobs: Any) -> str:
        """sha256 of the image set, of which the samples are a part."""
        return inputs.images(knobs.images).sha256


@dataclass(frozen=True)
class SparseSamples(_Ordered):
    """Standard normal inputs and a linear target without noise, whose first `nonzeros` weights are 1, -1, 1, ... and whose others are 0."""

    def training(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """The training set of the run of this key: x float32 (sample, feature), y float32 (sample,)."""
        return _seen(noise.normal(key, "samples", (knobs.samples, knobs.features)), knobs)

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The axes, so long that the mean squared error of a linear map is its expectation over normal inputs."""
        return _seen(_axes(knobs.features, device), knobs)

    def size(self, knobs: Any) -> int:
        """Numbers in an input."""
        return knobs.features

    def data_hash(self, knobs: Any) -> str:
        """sha256 of what the held-out set says of the target; training inputs are drawn."""
        return _sha256(self.evaluation(knobs))


@dataclass(frozen=True)
class OrthogonalSamples(_Ordered):
    """The same target seen through as many orthogonal inputs as there are samples, each of squared length `samples`.

    So the Hessian of half the mean squared error of a linear map is the identity.
    """

    def training(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """x float32 (sample, sample), y float32 (sample,); the same in all runs."""
        return self.evaluation(knobs, key.device)

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The training set: there is nothing else to predict."""
        return _seen(_axes(knobs.samples, device), knobs)

    def size(self, knobs: Any) -> int:
        """Numbers in an input."""
        return knobs.samples

    def data_hash(self, knobs: Any) -> str:
        """sha256 of the samples."""
        return _sha256(self.evaluation(knobs))


def _axes(n: int, device: torch.device | str) -> Tensor:
    return n**0.5 * torch.eye(n, device=device)


def _seen(x: Tensor, knobs: Any) -> dict[str, Tensor]:
    """Inputs and the target at them."""
    place = torch.arange(x.shape[1], device=x.device)
    return {"x": x, "y": x @ torch.where(place < knobs.nonzeros, 1.0 - 2.0 * (place % 2), 0.0)}


def _sha256(batch: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in batch.values())).hexdigest()


@lru_cache(maxsize=16)
def _pictures(pictures: inputs.Pictures, part: str, device: torch.device) -> tuple[Tensor, Tensor]:
    pixels, labels = getattr(pictures, part), getattr(pictures, f"{part}_labels")
    mean, deviation = pictures.training.mean(dtype=np.float64), pictures.training.std(dtype=np.float64)
    x = torch.tensor((pixels - mean) / deviation, dtype=torch.float32, device=device)
    y = torch.tensor(np.where(labels < len(pictures.classes) / 2, 1.0, -1.0), dtype=torch.float32, device=device)
    return F.avg_pool2d(x[:, None], POOLED)[:, 0], y
