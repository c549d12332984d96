"""A multilayer perceptron of plain torch layers."""

import itertools
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .. import taps
from ..knobs import at_least, knob
from .initialize import Initialization

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "tanh": F.tanh, "square": lambda x: x * x}


class Perceptron(Initialization):
    """Shape of an MLP."""

    depth: int = knob(2, 1, 6, valid=at_least(1), group="model", doc="hidden layers")
    width: int = knob(128, 16, 512, valid=at_least(1), group="model", doc="units of a hidden layer")
    activation: Literal["relu", "gelu", "tanh", "square"] = knob("relu", group="model", doc="nonlinearity of the hidden layers")
    bias: bool = knob(True, group="model", doc="biases in all layers")


class MLP(nn.Module):
    """(B, ...) with `inputs` numbers a row to (B, outputs); taps i.hidden (B, width), after the nonlinearity, and readout."""

    def __init__(self, knobs: Any, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs] + [knobs.width] * knobs.depth
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=knobs.bias) for a, b in itertools.pairwise(widths))
        self.readout = nn.Linear(knobs.width, outputs, bias=knobs.bias)
        self.activation = ACTIVATIONS[knobs.activation]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i, layer in enumerate(self.layers):
            x = taps.tap(f"{i}.hidden", self.activation(layer(x)))
        return taps.tap("readout", self.readout(x))
