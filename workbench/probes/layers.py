"""What a step left behind, sorted by layer: tapped tensors, and parameter-like trees."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import taps
from ..errors import InputError
from ..optimizers import global_norm

_LAYER = re.compile(r"(?:blocks|layers)\.(\d+)\.")


def tapped(m: Any, word: str) -> list[Tensor]:
    """What was tapped as `word`, one tensor a layer; InputError if the model has no such tap."""
    found = taps.by_layer(m.taps, word)
    if not found:
        raise InputError(f"No layer of this model taps {word!r}; leave out the probe that reads it, or tap it in the model.")
    return found


def by_layer(tree: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors of `blocks.i` or `layers.i` for i = 0, 1, ...; embedding, readout and final norm belong to no layer."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, x in tree.items():
        if match := _LAYER.match(name):
            found.setdefault(int(match[1]), {})[name] = x
    if not found:
        raise InputError("No parameter of this model is called blocks.i or layers.i; leave out the probes that have a dimension 'layer'.")
    return [found[i] for i in sorted(found)]


def norms(tree: Mapping[str, Tensor]) -> Tensor:
    """L2 norm of all tensors of each layer together, (layer,)."""
    return torch.stack([global_norm(layer) for layer in by_layer(tree)])


def rms(x: Tensor) -> Tensor:
    """Root of the mean square of all elements; 0-dim."""
    return x.square().mean().sqrt()
