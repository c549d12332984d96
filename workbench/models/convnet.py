"""A small convolutional network with batch normalization."""

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .. import taps
from ..knobs import at_least, between, knob
from .initialize import Initialization
from .parts import BatchNorm


class Convolutional(Initialization):
    """Shape of a convnet."""

    depth: int = knob(2, 1, 4, valid=between(1, 4), group="model", doc="convolutions, each followed by a halving of the picture")
    width: int = knob(16, 4, 64, valid=at_least(1), group="model", doc="channels of the first convolution, doubled by each further one")
    batch_norm: bool = knob(True, acts="switch", group="normalization", doc="normalize each channel over the batch")


class Convnet(nn.Module):
    """Pictures (B, 28, 28) to (B, classes) logits: 3x3 convolutions without bias, batch norm, ReLU, mean pooling.

    Taps: i.hidden (B, channels, y, x), before pooling, and readout.
    """

    def __init__(self, knobs: Any, classes: int) -> None:
        super().__init__()
        channels = [1] + [knobs.width * 2**i for i in range(knobs.depth)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(channels))
        self.norms = nn.ModuleList(BatchNorm(b) if knobs.batch_norm else nn.Identity() for b in channels[1:])
        self.readout = nn.Linear(channels[-1], classes)

    def forward(self, x_BYX: Tensor) -> Tensor:
        x_BCYX = x_BYX.unsqueeze(1)
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x_BCYX = F.avg_pool2d(taps.tap(f"{i}.hidden", F.relu(norm(layer(x_BCYX)))), 2)
        return taps.tap("readout", self.readout(x_BCYX.mean((2, 3))))
