"""Number formats by name and by bits: binary floating point with subnormals, and symmetric integers."""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from ..errors import InputError, unknown

Specials = Literal["infinity", "nan", "none"]


@dataclass(frozen=True)
class Format:
    """A sign, exponent and mantissa bits; subnormals always.

    `specials` says what codes are kept for: "infinity", as in IEEE 754 the largest exponent for infinities and NaN; "nan", only the code
    of all ones, for NaN; "none", no code at all. What is too large becomes infinity, NaN or the largest value accordingly.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    specials: Specials = "infinity"

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def largest(self) -> float:
        """The largest finite value."""
        codes_above = {"infinity": 2**self.mantissa_bits, "nan": 1, "none": 0}[self.specials]
        code = 2 ** (self.exponent_bits + self.mantissa_bits) - 1 - codes_above
        field, fraction = divmod(code, 2**self.mantissa_bits)
        return (1 + fraction * 2.0**-self.mantissa_bits) * 2.0 ** (field - self.bias)

    @property
    def smallest_normal(self) -> float:
        """The smallest value with all mantissa bits in use."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest(self) -> float:
        """The smallest value above zero, a subnormal unless there are no mantissa bits."""
        return self.smallest_normal * 2.0**-self.mantissa_bits

    @property
    def unit_roundoff(self) -> float:
        """The largest relative error of rounding a value in the normal range to nearest."""
        return 2.0 ** -(self.mantissa_bits + 1)


@dataclass(frozen=True)
class Integer:
    """Signed integers of `bits` bits, symmetric: the most negative code is not used. They are always scaled."""

    name: str
    bits: int

    @property
    def largest(self) -> float:
        """The largest value before it is scaled."""
        return 2.0 ** (self.bits - 1) - 1


class Bits(NamedTuple):
    """The floating-point format of so many bits as live knobs hold them, 0-dim tensors or numbers: as `format_of` makes it of ExMy."""

    exponent_bits: int | float | Tensor
    mantissa_bits: int | float | Tensor


OCP = (Format("e4m3", 4, 3, "nan"), Format("e3m2", 3, 2, "none"), Format("e2m3", 2, 3, "none"), Format("e2m1", 2, 1, "none"))

FORMATS: dict[str, Format | Integer] = {
    f.name: f
    for f in (
        Format("fp64", 11, 52),
        Format("fp32", 8, 23),
        Format("tf32", 8, 10),
        Format("bf16", 8, 7),
        Format("fp16", 5, 10),
        Format("e5m2", 5, 2),
        *OCP,
        Integer("int8", 8),
        Integer("int4", 4),
    )
}


def format_of(name: str) -> Format | Integer:
    """The format called `name`, one of FORMATS or ExMy.

    ExMy is IEEE-like, except those in which the OCP specifications differ: e4m3 is e4m3fn, up to 448 and without infinities (8-bit
    Floating Point 1.0), e3m2, e2m3 and e2m1 have neither infinities nor NaN (Microscaling Formats 1.0). Raises InputError.
    """
    name = name.strip().lower()
    if name in FORMATS:
        return FORMATS[name]
    written = re.fullmatch(r"e(\d{1,2})m(\d{1,2})", name, re.ASCII)
    if written is None:
        raise unknown("number format", name, [*FORMATS, "e3m4"])
    exponent_bits, mantissa_bits = map(int, written.groups())
    if not (2 <= exponent_bits <= 11 and mantissa_bits <= 52):
        raise InputError(f"Number format {name!r} cannot be simulated in float64; use e2 to e11 and m0 to m52.")
    return Format(name, exponent_bits, mantissa_bits)
