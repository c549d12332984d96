"""Which knob becomes the colour, the panels, the label of a line: read off the knobs that vary between the runs of a record."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .theme import shortened, word

FEW = 6
VARIANT = "variant"


@dataclass(frozen=True)
class Factor:
    """A way of sorting the runs into named groups: `codes[run]` is the place of its group in `names`.

    The groups of an `ordered` one, such as sizes of a net, go from small to large. `heads` are the names, each so that it needs no
    title.
    """

    title: str
    names: tuple[str, ...]
    codes: np.ndarray
    ordered: bool = False
    heads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        said = self.names if self.title == VARIANT else tuple(f"{shortened(self.title)} = {name}" for name in self.names)
        object.__setattr__(self, "heads", self.heads or said)

    def of_runs(self, names: Sequence[str]) -> np.ndarray:
        """Each run's group, by these names of the groups."""
        return np.array(names, object)[self.codes]


@dataclass(frozen=True)
class Layout:
    """The knobs of a record by their part in a chart: the main numeric one, factors to compare by, the rest."""

    main: str | None
    factors: tuple[Factor, ...]
    folded: tuple[str, ...]

    @property
    def first_ordered(self) -> tuple[Factor, ...]:
        """The factors, one whose groups have an order before the others."""
        return tuple(sorted(self.factors, key=lambda factor: not factor.ordered))


def layout(record: Any) -> Layout:
    """Sort out what varies. The main knob is `lr`, else the numeric one with most values.

    Strings, switches and numbers of at most 6 values become factors. Knobs that are not fully crossed with one another share one: those
    that only change together, such as width and depth, are one size; one stabilizer at a time is a variant.
    """
    varied = [name for name in record.wb.varied if name != "seed"]
    values = {name: np.unique(record[name].values, return_inverse=True) for name in varied}
    numeric = [name for name in varied if record[name].dtype.kind in "iuf"]
    main = "lr" if "lr" in numeric else max(numeric, key=lambda name: len(values[name][0]), default=None)
    kept = [name for name in varied if name != main and (name not in numeric or len(values[name][0]) <= FEW)]
    codes = pd.DataFrame({name: values[name][1] for name in kept})
    factors = [_factor(record, group, codes) for group in _crossed_groups(codes)]
    return Layout(main, tuple(factors), tuple(name for name in varied if name != main and name not in kept))


def _crossed_groups(codes: pd.DataFrame) -> list[list[str]]:
    """The knobs in groups, so that each combination of one group occurs with each of the others."""
    groups = [[name] for name in codes]
    while tangled := next((pair for pair in itertools.combinations(groups, 2) if not _is_crossed(codes, pair)), None):
        place = groups.index(tangled[0])
        groups = [group for group in groups if group not in tangled]
        groups.insert(place, tangled[0] + tangled[1])
    return groups if not groups or _is_crossed(codes, groups) else [list(codes)]


def _is_crossed(codes: pd.DataFrame, groups: Sequence[list[str]]) -> bool:
    together = len(codes[[name for group in groups for name in group]].drop_duplicates())
    return together == math.prod(len(codes[group].drop_duplicates()) for group in groups)


def _factor(record: Any, knobs: Sequence[str], codes: pd.DataFrame) -> Factor:
    rows = codes[list(knobs)].drop_duplicates().sort_values(list(knobs))
    numeric = all(record[name].dtype.kind in "iuf" for name in knobs)
    if len(knobs) > 1 and not (numeric and all(rows[name].is_monotonic_increasing for name in knobs)):
        return _variants(record, knobs)
    found = {name: np.unique(record[name].values) for name in knobs}
    groups = [{name: word(found[name][code]) for name, code in row.items()} for row in rows.to_dict("records")]
    names = [", ".join(group.values()) for group in groups]
    heads = [", ".join(f"{shortened(name)} {value}" for name, value in group.items()) for group in groups] if len(knobs) > 1 else []
    place = {row: i for i, row in enumerate(rows.itertuples(index=False, name=None))}
    of_runs = np.array([place[row] for row in codes[list(knobs)].itertuples(index=False, name=None)])
    return Factor(", ".join(knobs), tuple(names), of_runs, numeric, tuple(heads))


def _variants(record: Any, knobs: Sequence[str]) -> Factor:
    """One group for each combination of `knobs` that occurs, named by what sets it apart from the commonest values; plain first."""
    table = pd.DataFrame({name: record[name].values for name in knobs})
    combinations = table.drop_duplicates()
    usual = combinations.mode().iloc[0]
    combinations = combinations.loc[(combinations != usual).sum(axis=1).sort_values(kind="stable").index]
    names = [", ".join(_said(k, v) for k, v in row.items() if v != usual[k]) or "plain" for row in combinations.to_dict("records")]
    place = {row: i for i, row in enumerate(combinations.itertuples(index=False, name=None))}
    return Factor(VARIANT, tuple(map(shortened, names)), np.array([place[row] for row in table.itertuples(index=False, name=None)]))


def _said(knob: str, value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return shortened(knob if value else f"no {knob}")
    return f"{shortened(knob)} {word(value)}"


def described(record: Any) -> np.ndarray:
    """Each run in words, by the knobs that vary: `lr 0.003, qk_norm true, seed 2`."""
    knobs = sorted(record.wb.varied, key="seed".__eq__)
    out = np.full(record.sizes["run"], "", object)
    for i, name in enumerate(knobs):
        found, codes = np.unique(record[name].values, return_inverse=True)
        out = out + np.array([f"{', ' if i else ''}{shortened(name)} {word(v)}" for v in found], object)[codes]
    return out
