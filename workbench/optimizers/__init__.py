"""Optimizers as pure functions of one run; `chosen` picks one by its knob."""

from collections.abc import Callable
from typing import Any, Literal

from ..errors import InputError
from ..knobs import knob
from .adam import Adam, adam, effective_step
from .clipping import Clipping, clip_global_norm, global_norm
from .decay import Decay
from .protocol import ROLES, Optimizer, Traits, of_role
from .sgd import Momentum, sgd

__all__ = [
    "ROLES",
    "Adam",
    "Clipping",
    "Decay",
    "Momentum",
    "Optimizer",
    "Optimizers",
    "Traits",
    "adam",
    "chosen",
    "clip_global_norm",
    "effective_step",
    "global_norm",
    "of_role",
    "sgd",
]

_OPTIMIZERS: dict[str, Callable[[Traits], Optimizer]] = {"adamw": adam, "sgd": sgd}


class Optimizers(Adam, Momentum, Clipping, defaults={"weight_decay_kind": "coupled"}):
    """Everything an optimizer of this package reads, and which one it is. The learning rate is in `schedules.Schedule`."""

    optimizer: Literal["adamw", "sgd"] = knob("adamw", acts="switch", group="optimizer", doc="optimizer")


def chosen(knobs: Any, traits: Traits | None = None) -> Optimizer:
    """The optimizer these knobs describe, clipped if they can clip. Without a knob `optimizer` the group mixed in decides."""
    name = getattr(knobs, "optimizer", None) or _implied(knobs)
    optimizer = _OPTIMIZERS[name](traits or Traits())
    return clip_global_norm(optimizer) if hasattr(knobs, "clip") else optimizer


def _implied(knobs: Any) -> str:
    for name, field in (("adamw", "beta1"), ("sgd", "momentum")):
        if hasattr(knobs, field):
            return name
    raise InputError(f"The knobs {type(knobs).__name__} describe no optimizer; mix in Adam, Momentum or Optimizers.")
