"""Arithmetic modulo a number, as classification of pairs of tokens: the data on which nets grok."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from .. import noise
from ..knobs import Knobs, at_least, between, knob
from .split import Split, trained_on

Operation = Literal["add", "subtract", "product"]
_OPERATIONS = {"add": torch.add, "subtract": torch.sub, "product": torch.mul}
_SLACK = 1e-3  # of an example: a share may be given in float32, and 0.3 of 10 must be 3


class ModularKnobs(Split):
    """Which table is learned. Defaults are those of arXiv 2501.04697."""

    modulus: int = knob(113, 7, 113, valid=at_least(2), group="data", doc="number of tokens and of classes")
    operation: Operation = knob("add", group="data", doc="what is done with the two tokens, modulo the modulus")


class Corruption(Knobs):
    """Wrong labels, as in arXiv 2310.13061."""

    corrupted_share: float = knob(
        0.0, 0.0, 1.0, valid=between(0.0, 1.0), acts="start", group="data", doc="share of the training labels that is drawn at random"
    )


@dataclass(frozen=True)
class Modular:
    """All training pairs at every step: x int64 (pair, 2), y int64 (pair,), every pair once. The split is drawn from `split_seed`."""

    reads: ClassVar[tuple[str, ...]] = ("modulus", "operation", "train_share", "split_seed")
    constant: ClassVar[str] = "full batch: all training pairs at every step, and the split has a seed of its own"

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """The training pairs, int(train_share modulus^2) of them."""
        return dict(_split(_table(knobs), key.device)[0])

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """All other pairs: x int64 (pair, 2), y int64 (pair,)."""
        return dict(_split(_table(knobs), torch.device(device))[1])

    def classes(self, knobs: Any) -> int:
        """Number of classes, the modulus."""
        return knobs.modulus

    def labels(self, knobs: Any) -> tuple[str, ...]:
        """The number that each class stands for."""
        return tuple(map(str, range(knobs.modulus)))

    def data_hash(self, knobs: Any) -> str:
        """sha256 of the pairs, their results and their split."""
        training, held_out = _split(_table(knobs), torch.device("cpu"))
        parts = (*training.values(), *held_out.values())
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


@dataclass(frozen=True)
class CorruptedModular(Modular):
    """`Modular` with wrong labels: those of the first `corrupted_share` of the training pairs are drawn anew, uniformly, once.

    The pairs are in random order, so the first are any. 1 / modulus of the drawn labels happen to be right. The batch says of each pair
    whether its label was drawn: "corrupted", bool (pair,). Held-out labels are right.
    """

    reads: ClassVar[tuple[str, ...]] = (*Modular.reads, "corrupted_share")

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """The training pairs, int(corrupted_share pairs) of them with a drawn label."""
        right = super().__call__(knobs, key)
        count = len(right["y"])
        drawn = noise.randint(noise.key_of(knobs.split_seed, key.device), "labels", knobs.modulus, (count,))
        corrupted = torch.arange(1, count + 1, device=key.device) <= knobs.corrupted_share * count + _SLACK
        return {"x": right["x"], "y": torch.where(corrupted, drawn, right["y"]), "corrupted": corrupted}


class _Table(NamedTuple):
    modulus: int
    operation: str
    train_share: float
    split_seed: int


def _table(knobs: Any) -> _Table:
    return _Table(*(getattr(knobs, name) for name in _Table._fields))


@lru_cache(maxsize=16)
def _split(table: _Table, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    p, count = table.modulus, trained_on(table.train_share, table.modulus**2)
    order = noise.permutation(noise.key_of(table.split_seed, device), "split", p * p)
    x = torch.stack([order // p, order % p], -1)
    y = _OPERATIONS[table.operation](x[:, 0], x[:, 1]) % p
    return {"x": x[:count], "y": y[:count]}, {"x": x[count:], "y": y[count:]}
