"""Weight decay, in the three ways it is done."""

from typing import Any, Literal

from torch import Tensor

from ..knobs import Knobs, at_least, knob
from .protocol import Traits


class Decay(Knobs):
    """Weight decay; "l2" is that of torch.optim.SGD and Adam, "coupled" that of torch.optim.AdamW."""

    weight_decay: float = knob(0.0, 0.0, 1.0, valid=at_least(0.0), group="optimizer", doc="weight decay")
    weight_decay_kind: Literal["l2", "coupled", "independent"] = knob(
        "coupled",
        acts="switch",
        group="optimizer",
        doc="weight decay joins the gradient (l2), or shrinks weights by the rate (coupled) or its schedule (independent)",
    )


def decayed_gradient(name: str, grad: Tensor, param: Tensor, knobs: Any, traits: Traits) -> Tensor:
    """The gradient of loss + weight_decay / 2 |param|^2 if the decay is "l2", else `grad`."""
    return grad + knobs.weight_decay * param if knobs.weight_decay_kind == "l2" and traits.decays(name) else grad


def decayed_update(name: str, direction: Tensor, param: Tensor, knobs: Any, traits: Traits, rate: float | Tensor) -> Tensor:
    """What is added to a parameter that descends along `direction`.

    With c the parameter's multiplier, s = rate / knobs.lr the schedule and w the weight decay: -c rate direction (l2),
    -c rate (direction + w param) (coupled), -s (c lr direction + w param) (independent; arXiv 2309.14322).
    """
    pace = rate * traits.scale(name)
    direction = -pace * direction
    if knobs.weight_decay_kind == "l2" or not traits.decays(name):
        return direction
    share = pace if knobs.weight_decay_kind == "coupled" else rate / knobs.lr
    return direction - share * knobs.weight_decay * param
