"""Simulated number formats against real ones: conversions to torch's dtypes, and products of matrices on a GPU that has the formats.

`python -m workbench.numerics.hardware` prints the comparison.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import noise
from .formats import Format, format_of
from .rounding import round_to

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
# The formats of the two factors, and the compute capability from which a GPU multiplies them. None multiplies e5m2 by e5m2.
PRODUCTS = {("fp16", "fp16"): (7, 0), ("bf16", "bf16"): (8, 0), ("e4m3", "e4m3"): (8, 9), ("e5m2", "e4m3"): (8, 9)}
ROWS, INNER, COLUMNS = 256, 1024, 128
RANDOM = 2**18


class Comparison(NamedTuple):
    """What was compared where: how many numbers, how many of them differ, and the largest difference; of products over their RMS.

    What was not run has None for these, and says why in `note`.
    """

    what: str
    formats: str
    where: str
    numbers: int | None
    different: int | None
    largest: float | None
    note: str


def compare_with_hardware() -> list[Comparison]:
    """Conversions on the CPU and on a GPU if there is one, and products on the GPU; a table for `pandas.DataFrame`."""
    gpu = torch.device("cuda") if torch.cuda.is_available() else None
    devices = [torch.device("cpu"), *([gpu] if gpu else [])]
    return [conversion(name, device) for device in devices for name in DTYPES] + [_product_on(gpu, *pair) for pair in PRODUCTS]


def conversion(name: str, device: torch.device) -> Comparison:
    """float32 numbers rounded to nearest by `round_to`, against the same converted to the dtype: equal to the last bit or different.

    What is too large saturates in both if it does in torch's conversion (for e4m3 that depends on the version), which the note says.
    """
    fmt, dtype = format_of(name), DTYPES[name]
    x = samples(fmt, dtype).to(device)
    too_large = torch.full((), min(4 * fmt.largest, torch.finfo(torch.float32).max), device=device).to(dtype).item()
    ours, real = round_to(x, fmt, saturate=too_large == fmt.largest), x.to(dtype).to(torch.float32)
    same = (ours.view(torch.int32) == real.view(torch.int32)) | (ours.isnan() & real.isnan())
    away = torch.where(same, 0.0, (ours - real).abs()).amax().item()
    return Comparison("conversion", name, _called(device), x.numel(), int((~same).sum()), away, f"too large becomes {too_large:g}")


def product(left: str, right: str, device: torch.device) -> Comparison:
    """A product of two matrices of real dtypes, against that of the numbers rounded by `round_to`, summed in float32 on the CPU.

    Rounded to the dtype at the end where the real one is (fp16, bf16; fp8 gives float32). Sums of another order or precision differ.
    """
    a, b = (noise.normal(noise.key_of(0), side, shape) for side, shape in (("left", (ROWS, INNER)), ("right", (INNER, COLUMNS))))
    ours = round_to(a, format_of(left)) @ round_to(b, format_of(right))
    real = _multiplied(a.to(device).to(DTYPES[left]), b.to(device).to(DTYPES[right])).cpu()
    if left in ("fp16", "bf16"):
        ours = round_to(ours, format_of(left))
    away = (ours - real).abs()
    largest = (away.amax() / ours.square().mean().sqrt()).item()
    return Comparison("product", f"{left} x {right}", _called(device), ours.numel(), int((away > 0).sum()), largest, "")


def samples(fmt: Format, dtype: torch.dtype) -> Tensor:
    """float32 numbers that test a conversion: all of the dtype, the middles between them, the neighbours of these, random bit patterns."""
    bits = torch.arange(2 ** torch.finfo(dtype).bits, dtype=torch.int32).to(torch.uint16 if torch.finfo(dtype).bits == 16 else torch.uint8)
    values = bits.view(dtype).to(torch.float32)
    finite = values[values.isfinite()].unique()
    middles = ((finite[1:].double() + finite[:-1].double()) / 2).float()
    infinity = torch.full_like(middles, torch.inf)
    patterns = noise.bits(noise.key_of(0), "patterns", (RANDOM,)) - 2**31
    near = noise.normal(noise.key_of(0), "near", (RANDOM,))
    beside = middles.nextafter(infinity), middles.nextafter(-infinity)
    drawn = patterns.to(torch.int32).view(torch.float32), near, near * fmt.smallest_normal, near * (fmt.largest / 2)
    return torch.cat([values, middles, *beside, *drawn])


def _product_on(gpu: torch.device | None, left: str, right: str) -> Comparison:
    note, needed = "not run: no GPU", PRODUCTS[left, right]
    if gpu:
        capability = torch.cuda.get_device_capability(gpu)
        if capability >= needed:
            return product(left, right, gpu)
        note = f"not run: compute capability {'{}.{}'.format(*capability)}, it needs {'{}.{}'.format(*needed)}"
    return Comparison("product", f"{left} x {right}", _called(gpu) if gpu else "", None, None, None, note)


def _multiplied(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.itemsize > 1:
        return (a @ b).to(torch.float32)
    one = torch.ones((), device=a.device)
    # The second factor has to lie column by column.
    return torch._scaled_mm(a, b.t().contiguous().t(), scale_a=one, scale_b=one, out_dtype=torch.float32)


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _text(rows: list[Comparison]) -> str:
    heads: tuple[Any, ...] = Comparison._fields
    cells = [[("" if x is None else f"{x:.2e}" if isinstance(x, float) else str(x)) for x in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


if __name__ == "__main__":
    print(_text(compare_with_hardware()))
