"""Classification of small grey images."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .. import inputs, noise
from ..knobs import knob
from .batch import Batch


class ImageKnobs(Batch):
    """Which images."""

    images: str = knob("fashion-mnist", doc="A shipped image set, or the path of your own folder with one subfolder a class", group="data")


@dataclass(frozen=True)
class Images:
    """Training images drawn at random with replacement, standardized by mean and deviation of all training pixels."""

    reads: ClassVar[tuple[str, ...]] = ("images", "batch")

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """x float32 (batch, 28, 28), y int64 (batch,)."""
        pixels, labels = _training(inputs.images(knobs.images), key.device)
        index = noise.randint(key, "images", len(labels), (knobs.batch,))
        return {"x": pixels[index], "y": labels[index]}

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """All held-out images in order: x float32 (sample, 28, 28), y int64 and weight float32 (all 1), both (sample,)."""
        return dict(_held_out(inputs.images(knobs.images), torch.device(device)))

    def classes(self, knobs: Any) -> int:
        """Number of classes."""
        return len(self.labels(knobs))

    def labels(self, knobs: Any) -> tuple[str, ...]:
        """The name of each class."""
        return inputs.images(knobs.images).classes

    def data_hash(self, knobs: Any) -> str:
        """sha256 of the images, the labels and their split."""
        return inputs.images(knobs.images).sha256


@lru_cache(maxsize=16)
def _training(pictures: inputs.Pictures, device: torch.device) -> tuple[Tensor, Tensor]:
    return _standardized(pictures, pictures.training, device), torch.tensor(pictures.training_labels, device=device)


@lru_cache(maxsize=16)
def _held_out(pictures: inputs.Pictures, device: torch.device) -> dict[str, Tensor]:
    labels = torch.tensor(pictures.held_out_labels, device=device)
    return {"x": _standardized(pictures, pictures.held_out, device), "y": labels, "weight": torch.ones(len(labels), device=device)}


def _standardized(pictures: inputs.Pictures, pixels: np.ndarray, device: torch.device) -> Tensor:
    mean, deviation = pictures.training.mean(dtype=np.float64), pictures.training.std(dtype=np.float64)
    return torch.tensor((pixels - mean) / deviation, dtype=torch.float32, device=device)
