"""Rounding to a simulated floating-point format, in plain tensor operations whose bit counts may be lanes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError


class _Carrier(NamedTuple):
    """How the dtype that carries the rounded values is laid out."""

    float: torch.dtype
    int: torch.dtype
    exponent_bits: int
    mantissa_bits: int

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent_bits - 1) - 1


_CARRIERS = {
    torch.float32: _Carrier(torch.float32, torch.int32, 8, 23),
    torch.float64: _Carrier(torch.float64, torch.int64, 11, 52),
}


def round_to(
    x: Tensor, exponent_bits: int | Tensor, mantissa_bits: int | Tensor, *, saturate: bool, finite_only: bool | Tensor = False
) -> Tensor:
    """`x` (float32 or float64) rounded to the nearest value of a simulated format, ties to even, with subnormals.

    Bit counts are ints or 0-dim tensors, from 2 exponent and 0 mantissa bits up to those of x's dtype; beyond these an int is an
    InputError. What is too large becomes infinity, or NaN where `finite_only`; with `saturate` it becomes the largest finite value,
    and so do infinities (OCP 8-bit Floating Point Specification 1.0). Carries no gradient: see `straight_through`.
    """
    carrier = _carrier(x, exponent_bits, mantissa_bits)
    x = x.detach()
    exponent_bits = torch.as_tensor(exponent_bits, dtype=carrier.int, device=x.device)
    mantissa_bits = torch.as_tensor(mantissa_bits, dtype=carrier.int, device=x.device)
    finite_only = torch.as_tensor(finite_only, device=x.device)
    spacing = torch.maximum(_exponent(x, carrier), 2 - (1 << (exponent_bits - 1))) - mantissa_bits
    rounded = _times_two_to(spacing, torch.round(_times_two_to(-spacing, x, carrier)), carrier)
    largest = _largest(exponent_bits, mantissa_bits, finite_only, carrier)
    if saturate:
        return torch.clamp(rounded, -largest, largest)
    overflow = torch.where(finite_only, math.nan, torch.copysign(torch.full_like(x, math.inf), x))
    return torch.where(rounded.abs() > largest, overflow, rounded)


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Exactly `rounded`, with the derivatives of `x` (of any order): 1 where x is finite, 0 where it is not.

    The difference that carries the derivative is of x and itself, hence 0: x + (rounded - x) would lose digits when x is far from
    `rounded`, and `rounded` - 0 keeps a negative zero.
    """
    difference = x.detach() - x
    return rounded.detach() - torch.where(torch.isfinite(x), difference, torch.zeros_like(difference))


def _carrier(x: Tensor, exponent_bits: int | Tensor, mantissa_bits: int | Tensor) -> _Carrier:
    if x.dtype not in _CARRIERS:
        raise InputError(f"Rounding is simulated in float32 or float64, not in {x.dtype}; convert the tensor first.")
    carrier = _CARRIERS[x.dtype]
    limits = (
        ("exponent", exponent_bits, 2, carrier.exponent_bits),
        ("mantissa", mantissa_bits, 0, carrier.mantissa_bits),
    )
    for kind, bits, low, high in limits:
        if isinstance(bits, int) and not low <= bits <= high:
            raise InputError(f"A format with {bits} {kind} bits cannot be simulated in {x.dtype}; use {low} to {high}.")
    return carrier


def _exponent(x: Tensor, carrier: _Carrier) -> Tensor:
    """floor(log2 |x|), one below the smallest normal exponent for subnormals and zero, one above the largest for inf and NaN."""
    return ((x.view(carrier.int) >> carrier.mantissa_bits) & (2**carrier.exponent_bits - 1)) - carrier.bias


def _two_to(k: Tensor, carrier: _Carrier) -> Tensor:
    """2^k exactly, for k in the normal range; one above it gives infinity."""
    return ((k + carrier.bias) << carrier.mantissa_bits).view(carrier.float)


def _times_two_to(k: Tensor, x: Tensor, carrier: _Carrier) -> Tensor:
    """x 2^k in two factors, since 2^k alone may not be a normal number."""
    half = k >> 1
    return x * _two_to(half, carrier) * _two_to(k - half, carrier)


def _largest(exponent_bits: Tensor, mantissa_bits: Tensor, finite_only: Tensor, carrier: _Carrier) -> Tensor:
    """The largest finite value: read off the code below the first infinity, or below the one NaN."""
    per_exponent = 1 << mantissa_bits
    codes_above = torch.where(finite_only, 1, per_exponent)
    code = ((1 << exponent_bits) - 1) * per_exponent + (per_exponent - 1) - codes_above
    exponent = (code >> mantissa_bits) - ((1 << (exponent_bits - 1)) - 1)
    fraction = (code & (per_exponent - 1)) << (carrier.mantissa_bits - mantissa_bits)
    return (((exponent + carrier.bias) << carrier.mantissa_bits) | fraction).view(carrier.float)
