"""Maps that are linear in their inputs, of one output: a plain one, and the diagonal linear net."""

import torch
from torch import Tensor, nn

from .. import taps
from .initialize import Rule, constant


class LinearModel(nn.Module):
    """(B, ...) with `inputs` numbers a row to (B, 1), without a bias; tap readout. A squared error of it is a quadratic."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.readout = nn.Linear(inputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return taps.tap("readout", self.readout(x.flatten(1)))


class DiagonalLinear(nn.Module):
    """(B, ...) with `inputs` numbers a row to (B, 1), x . (u^2 - v^2); tap readout.

    Every u and v begins at 1 (times `init_scale`), where the map is zero (arXiv 2002.09277).
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.empty(inputs)), nn.Parameter(torch.empty(inputs))

    def rules(self) -> dict[str, Rule]:
        return dict(u=constant("matrix", 1.0), v=constant("matrix", 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return taps.tap("readout", (x.flatten(1) @ (self.u**2 - self.v**2))[:, None])
