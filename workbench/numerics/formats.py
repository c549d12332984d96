"""Binary floating-point formats by name."""

import re
from dataclasses import dataclass
from typing import ClassVar

from ..errors import InputError, unknown


@dataclass(frozen=True)
class Format:
    """A sign, exponent and mantissa bits; subnormals always, infinities unless `finite_only` (then NaN is the one code of all ones)."""

    name: str
    exponent_bits: int
    mantissa_bits: int
    finite_only: bool = False

    simulated: ClassVar[bool] = True

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def largest(self) -> float:
        """The largest finite value."""
        codes_above = 1 if self.finite_only else 2**self.mantissa_bits
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
        """The largest relative error of rounding a value in the normal range."""
        return 2.0 ** -(self.mantissa_bits + 1)


FORMATS = {
    f.name: f
    for f in (
        Format("fp32", 8, 23),
        Format("bf16", 8, 7),
        Format("fp16", 5, 10),
        Format("e4m3", 4, 3, finite_only=True),
        Format("e5m2", 5, 2),
    )
}


def format_of(name: str) -> Format:
    """The format called `name`, one of FORMATS or ExMy.

    ExMy is IEEE-like (the largest exponent is kept for infinity and NaN), except e4m3: that is e4m3fn, up to 448 and without
    infinities (OCP 8-bit Floating Point Specification 1.0).
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
