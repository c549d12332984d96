"""What an optimizer is, and what it may need to know of single parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..errors import unknown

Params = dict[str, Tensor]
State = dict[str, Any]

ROLES = {
    "matrix": "weight of a linear or convolutional map inside the network",
    "embedding": "table of vectors for tokens or positions",
    "readout": "weight of the map to the outputs",
    "gain": "factor of a normalization or of a reparametrized weight",
    "bias": "summand",
}


class Update(Protocol):
    """`(grads, state, params, knobs, key, rate) -> (updates, state)`: updates are added to the parameters, `rate` is as applied."""

    def __call__(
        self, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
    ) -> tuple[Params, State]: ...


class Optimizer(NamedTuple):
    """Two pure functions of one run: `init(params) -> state` and `update` (see `Update`). `key` feeds optimizers that draw."""

    init: Callable[[Params], State]
    update: Update


@dataclass(frozen=True)
class Traits:
    """What differs between parameters, by name: multipliers of the learning rate (1 if absent), and which decay (None: all)."""

    scales: Mapping[str, float | Tensor] = field(default_factory=dict)
    decayed: frozenset[str] | None = None

    def check(self, params: Params) -> None:
        """InputError for a name that is no parameter's."""
        for name in [*self.scales, *(self.decayed or ())]:
            if name not in params:
                raise unknown("parameter", name, params)

    def scale(self, name: str) -> float | Tensor:
        """Multiplier of the learning rate of a parameter."""
        return self.scales.get(name, 1.0)

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to a parameter."""
        return self.decayed is None or name in self.decayed


def of_role(roles: Mapping[str, str], *wanted: str) -> frozenset[str]:
    """Names of the parameters with one of the `wanted` ROLES, e.g. for `Traits(decayed=...)`."""
    for role in [*wanted, *roles.values()]:
        if role not in ROLES:
            raise unknown("parameter role", role, ROLES)
    return frozenset(name for name, role in roles.items() if role in wanted)
