"""Rounding to a number format, in plain tensor operations whose bit counts may be lanes.

What is rounded stays in float32 or float64. A value is divided by the distance of the format's values around it, a power of two,
so that one integer rounding does the work; all but the integer rounding is exact.
"""

import math
from functools import reduce
from operator import or_
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .. import noise
from ..errors import InputError, unknown
from .formats import OCP, Bits, Format, Integer
from .scaling import Scaling, power_of_two_below, power_scale, reach

Mode = Literal["nearest", "truncate", "stochastic"]


class _Carrier(NamedTuple):
    """How the dtype that carries the rounded values is laid out."""

    float: torch.dtype
    int: torch.dtype
    exponent_bits: int
    mantissa_bits: int

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def top(self) -> float:
        """The largest power of two."""
        return 2.0**self.bias


_CARRIERS = {
    torch.float32: _Carrier(torch.float32, torch.int32, 8, 23),
    torch.float64: _Carrier(torch.float64, torch.int64, 11, 52),
}


class _Grid(NamedTuple):
    """A format as rounding needs it: distances of values are those between powers of two over `parts`, from `lowest` on upwards.

    Overflow is a factor that turns what is too large into infinity or NaN; a format that `saturates` has neither.
    """

    lowest: float | Tensor
    parts: float | Tensor
    largest: float | Tensor
    overflow: float | Tensor
    saturates: bool | Tensor


def round_to(
    x: Tensor,
    fmt: Format | Integer | Bits,
    *,
    rounding: Mode = "nearest",
    scaling: Scaling = "none",
    channel: int = 0,
    saturate: bool = False,
    key: Tensor | None = None,
) -> Tensor:
    """`x` (float32 or float64) rounded to the values of a format; carries no gradient, see `straight_through`.

    `rounding` is to the nearest value, ties to even; toward zero ("truncate"); or to one of the two neighbours, with a probability that
    makes the mean right ("stochastic", drawn from `key`). What is too large becomes what the format has for it, or with `saturate` the
    largest value, as do infinities. NaN stays NaN in every format. With `scaling` (see `scaling.reach`) values are divided by a scale
    before they are rounded, and multiplied after: "tensor" and "channel" take the largest finite size over the format's largest value,
    "block" the power of two of OCP Microscaling 1.0, where only infinities overflow. Integers without a scaling are scaled by tensor.
    InputError for a rounding or scaling that there is not, a format with more bits than x's dtype, and stochastic rounding without a key.
    """
    for kind, word, words in (("rounding", rounding, get_args(Mode)), ("scaling", scaling, get_args(Scaling))):
        if word not in words:
            raise unknown(kind, word, words)
    carrier = _carrier(x, fmt)
    if rounding == "stochastic" and key is None:
        raise InputError("Stochastic rounding draws, and has no key here; give one, as now.key in a step.")
    x, grid = x.detach(), _grid(fmt, carrier, x.device)
    if isinstance(fmt, Integer) and scaling == "none":
        scaling = "tensor"
    if scaling == "none":
        rounded = _on_grid(x, grid, carrier, rounding, key)
        return _bounded(rounded, rounded.abs() > grid.largest, grid, saturate)
    size, infinite = reach(x, scaling, channel), x.abs() == math.inf
    if scaling == "block":
        scale = power_scale(size, grid.largest)
        return _bounded(_on_grid(x / scale, grid, carrier, rounding, key), infinite, grid, saturate) * scale
    size = torch.where(size > 0, size, 1.0)
    share = _on_grid(x / size * grid.largest, grid, carrier, rounding, key)  # in this order the largest stays the largest
    return _bounded(share, infinite, grid, saturate) / grid.largest * size


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Exactly `rounded`, with the derivatives of `x` (of any order): 1 where x is finite, 0 where it is not.

    The difference that carries the derivative is of x and itself, hence 0: x + (rounded - x) would lose digits when x is far from
    `rounded`, and `rounded` - 0 keeps a negative zero.
    """
    return rounded.detach() - torch.nan_to_num(x.detach() - x, nan=0.0)


def _carrier(x: Tensor, fmt: Format | Integer | Bits) -> _Carrier:
    if x.dtype not in _CARRIERS:
        raise InputError(f"Rounding is simulated in float32 or float64, not in {x.dtype}; convert the tensor first.")
    carrier = _CARRIERS[x.dtype]
    for kind, low in (("exponent", 2), ("mantissa", 0)):
        bits, high = getattr(fmt, f"{kind}_bits", low), getattr(carrier, f"{kind}_bits")
        if not isinstance(bits, Tensor) and not low <= bits <= high:
            raise InputError(f"A format with {bits} {kind} bits cannot be simulated in {x.dtype}; use {low} to {high}.")
    return carrier


def _on_grid(x: Tensor, grid: _Grid, carrier: _Carrier, rounding: Mode, key: Tensor | None) -> Tensor:
    """x rounded as if the format's exponents went on upwards for ever."""
    distance = torch.clamp(_at_least(power_of_two_below(x), grid.lowest), max=carrier.top) / grid.parts
    size = x.abs() / distance
    whole = torch.round(size) if rounding == "nearest" else torch.floor(size)
    if rounding == "stochastic":
        whole = whole + torch.ceil(torch.nan_to_num(size - whole, nan=0.0) - _draws(x, key, carrier))
    return torch.copysign(whole * distance, x)


def _draws(x: Tensor, key: Tensor, carrier: _Carrier) -> Tensor:
    """Uniform on (0, 1): the middles of so many cells that each is a number of the carrier."""
    bits = min(32, carrier.mantissa_bits)
    return ((noise.bits(key, "rounding", tuple(x.shape)) >> (32 - bits)).to(carrier.float) + 0.5) * 2.0**-bits


def _bounded(rounded: Tensor, beyond: Tensor, grid: _Grid, saturate: bool) -> Tensor:
    """Saturated, or what the format has for overflow where `beyond` and saturated elsewhere."""
    within = torch.clamp(rounded, -grid.largest, grid.largest)
    if saturate or grid.saturates is True:
        return within
    beyond = beyond & ~grid.saturates if isinstance(grid.saturates, Tensor) else beyond
    return torch.where(beyond, rounded * grid.overflow, within)


def _at_least(x: Tensor, low: float | Tensor) -> Tensor:
    return torch.maximum(x, low) if isinstance(low, Tensor) else torch.clamp(x, min=low)


def _grid(fmt: Format | Integer | Bits, carrier: _Carrier, device: torch.device) -> _Grid:
    if isinstance(fmt, Integer):
        # As OCP has its 8-bit integers: one digit before the binary point, hence equally far apart below 2.
        return _Grid(2.0, 2.0 ** (fmt.bits - 1), fmt.largest * 2.0 ** (2 - fmt.bits), math.nan, True)
    if isinstance(fmt, Format):
        overflow = math.inf if fmt.specials == "infinity" else math.nan
        return _Grid(fmt.smallest_normal, 2.0**fmt.mantissa_bits, fmt.largest, overflow, fmt.specials == "none")
    exponent_bits, mantissa_bits = (torch.as_tensor(bits, device=device).to(carrier.int) for bits in fmt)
    lowest, parts = _two_to(2 - (1 << (exponent_bits - 1)), carrier), _two_to(mantissa_bits, carrier)
    largest = (2 - 1 / parts) * (2 / lowest)
    saturates, nan = [], []
    for named in OCP:
        is_it = (exponent_bits == named.exponent_bits) & (mantissa_bits == named.mantissa_bits)
        largest = torch.where(is_it, named.largest, largest)
        (saturates if named.specials == "none" else nan).append(is_it)
    return _Grid(lowest, parts, largest, torch.where(reduce(or_, nan), math.nan, math.inf), reduce(or_, saturates))


def _two_to(k: Tensor, carrier: _Carrier) -> Tensor:
    """2^k exactly, for k in the normal range."""
    return ((k + carrier.bias) << carrier.mantissa_bits).view(carrier.float)
