"""Heat maps: a layered variable over steps for chosen runs, and how often an event happened over the settings of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError
from ..view import view
from .extras import alt
from .layout import described, layout
from .panels import GRADIENT, inline, panel_factors
from .sweep import final
from .theme import GRID, INK, label, rounded, shortened, word, wrapped

COLUMNS = 150
MOST_ROWS = 48
ROW = 16
WIDTH = 560
MOST_WORDS = 14
SHARES = ["#ffffff", "#E8A06C"]


def heat_map(record: Any, variable: str, runs: Sequence[int]) -> Any:
    """`variable` (run, step, one dimension or more) of the runs at these places: a row for each label, steps to the right.

    Beyond 48 rows the last dimension is reduced to its minimum; beyond 150 measurements every k-th is drawn.
    """
    measured = record.wb[variable].isel(run=list(runs))
    stride = -(-measured.sizes["step"] // COLUMNS)
    values = measured.isel(step=slice(None, None, stride))
    dims = [dim for dim in values.dims if dim not in ("run", "step")]
    if not dims:
        raise InputError(f"A heat map needs more dimensions than run and step, and {variable!r} has none; draw it with curves.")
    lowest = len(dims) > 1 and math.prod(values.sizes[dim] for dim in dims) > MOST_ROWS
    if lowest:
        values, dims = values.min(dims[-1]), dims[:-1]
    values = values.transpose("run", *dims, "step")
    names = described(record)[list(runs)]
    labels = [", ".join(f"{dim} {word(at)}" for dim, at in zip(dims, place, strict=True)) for place in _places(values, dims)]
    notes = [f"lowest {measured.dims[-1]} of each"] * lowest + [f"1 of {stride} measurements"] * (stride > 1)
    return _maps(values, names, labels, label(measured), notes)


def _places(values: Any, dims: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(pd.MultiIndex.from_product([values[dim].values for dim in dims]))


def _maps(values: Any, names: Sequence[str], labels: Sequence[str], title: str, notes: Sequence[str]) -> Any:
    steps = values["step"].values
    edges = [*steps.tolist(), int(steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1))]
    cells = rounded(values.values).reshape(len(names), len(labels), len(steps))
    cells = np.where(np.isfinite(cells), cells, None)
    table = pd.DataFrame(
        [
            {"name": name, "row": row, "step": edges[:-1], "next": edges[1:], "value": line.tolist()}
            for name, block in zip(names, cells, strict=True)
            for row, line in zip(labels, block, strict=True)
        ]
    )
    base = alt.Chart(inline(table)).transform_flatten(["step", "next", "value"]).mark_rect(stroke=None)
    legend = alt.Legend(title=wrapped(title, 24), gradientLength=min(160, ROW * len(labels)), tickCount=4)
    chart = base.encode(
        x=alt.X("step:Q", title="step", scale=alt.Scale(domain=[edges[0], edges[-1]], nice=False), axis=alt.Axis(tickCount=6, grid=False)),
        x2="next:Q",
        y=alt.Y("row:N", title=None, sort=list(labels)),
        color=alt.Color("value:Q", scale=alt.Scale(scheme=GRADIENT, domainMin=min(0.0, _least(values))), legend=legend),
        tooltip=[alt.Tooltip("row:N", title="of"), "step:Q", alt.Tooltip("value:Q", title=title, format=".4~g")],
    ).properties(width=WIDTH, height=ROW * len(labels))
    chart = chart.facet(alt.Facet("name:N", sort=list(names), title=None), columns=1)
    head = {"title": alt.Title("; ".join(notes), fontSize=12, fontWeight="normal")} if notes else {}
    return chart.properties(description=f"{title} of {' and of '.join(names)}", **head)


def _least(values: Any) -> float:
    finite = values.values[np.isfinite(values.values)]
    return float(finite.min()) if finite.size else 0.0


def lowest_and_twin(record: Any, ends: np.ndarray) -> list[int]:
    """Places of the run with the lowest of these numbers and of its twin: same seed, other knobs as equal as can be.

    Among equally near twins one with the same main knob is preferred, then the one with the highest number.
    """
    if not np.isfinite(ends).any():
        return [0]
    lowest = int(np.nanargmin(ends))
    main = layout(record).main
    differs = {name: record[name].values != record[name].values[lowest] for name in record.wb.varied}
    others = sum((where.astype(int) for name, where in differs.items() if name != "seed"), np.zeros(len(ends), int))
    may = (others > 0) & ~differs.get("seed", np.zeros(len(ends), bool)) & np.isfinite(ends)
    if not may.any():
        return [lowest]
    order = np.lexsort((-ends, others, differs.get(main, np.zeros(len(ends), bool)), ~may))
    return [lowest, int(order[0])]


@view("attention_entropy")
def entropy_map(record: Any) -> Any:
    """Attention entropy of each layer and head against step: the run whose entropy ends lowest, and its twin."""
    return heat_map(record, "attention_entropy", lowest_and_twin(record, final(record.wb["attention_entropy"])))


def step_events(record: Any) -> list[str]:
    """The events of a record that say at which step something happened (NaN: it did not)."""
    events = record["events"].dataset
    return [str(name) for name, da in events.data_vars.items() if da.attrs.get("units") == "step" and name != "steps_done"]


def said(event: str) -> str:
    """An event in words: `diverged_step` is diverged."""
    return event.removesuffix("_step").replace("_", " ")


@view("diverged_step")
def event_shares(record: Any) -> Any:
    """How many of the runs of each setting diverged, collapsed or had another event of the record."""
    plan, events = layout(record), step_events(record)
    values, codes = np.unique(record[plan.main].values, return_inverse=True) if plan.main else (np.array(["all"]), 0)
    settings = pd.DataFrame({"across": np.array([word(value) for value in values], object)[codes]}, index=range(record.sizes["run"]))
    settings["down"] = _joined([factor.of_runs(factor.heads) for factor in panel_factors(plan.factors)], len(settings))
    hits = pd.DataFrame({shortened(said(name)): record["events"][name].notnull().values for name in events})
    runs = settings.join(hits).melt(["across", "down"], var_name="event", value_name="hit")
    table = runs.groupby(["event", "down", "across"], sort=False)["hit"].agg(["sum", "size", "mean"]).reset_index()
    table["text"] = [f"{n}/{of}" for n, of in zip(table["sum"], table["size"], strict=True)]
    return _shares(table.rename(columns={"mean": "share"}), [word(value) for value in values], plan.main)


def _joined(names: Sequence[np.ndarray], runs: int) -> list[str]:
    return [", ".join(each) for each in zip(*names, strict=True)] if names else ["all runs"] * runs


def _shares(table: pd.DataFrame, order: Sequence[str], main: str | None) -> Any:
    rows, events = (list(dict.fromkeys(table[name])) for name in ("down", "event"))
    place = {
        "x": alt.X("across:O", sort=list(order), title=shortened(main or "") or None, axis=alt.Axis(labelAngle=0)),
        "y": alt.Y("down:N", sort=rows, title=None),
        "tooltip": [alt.Tooltip(f"{name}:N", title=text) for name, text in (("down", "of"), ("across", "at"), ("text", "runs"))],
    }
    legend = alt.Legend(title=["share of", "runs"], format="%", values=[0, 0.5, 1], gradientLength=70)
    colour = alt.Color("share:Q", scale=alt.Scale(domain=[0, 1], range=SHARES, interpolate="rgb"), legend=legend)
    cell = alt.Chart().mark_rect(stroke=GRID).encode(**place, color=colour)
    text = alt.Chart().mark_text(fontSize=11, color=INK).encode(**place, text="text:N")
    layers = [cell, text] if len(order) <= MOST_WORDS else [cell]
    width = int(np.clip(44 * len(order), 120, WIDTH))
    chart = alt.layer(*layers, data=inline(table)).properties(width=width, height=28 * len(rows))
    chart = chart.facet(alt.Facet("event:N", sort=events, title=None), columns=2)
    return chart.properties(description=f"Share of runs with {', '.join(events)}, by {main or 'setting'}")
