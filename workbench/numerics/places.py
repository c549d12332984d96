"""Where a training step rounds: one switch a place, one simulated format for all of them."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..knobs import Knobs, between, knob
from ..taps import Edit, Site
from .rounding import round_to, straight_through

ACTIVATIONS = ("residual", "query", "key", "value", "hidden")
COUNTERS = ("count",)


class Rounding(Knobs):
    """A simulated number format and the places where it applies. It is IEEE-like, except 4 exponent and 3 mantissa bits: e4m3fn."""

    simulated: ClassVar[bool] = True

    exponent_bits: int = knob(
        8, 2, 8, valid=between(2, 8), acts="live", units="bit", group="precision", doc="exponent bits of the simulated number format"
    )
    mantissa_bits: int = knob(
        23, 0, 23, valid=between(0, 23), acts="live", units="bit", group="precision", doc="mantissa bits of the simulated number format"
    )
    saturate: bool = knob(False, acts="switch", group="precision", doc="numbers too large become the largest finite one, not infinity")
    round_weights: bool = knob(
        False,
        acts="switch",
        group="precision",
        doc="round the weights the model computes with (simulated), not those the optimizer keeps",
    )
    round_activations: bool = knob(
        False, acts="switch", group="precision", doc="round residual stream, queries, keys, values, hidden layers (simulated)"
    )
    round_gradients: bool = knob(False, acts="switch", group="precision", doc="round the gradients that the optimizer gets (simulated)")
    round_optimizer_state: bool = knob(False, acts="switch", group="precision", doc="round what the optimizer remembers (simulated)")
    round_logits: bool = knob(False, acts="switch", group="precision", doc="round the attention logits (simulated)")
    round_softmax: bool = knob(False, acts="switch", group="precision", doc="round the attention probabilities (simulated)")


def edits(knobs: Any) -> dict[str, Edit]:
    """The tap edits, by last tap word, that round in the forward pass; places switched off or without a knob have none."""
    chosen: dict[str, Edit] = {}
    if _is_on(knobs, "activations"):
        chosen |= dict.fromkeys(ACTIVATIONS, _round_tap)
    if _is_on(knobs, "logits"):
        chosen["logits"] = _round_logits
    if _is_on(knobs, "softmax"):
        chosen["attention"] = _round_tap
    return chosen


def round_tree(tree: dict[str, Any], knobs: Any, place: Literal["weights", "gradients", "optimizer_state"]) -> dict[str, Any]:
    """`tree` of tensors rounded straight-through if `place` is switched on, else `tree` itself; counters are left alone."""
    return _rounded(tree, knobs) if _is_on(knobs, place) else tree


def _is_on(knobs: Any, place: str) -> bool:
    return getattr(knobs, f"round_{place}", False)


def _rounded(tree: dict[str, Any], knobs: Any) -> dict[str, Any]:
    return {name: value if name in COUNTERS else _branch(value, knobs) for name, value in tree.items()}


def _branch(value: Any, knobs: Any) -> Any:
    if isinstance(value, dict):
        return _rounded(value, knobs)
    return _round(value, knobs) if value.is_floating_point() else value


def _round(x: Tensor, knobs: Any) -> Tensor:
    exponent_bits, mantissa_bits = knobs.exponent_bits, knobs.mantissa_bits
    is_e4m3 = (exponent_bits == 4) & (mantissa_bits == 3)
    return straight_through(x, round_to(x, exponent_bits, mantissa_bits, saturate=knobs.saturate, finite_only=is_e4m3))


def _round_tap(x: Tensor, site: Site) -> Tensor:
    return _round(x, site.knobs)


def _round_logits(x: Tensor, site: Site) -> Tensor:
    """Infinite logits, or ones as large as the dtype allows, are a mask: rounded they would turn NaN or let masked keys through."""
    return torch.where(x.abs() < torch.finfo(x.dtype).max, _round(x, site.knobs), x)
