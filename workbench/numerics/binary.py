"""Weights and activations of one bit: the sign in the forward pass, and what stands for its derivative in the backward pass."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..knobs import Knobs, above, at_least, knob
from ..taps import Edit, Site

REACH_OF_STE = 1.0


class Binarization(Knobs):
    """What is binarized, and the estimator of the sign's derivative (arXiv 2308.06689, with the constants of its released code)."""

    binary_weights: bool = knob(True, acts="switch", group="binary", doc="weights of the binary layers are signs times their mean size")
    binary_activations: bool = knob(True, acts="switch", group="binary", doc="what enters the binary layers are signs")
    estimator: Literal["reste", "ste"] = knob(
        "reste", acts="switch", group="binary", doc="derivative of the sign: that of the power function (reste), or 1 up to size 1 (ste)"
    )
    power: float = knob(
        3.0, 1.0, 30.0, valid=at_least(1.0), log=True, group="binary", doc="power of the estimator, at the end of its course"
    )
    power_course: Literal["rising", "constant"] = knob(
        "rising", acts="switch", group="binary", doc="the power rises from 1 along a quarter of a cosine, or is the same all the time"
    )
    reach: float = knob(1.5, 0.5, 3.0, valid=above(0.0), group="binary", doc="size from which the power estimator is 0")
    flat: float = knob(0.1, 0.01, 0.5, valid=above(0.0), log=True, group="binary", doc="size up to which the power estimator is flat")


def slope(x: Tensor, knobs: Any) -> Tensor:
    """What stands for the derivative of sign at x, elementwise.

    For reste with power o that of sign(x) |x|^(1/o): |x|^(1/o - 1) / o, but its chord flat^(1/o - 1) up to `flat`, and 0 beyond `reach`.
    """
    size = x.detach().abs()
    if knobs.estimator == "ste":
        return (size <= REACH_OF_STE).to(x.dtype)
    power, flat, reach = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (knobs.power, knobs.flat, knobs.reach))
    steep = torch.maximum(size, flat) ** (1 / power - 1) / power
    return torch.where(size <= flat, flat ** (1 / power - 1), torch.where(size <= reach, steep, 0.0))


def binarized(x: Tensor, knobs: Any) -> Tensor:
    """sign(x), exactly, with the derivative `slope`; of NaN it is NaN."""
    return torch.sign(x.detach()) + slope(x, knobs) * (x - x.detach())


def estimate(x: Tensor, knobs: Any) -> Tensor:
    """The function in whose place the sign is taken in the forward pass: sign(x) |x|^(1/o), or x held within -1 and 1 for ste."""
    return x.clamp(-REACH_OF_STE, REACH_OF_STE) if knobs.estimator == "ste" else torch.sign(x) * x.abs() ** (1 / knobs.power)


def edits(knobs: Any) -> dict[str, Edit]:
    """The tap edits that binarize: `weight`, and `hidden` of all layers but the last, which a readout of full precision reads."""
    chosen: dict[str, Edit] = {}
    if knobs.binary_weights:
        chosen["weight"] = _binary_weight
    if knobs.binary_activations:
        chosen["hidden"] = partial(_binary_activation, f"{knobs.depth - 1}.hidden")
    return chosen


def _binary_weight(weight: Tensor, site: Site) -> Tensor:
    """Signs times the mean size of the whole matrix, through which gradients flow as well."""
    return binarized(weight, site.knobs) * weight.abs().mean()


def _binary_activation(last: str, x: Tensor, site: Site) -> Tensor:
    return x if site.name == last else binarized(x, site.knobs)
