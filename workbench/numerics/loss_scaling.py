"""Loss scaling: the loss is multiplied before the backward pass and gradients are divided after, so that small ones are not rounded to 0.

Dynamic scaling is that of torch.amp.GradScaler (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..knobs import Knobs, at_least, knob

GROWTH, BACKOFF = 2.0, 0.5

State = dict[str, Tensor]


class LossScaling(Knobs):
    """Whether and by how much the loss is scaled."""

    loss_scaling: Literal["none", "static", "dynamic"] = knob(
        "none",
        acts="switch",
        group="precision",
        doc="multiply the loss before the backward pass: by a fixed scale, or by one that grows until gradients overflow",
    )
    loss_scale: float = knob(
        2.0**16, 1.0, 2.0**24, log=True, group="precision", doc="factor on the loss; of dynamic scaling the one it begins with"
    )
    loss_scale_interval: int = knob(
        2000,
        10,
        5000,
        valid=at_least(1),
        acts="live",
        units="step",
        group="precision",
        doc="updates without overflow after which dynamic scaling doubles the factor",
    )


def begin(knobs: Any, device: torch.device) -> dict[str, State]:
    """What the learner's state holds of dynamic scaling, under "loss_scale": the scale and the updates since it changed; else nothing."""
    if not is_dynamic(knobs):
        return {}
    scale = torch.as_tensor(knobs.loss_scale, device=device)
    return {"loss_scale": dict(scale=scale, good_steps=torch.zeros_like(scale))}


def is_dynamic(knobs: Any) -> bool:
    """Whether the scale adapts, and updates whose gradients overflow are skipped."""
    return getattr(knobs, "loss_scaling", "none") == "dynamic"


def scale_of(knobs: Any, state: Mapping[str, Any]) -> float | Tensor | None:
    """The factor on the loss in this step; None without loss scaling."""
    if getattr(knobs, "loss_scaling", "none") == "none":
        return None
    return state["loss_scale"]["scale"] if is_dynamic(knobs) else knobs.loss_scale


def unscaled(grads: dict[str, Tensor], scale: float | Tensor | None) -> dict[str, Tensor]:
    """Gradients of the loss from those of the scaled loss."""
    return grads if scale is None else {name: grad / scale for name, grad in grads.items()}


def overflow(grads: Mapping[str, Tensor]) -> Tensor:
    """Whether a gradient is not finite; 0-dim bool."""
    return ~torch.stack([torch.isfinite(grad).all() for grad in grads.values()]).all()


def unless(skipped: Tensor, new: Any, old: Any) -> Any:
    """The tree `new`, or `old` if the update is skipped."""
    return tree_map(lambda a, b: torch.where(skipped, b, a), new, old)


def updated(state: State, skipped: Tensor, interval: int | Tensor) -> State:
    """The next state: half the scale after an overflow, twice it after `interval` updates without, where its dtype has that."""
    scale, good = state["scale"], torch.where(skipped, 0.0, state["good_steps"] + 1)
    grows = good >= interval
    grown = torch.where(grows & torch.isfinite(GROWTH * scale), GROWTH * scale, scale)
    return dict(scale=torch.where(skipped, BACKOFF * scale, grown), good_steps=torch.where(grows, 0.0, good))
