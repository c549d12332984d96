"""Where a training step rounds: one switch a place, which names its format; how it rounds is the same everywhere."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from .. import noise
from ..knobs import Knobs, between, knob
from ..taps import Edit, Site
from .backward import rounding_gradient
from .formats import Bits, Format, Integer, format_of
from .rounding import Mode, round_to, straight_through
from .scaling import Scaling

ACTIVATIONS = ("residual", "query", "key", "value", "hidden")
COUNTERS = ("count", "reset")

Place = Literal["weights", "activations", "gradients", "optimizer_state", "logits", "softmax", "sums"]
Tree = Literal["weights", "gradients", "optimizer_state"]
Name = Literal["no", "bits", "fp32", "tf32", "bf16", "fp16", "e5m2", "e4m3", "e3m2", "e2m3", "e2m1", "int8", "int4"]


def _place(doc: str) -> Any:
    return knob("no", acts="switch", group="precision", simulated=True, doc=f"number format of {doc}")


class Rounding(Knobs):
    """Simulated number formats of seven places. The format "bits" is that of the two live knobs, as `format_of` makes it of ExMy."""

    round_weights: Name = _place("the weights the model computes with, not of those the optimizer keeps")
    round_activations: Name = _place("residual stream, queries, keys, values, hidden layers")
    round_gradients: Name = _place("gradients: of activations on their way back, and of parameters")
    round_optimizer_state: Name = _place("what the optimizer remembers")
    round_logits: Name = _place("the attention logits")
    round_softmax: Name = _place("the attention probabilities")
    round_sums: Name = _place("the denominators of the attention softmax")
    exponent_bits: int = knob(
        8, 2, 8, valid=between(2, 8), acts="live", units="bit", group="precision", simulated=True, doc="exponent bits of the format 'bits'"
    )
    mantissa_bits: int = knob(
        23,
        0,
        23,
        valid=between(0, 23),
        acts="live",
        units="bit",
        group="precision",
        simulated=True,
        doc="mantissa bits of the format 'bits'",
    )
    rounding: Mode = knob(
        "nearest",
        acts="switch",
        group="precision",
        simulated=True,
        doc="round to the nearest value, toward zero, or to either neighbour at random with the right mean",
    )
    scaling: Scaling = knob(
        "none",
        acts="switch",
        group="precision",
        simulated=True,
        doc="what shares a scale before rounding: nothing, a tensor, a channel, a block of 32 (MX)",
    )
    saturate: bool = knob(
        False, acts="switch", group="precision", simulated=True, doc="numbers too large become the largest finite one, not infinity"
    )


def is_on(knobs: Any, place: Place) -> bool:
    """Whether a place is rounded; not where the knobs have no switch for it."""
    return getattr(knobs, f"round_{place}", "no") != "no"


def edits(knobs: Any) -> dict[str, Edit]:
    """The tap edits, by last tap word, that round in the forward pass, and at activations what comes back in the backward pass.

    Places switched off or without a knob have none.
    """
    chosen: dict[str, Edit] = {}
    if is_on(knobs, "activations") or is_on(knobs, "gradients"):
        chosen |= dict.fromkeys(ACTIVATIONS, _round_activation)
    if is_on(knobs, "logits"):
        chosen["logits"] = _round_logits
    if is_on(knobs, "softmax"):
        chosen["attention"] = partial(_round_tap, "softmax")
    if is_on(knobs, "sums"):
        chosen["sums"] = partial(_round_tap, "sums")
    return chosen


def round_tree(tree: dict[str, Any], knobs: Any, place: Tree, key: Tensor | None = None) -> dict[str, Any]:
    """`tree` of tensors rounded straight-through if `place` is switched on, else `tree` itself; counters are left alone.

    Stochastic rounding draws from `key`, the step's, folded with place and name. Channels are the first axis.
    """
    return _rounded(tree, knobs, place, place, key) if is_on(knobs, place) else tree


def _rounded(tree: dict[str, Any], knobs: Any, place: Tree, path: str, key: Tensor | None) -> dict[str, Any]:
    return {name: value if name in COUNTERS else _branch(value, knobs, place, f"{path}/{name}", key) for name, value in tree.items()}


def _branch(value: Any, knobs: Any, place: Tree, path: str, key: Tensor | None) -> Any:
    if isinstance(value, dict):
        return _rounded(value, knobs, place, path, key)
    return _round(value, knobs, place, 0, None if key is None else noise.fold(key, path)) if value.is_floating_point() else value


def _round(x: Tensor, knobs: Any, place: Place, channel: int, key: Tensor | None) -> Tensor:
    fmt = _format(knobs, place)
    how = dict(rounding=knobs.rounding, scaling=knobs.scaling, saturate=knobs.saturate)
    return straight_through(x, round_to(x, fmt, channel=channel, key=key, **how))


def _format(knobs: Any, place: Place) -> Format | Integer | Bits:
    name = getattr(knobs, f"round_{place}")
    return Bits(knobs.exponent_bits, knobs.mantissa_bits) if name == "bits" else format_of(name)


def _round_tap(place: Place, x: Tensor, site: Site) -> Tensor:
    return _round(x, site.knobs, place, _channel(x), site.key)


def _round_activation(x: Tensor, site: Site) -> Tensor:
    x = _round_tap("activations", x, site) if is_on(site.knobs, "activations") else x
    return _round_on_the_way_back(x, site) if is_on(site.knobs, "gradients") else x


def _round_on_the_way_back(x: Tensor, site: Site) -> Tensor:
    names = ("exponent_bits", "mantissa_bits") if site.knobs.round_gradients == "bits" else ()
    lanes = [torch.as_tensor(getattr(site.knobs, name), device=x.device) for name in names]
    key = [] if site.key is None else [noise.fold(site.key, "gradient")]

    def rounder(gradient: Tensor, *given: Tensor) -> Tensor:
        knobs = site.knobs.filled(dict(zip(names, given, strict=False)))
        return _round(gradient, knobs, "gradients", _channel(gradient), given[-1] if key else None)

    return rounding_gradient(x, rounder, *lanes, *key)


def _round_logits(x: Tensor, site: Site) -> Tensor:
    """Infinite logits, or ones as large as the dtype allows, are a mask: rounded they would turn NaN or let masked keys through."""
    is_mask = x.abs() >= torch.finfo(x.dtype).max
    return torch.where(is_mask, x, _round_tap("logits", torch.where(is_mask, 0.0, x), site))


def _channel(x: Tensor) -> int:
    """The axis of heads, or of the channels of pictures, in what has four axes; else the last, of features."""
    return 1 if x.ndim == 4 else -1
