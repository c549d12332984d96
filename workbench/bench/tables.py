"""Numbers as a person reads them: three significant digits, medians with their range, tables."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

DIGITS = 3


class Table(NamedTuple):
    """A table of texts, and sentences below it. Columns in `words` hold words, all others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    words: tuple[str, ...] = ()


def number(value: Any) -> str:
    """Three significant digits without an exponent; a dash for what was not measured."""
    value = float(value)
    if not math.isfinite(value):
        return "-"
    after = DIGITS - 1 - (math.floor(math.log10(abs(value))) if value else 0)
    return f"{round(value, after):,.{max(0, after)}f}"


def spread(values: Iterable[float]) -> str:
    """Median [least, largest]."""
    found = [float(value) for value in values]
    if not all(map(math.isfinite, found)):
        return "-"
    return f"{number(statistics.median(found))} [{number(min(found))}, {number(max(found))}]"
