"""Sparse parity: the parity of a few bits among many."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .. import noise
from ..errors import InputError
from ..knobs import at_least, knob
from .split import Split, trained_on

_MOST_BITS = 62


class ParityKnobs(Split, defaults={"train_share": 0.5}):
    """Which bits there are and how many vectors of them. Defaults are those of arXiv 2501.04697."""

    parity_bits: int = knob(3, 1, 6, valid=at_least(1), units="bit", group="data", doc="bits whose parity is the label")
    noise_bits: int = knob(40, 0, 56, units="bit", group="data", doc="bits that do not matter")
    samples: int = knob(2000, 100, 4000, valid=at_least(2), units="example", group="data", doc="distinct vectors, to train and to test")


@dataclass(frozen=True)
class Parity:
    """All training vectors at every step: x float32 (sample, bits) of 0 and 1, parity bits first, y int64 (sample,)."""

    reads: ClassVar[tuple[str, ...]] = ("parity_bits", "noise_bits", "samples", "train_share", "split_seed")
    constant: ClassVar[str] = "full batch: all training vectors at every step, and they have a seed of their own"

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """The training vectors, int(train_share samples) of them."""
        return dict(_split(_vectors(knobs), key.device)[0])

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """All other vectors, shaped alike."""
        return dict(_split(_vectors(knobs), torch.device(device))[1])

    def classes(self, knobs: Any) -> int:
        """Number of classes."""
        return len(self.labels(knobs))

    def labels(self, knobs: Any) -> tuple[str, ...]:
        """The name of each class."""
        return ("even", "odd")

    def data_hash(self, knobs: Any) -> str:
        """sha256 of the vectors, their labels and their split."""
        training, held_out = _split(_vectors(knobs), torch.device("cpu"))
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in (*training.values(), *held_out.values()))).hexdigest()


class _Vectors(NamedTuple):
    parity_bits: int
    noise_bits: int
    samples: int
    train_share: float
    split_seed: int

    @property
    def bits(self) -> int:
        return self.parity_bits + self.noise_bits


def _vectors(knobs: Any) -> _Vectors:
    vectors = _Vectors(*(getattr(knobs, name) for name in _Vectors._fields))
    if vectors.bits > _MOST_BITS or 2 * vectors.samples > 2**vectors.bits:
        raise InputError(
            f"{vectors.samples} distinct vectors of {vectors.bits} bits are asked for; 'parity_bits' and 'noise_bits' may be {_MOST_BITS} "
            "together, and at most half of all vectors can be asked for: change these knobs or 'samples'."
        )
    return vectors


@lru_cache(maxsize=16)
def _split(vectors: _Vectors, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The first distinct ones of twice as many draws, or of as many more as it takes."""
    key, draws, codes = noise.key_of(vectors.split_seed, device), 2 * vectors.samples, []
    while len(codes) < vectors.samples:
        words = noise.bits(key, "vectors", (draws, 2))
        drawn = ((words[:, 0] << 32) | words[:, 1]) & (2**vectors.bits - 1)
        codes = list(dict.fromkeys(drawn.tolist()))[: vectors.samples]
        draws *= 2
    x = torch.tensor(codes, device=device)[:, None] >> torch.arange(vectors.bits, device=device) & 1
    parts = x.tensor_split([trained_on(vectors.train_share, vectors.samples)])
    first, second = ({"x": part.float(), "y": part[:, : vectors.parity_bits].sum(1) % 2} for part in parts)
    return first, second
