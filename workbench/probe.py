"""Probes: declared measurements of one run. The declaration is the record's schema."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from .dims import DIMS
from .errors import unknown

CLOCKS = (1, 10, 100, 1000)
Cost = Literal["free", "forward", "backward", "curvature"]  # what is computed beyond the update
CHEAP: tuple[Cost, ...] = ("free", "forward")


@dataclass(frozen=True)
class Probe:
    """One measured variable. Called like the function it wraps: `(moment)`, or `(state, knobs, shared, key)` if on the state."""

    name: str
    fn: Callable[..., Any]
    dims: tuple[str, ...]
    units: str
    every: int
    on: Literal["moment", "state"]
    cost: Cost
    dtype: str
    vectorised: bool
    doc: str

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)

    def on_clock(self, every: int) -> "Probe":
        """The same probe on another clock."""
        return replace(self, every=_clock(every))

    @property
    def attrs(self) -> dict[str, str]:
        """Attributes of the variable in the record."""
        return dict(long_name=self.doc.rstrip("."), units=self.units, cost=self.cost)


def probe(
    *dims: str,
    units: str = "1",
    every: int = 1,
    on: Literal["moment", "state"] = "moment",
    cost: Cost = "free",
    dtype: str = "float32",
    vectorised: bool | None = None,
) -> Callable[[Callable[..., Any]], Probe]:
    """Declare a probe; its name is the function's and its long name the first line of the docstring.

    `on="moment"` functions are traced inside the training step and receive its by-products. `on="state"` functions run outside
    it, one run after another, free to sample or to call numpy; `vectorised=True` promises plain tensor operations, which lets
    the engine map them over runs.
    """
    for dim in dims:
        if dim not in DIMS:
            raise unknown("dimension", dim, DIMS)

    def declare(fn: Callable[..., Any]) -> Probe:
        doc = (fn.__doc__ or "").strip().splitlines()
        if not doc:
            raise TypeError(f"Probe {fn.__name__!r} needs a docstring; its first line is the variable's long name.")
        mapped = on == "moment" if vectorised is None else vectorised
        return Probe(fn.__name__, fn, dims, units, _clock(every), on, cost, dtype, mapped, doc[0])

    return declare


def _clock(every: int) -> int:
    if every not in CLOCKS:
        raise unknown("clock", str(every), map(str, CLOCKS))
    return every
