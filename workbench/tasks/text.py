"""Next-character prediction on real text."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .. import inputs, noise
from ..errors import InputError
from ..knobs import at_least, knob
from .batch import Batch


class TextKnobs(Batch):
    """Which text, and how much of it a prediction sees."""

    text: str = knob("state-of-the-union", doc="A shipped text, or the path of a UTF-8 text file of your own", group="data")
    context: int = knob(64, 8, 512, valid=at_least(1), units="character", doc="Characters in one window of text", group="data")


@dataclass(frozen=True)
class Text:
    """Windows at random places of the training text, where speeches follow one another: a window may run from one into the next."""

    reads: ClassVar[tuple[str, ...]] = ("text", "context", "batch")

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """x and y, int64 (batch, context): characters, and the character after each."""
        codes = _codes(_corpus(knobs), key.device)
        start = noise.randint(key, "text", len(codes) - knobs.context, (knobs.batch, 1))
        window = codes[start + torch.arange(knobs.context + 1, device=key.device)].long()
        return {"x": window[:, :-1], "y": window[:, 1:]}

    def evaluation(self, knobs: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """All held-out text in order: x and y int64 and weight float32, each (window, context).

        The weight is 1 once for every held-out character but the first of a passage, and 0 on the padding that ends a passage.
        """
        return dict(_held_out(_corpus(knobs), knobs.context, torch.device(device)))

    def vocabulary(self, knobs: Any) -> int:
        """Number of distinct characters."""
        return len(self.labels(knobs))

    def labels(self, knobs: Any) -> tuple[str, ...]:
        """The character that each code stands for."""
        return _corpus(knobs).characters

    def data_hash(self, knobs: Any) -> str:
        """sha256 of the text and of its split."""
        return _corpus(knobs).sha256


def _corpus(knobs: Any) -> inputs.Corpus:
    corpus = inputs.text(knobs.text)
    if corpus.size < 2 * (knobs.context + 1):
        raise InputError(
            f"Text {corpus.name!r} has {corpus.size} characters, fewer than two windows of context {knobs.context} and the character "
            f"after each; give a longer text or a context of at most {max(corpus.size // 2 - 1, 1)}."
        )
    return corpus


@lru_cache(maxsize=16)
def _codes(corpus: inputs.Corpus, device: torch.device) -> Tensor:
    return torch.tensor(corpus.training, device=device)


@lru_cache(maxsize=16)
def _held_out(corpus: inputs.Corpus, context: int, device: torch.device) -> dict[str, Tensor]:
    windows = [_windows(passage, context) for passage in corpus.held_out]
    x, y, weight = (np.concatenate(parts) for parts in zip(*windows, strict=True))
    return {
        "x": torch.tensor(x, dtype=torch.int64, device=device),
        "y": torch.tensor(y, dtype=torch.int64, device=device),
        "weight": torch.tensor(weight, dtype=torch.float32, device=device),
    }


def _windows(passage: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and weight of one passage, cut into windows that follow one another; the last is padded with code 0."""
    predicted = len(passage) - 1
    padding = (0, -predicted % context)
    parts = passage[:-1], passage[1:], np.ones(predicted)
    x, y, weight = (np.pad(part, padding).reshape(-1, context) for part in parts)
    return x, y, weight
