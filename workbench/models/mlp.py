"""A multilayer perceptron of plain torch layers."""

import itertools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import taps
from ..knobs import Knobs, at_least, between, knob
from .initialize import Initialization, Rule, by_fan_in, constant, normal
from .parts import BatchNorm, Dropout
from .rows import rows

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "tanh": F.tanh, "square": lambda x: x * x}


class Perceptron(Initialization):
    """Shape of an MLP."""

    depth: int = knob(2, 1, 6, valid=at_least(1), group="model", doc="hidden layers")
    width: int = knob(128, 16, 512, valid=at_least(1), group="model", doc="units of a hidden layer")
    activation: Literal["relu", "gelu", "tanh", "square"] = knob("relu", group="model", doc="nonlinearity of the hidden layers")
    bias: bool = knob(True, group="model", doc="biases in all layers")


class Regularization(Knobs):
    """What stands round the nonlinearities of an `MLP`, as in arXiv 2310.13061."""

    dropout: float = knob(
        0.0, 0.0, 0.9, valid=between(0.0, 0.99), acts="switch", group="regularization", doc="share of what enters the nonlinearity set to 0"
    )
    batch_norm: bool = knob(False, acts="switch", group="regularization", doc="normalize each hidden unit over the batch")


class Dense(nn.Linear):
    """torch's linear layer, begun as torch does, or normal with standard deviation `std` and biases 0."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, std: float | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        self.std = std

    def rules(self) -> dict[str, Rule]:
        """See `initialize`."""
        return by_fan_in(self) if self.std is None else {"weight": normal("matrix", self.std), "bias": constant("bias", 0.0)}


class MLP(nn.Module):
    """(B, ...) with `inputs` numbers a row to (B, outputs); taps i.hidden (B, width), what the next layer gets, and readout.

    A hidden layer is linear, dropout, nonlinearity, batch norm; the second and the last of knobs that are a `Regularization`. With a `std`
    all weights begin normal, else as torch's.
    """

    def __init__(self, knobs: Any, inputs: int, outputs: int, std: float | None = None) -> None:
        super().__init__()
        widths = [inputs] + [knobs.width] * knobs.depth
        rate, normed = getattr(knobs, "dropout", 0.0), getattr(knobs, "batch_norm", False)
        self.layers = nn.ModuleList(Dense(a, b, knobs.bias, std) for a, b in itertools.pairwise(widths))
        self.dropouts = nn.ModuleList(Dropout(rate) if rate else nn.Identity() for _ in self.layers)
        self.norms = nn.ModuleList(BatchNorm(knobs.width) if normed else nn.Identity() for _ in self.layers)
        self.readout = Dense(knobs.width, outputs, knobs.bias, std)
        self.activation = ACTIVATIONS[knobs.activation]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i, (layer, dropout, norm) in enumerate(zip(self.layers, self.dropouts, self.norms, strict=True)):
            x = taps.tap(f"{i}.hidden", norm(self.activation(dropout(layer(x)))))
        return taps.tap("readout", self.readout(x))


class Pairs(Dense):
    """A linear layer over two concatenated one-hot vectors of `tokens` entries each, given as integers: (B, 2) to (B, outputs).

    It has the weight (outputs, 2 tokens) of that layer and gives the same, but picks columns instead of multiplying with zeros.
    """

    def __init__(self, tokens: int, outputs: int, bias: bool = True, std: float | None = None) -> None:
        super().__init__(2 * tokens, outputs, bias, std)
        self.tokens = tokens

    def forward(self, x_B2: Tensor) -> Tensor:
        index_2B = torch.stack([x_B2[:, 0], x_B2[:, 1] + self.tokens]).flatten()
        summed = rows(self.weight.T.contiguous(), index_2B).unflatten(0, (2, -1)).sum(0)
        return summed if self.bias is None else summed + self.bias


class PairMLP(MLP):
    """`MLP` over two concatenated one-hot vectors, given as integers (B, 2) below `tokens`; the same taps."""

    def __init__(self, knobs: Any, tokens: int, outputs: int, std: float | None = None) -> None:
        super().__init__(knobs, 2 * tokens, outputs, std)
        self.layers[0] = Pairs(tokens, knobs.width, knobs.bias, std)
