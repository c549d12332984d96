"""Designs: which runs to make. A design is a sum of grids; each grid crosses its axes."""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InputError, unknown
from .knobs import Knobs, between, knob, specs


class Seed(Knobs):
    """The one axis that every study has."""

    seed: int = knob(0, 0, 16, valid=between(0, 2**62), doc="seed of initial weights, data order and noise", acts="start")


@dataclass(frozen=True)
class Design:
    """A sum of grids, each a mapping from knob name (or `seed`) to its values."""

    grids: tuple[Mapping[str, tuple[Any, ...]], ...]

    def __add__(self, other: "Design") -> "Design":
        return Design(self.grids + other.grids)

    def rows(self, knobs: type[Knobs]) -> list[dict[str, Any]]:
        """Every run as a full mapping from `seed` and knob names to values, checked, duplicates dropped, in order."""
        known = axes(knobs)
        default = {name: spec.default for name, spec in known.items()}
        out: dict[tuple[Any, ...], dict[str, Any]] = {}
        for grid in self.grids:
            for name in grid:
                if name not in known:
                    raise unknown("knob", name, known)
            checked = [[known[name].check(value) for value in values] for name, values in grid.items()]
            for values in itertools.product(*checked):
                row = default | dict(zip(grid, values, strict=True))
                out.setdefault(tuple(row.values()), row)
        return list(out.values())

    def to_json(self) -> str:
        """The grids as JSON text, as stored with a record."""
        return json.dumps([{name: list(values) for name, values in grid.items()} for grid in self.grids])

    @staticmethod
    def from_json(text: str) -> "Design":
        """The design stored with a record."""
        return Design(tuple({name: tuple(values) for name, values in grid.items()} for grid in json.loads(text)))


def grid(**values: Any) -> Design:
    """Cross the given axes; a single value stands for an axis of one."""
    for name, value in values.items():
        if getattr(value, "ndim", 1) > 1:
            raise InputError(f"Axis {name!r} has more than one dimension; give a list of values.")
        if _is_axis(value) and not len(list(value)):
            raise InputError(f"Axis {name!r} is empty; give at least one value.")
    return Design(({name: tuple(_plain(v) for v in value) if _is_axis(value) else (_plain(value),) for name, value in values.items()},))


def axes(knobs: type[Knobs]) -> dict[str, Any]:
    """Spec by name of everything that a design may vary: `seed` and the knobs."""
    return {**specs(Seed), **specs(knobs)}


def _is_axis(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", 1) != 0


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
