"""Which knob becomes the colour, the panels, the label of a line: read off the knobs that vary between the runs of a record."""

from __future__ import annotations

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
    """A way of sorting the runs into named groups: `codes[run]` is the place of its group in `names`."""

    title: str
    names: tuple[str, ...]
    codes: np.ndarray

    @property
    def heads(self) -> tuple[str, ...]:
        """The names, each so that it needs no title."""
        return self.names if self.title == VARIANT else tuple(f"{shortened(self.title)} = {name}" for name in self.names)

    def of_runs(self, names: Sequence[str]) -> np.ndarray:
        """Each run's group, by these names of the groups."""
        return np.array(names, object)[self.codes]


@dataclass(frozen=True)
class Layout:
    """The knobs of a record by their part in a chart: the main numeric one, factors to compare by, the rest."""

    main: str | None
    factors: tuple[Factor, ...]
    folded: tuple[str, ...]


def layout(record: Any) -> Layout:
    """Sort out what varies. The main knob is `lr`, else the numeric one with most values.

    Strings, switches and numbers of at most 6 values become factors; those that are not fully crossed with the others (such as
    one stabilizer at a time) share a single factor, the variant.
    """
    varied = [name for name in record.wb.varied if name != "seed"]
    values = {name: np.unique(record[name].values, return_inverse=True) for name in varied}
    numeric = [name for name in varied if record[name].dtype.kind in "iuf"]
    main = "lr" if "lr" in numeric else max(numeric, key=lambda name: len(values[name][0]), default=None)
    kept = [name for name in varied if name != main and (name not in numeric or len(values[name][0]) <= FEW)]
    codes = pd.DataFrame({name: values[name][1] for name in kept})
    tangled = [name for name in kept if len(kept) > 1 and not _is_crossed(codes, name)]
    alone = [Factor(name, tuple(map(word, values[name][0])), values[name][1]) for name in kept if name not in tangled]
    factors = ([_variants(record, tangled)] if tangled else []) + alone
    return Layout(main, tuple(factors), tuple(name for name in varied if name != main and name not in kept))


def _is_crossed(codes: pd.DataFrame, name: str) -> bool:
    rest = codes.drop(columns=name).drop_duplicates()
    return len(codes.drop_duplicates()) == len(rest) * codes[name].nunique()


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
