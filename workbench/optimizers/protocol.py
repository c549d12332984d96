"""What an optimizer is, and what it may need to know of single parameters."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
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


def same_kind(one: State, other: State) -> bool:
    """Whether a run can go on from `one` under the optimizer of `other`: both keep the same trees of tensors, as Adam's and SPAM's m and v.

    What only one of them keeps beside these, such as the number of SPAM's last reset, begins neutral or is left behind.
    """
    return _trees(one) == _trees(other)


def carried(fresh: State, old: State) -> State:
    """What a run goes on with under the optimizer that begins with `fresh`: `old` where both are of one kind, else `fresh`."""
    return _kept(fresh, old) if same_kind(fresh, old) else fresh


def _kept(fresh: Any, old: Any) -> Any:
    if isinstance(fresh, dict):
        return {name: _kept(leaf, old[name]) if name in old else leaf for name, leaf in fresh.items()}
    return old


def _trees(state: State) -> set[str]:
    return {name for name, value in state.items() if isinstance(value, dict)}


class Changed(Mapping[str, Tensor]):
    """Tensors through `change(name, tensor)`, each made when it is asked for, so that no second copy of all gradients is held."""

    def __init__(self, tensors: Mapping[str, Tensor], change: Callable[[str, Tensor], Tensor]) -> None:
        self.tensors, self.change = tensors, change

    def __getitem__(self, name: str) -> Tensor:
        return self.change(name, self.tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def numbers(like: Tensor, *values: float | Tensor) -> tuple[Tensor, ...]:
    """Knobs as 0-dim tensors of the dtype of `like`: what is computed of a knob in two places must see the same rounded value."""
    return tuple(torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in values)


@dataclass(frozen=True)
class Traits:
    """What differs between parameters, by name.

    Multipliers of the learning rate (1 if absent), which decay (None: all), and which are matrices inside the network.
    """

    scales: Mapping[str, float | Tensor] = field(default_factory=dict)
    decayed: frozenset[str] | None = None
    matrices: frozenset[str] = frozenset()

    def check(self, params: Params) -> None:
        """InputError for a name that is no parameter's."""
        for name in [*self.scales, *(self.decayed or ()), *self.matrices]:
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
