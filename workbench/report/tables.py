"""What the tables of a report say, as plain text."""

import json
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from ..claim import Verdict
from ..views.heatmaps import said, step_events
from ..views.sweep import final
from ..views.theme import label, number, word
from ..views.verdicts import ICONS

MOST = 100
PROVENANCE = {
    "study": "study",
    "created": "made at",
    "seconds": "seconds it took",
    "steps": "steps",
    "device": "device",
    "dtype": "number format",
    "threads": "threads",
    "command": "command",
    "source_sha256": "SHA-256 of the study's source",
    "schema_version": "record schema",
}


def summary(record: Any, verdicts: list[Verdict]) -> str:
    """The record in a sentence."""
    runs, lost = record.sizes["run"], int(record["events"]["diverged_step"].notnull().sum())
    done, steps = int(record["events"]["steps_done"].min()), record.attrs.get("steps")
    parts = [f"{runs} run{'s' * (runs != 1)} of {_value(steps)} steps", f"{lost or 'none'} diverged"]
    parts += [f"interrupted: only {done} steps were made"] if isinstance(steps, Integral) and done < steps else []
    counts = {status: sum(verdict.status == status for verdict in verdicts) for status in ICONS}
    parts += [f"{n} claim{'s' * (n != 1)} {_verb(status, n)}" for status, n in counts.items() if n]
    return ", ".join(parts) + "."


def _verb(status: str, n: int) -> str:
    if status == "undecided":
        return "undecided"
    return status if n == 1 else status.removesuffix("s")


def claim(verdict: Verdict) -> dict[str, str]:
    """A row of the claims table."""
    units = "" if verdict.units == "1" else f" {verdict.units}"
    return {
        "statement": verdict.statement,
        "slug": verdict.slug,
        "effect": f"{number(verdict.mean)}{units}",
        "interval": f"[{number(verdict.low)}, {number(verdict.high)}]",
        "n": str(verdict.n),
        "threshold": f"{'above' if verdict.above else 'below'} {number(verdict.threshold)}{units}",
        "source": verdict.threshold_source,
        "paired": verdict.paired,
        "status": verdict.status,
        "icon": ICONS[verdict.status],
    }


def settings(record: Any) -> dict[str, Any]:
    """Runs that differ in the seed alone, together: how many, their final loss, and how many had each event and when."""
    knobs = [name for name in record.wb.varied if name != "seed"]
    columns = {name: [word(value) for value in record[name].values] for name in knobs}
    keys = pd.DataFrame(columns, index=range(record.sizes["run"]))
    groups = keys.groupby(knobs, sort=False).indices if knobs else {(): np.arange(len(keys))}
    loss = _kept_loss(record) if "train_loss" in record.wb else None
    events = {name: record["events"][name].values for name in step_events(record)}
    head = [*knobs, "runs", *([f"final {label(record.wb['train_loss']).lower()}"] if loss is not None else []), *map(said, events)]
    rows = []
    for key, runs in list(groups.items())[:MOST]:
        measured = [_spread(loss[runs])] if loss is not None else []
        rows.append([*(key if isinstance(key, tuple) else (key,)), str(len(runs)), *measured, *(_when(at[runs]) for at in events.values())])
    return {"head": head, "rows": rows, "left_out": max(len(groups) - MOST, 0)}


def _kept_loss(record: Any) -> np.ndarray:
    """The final loss of the runs that did not diverge; NaN for the others."""
    return np.where(record["events"]["diverged_step"].isnull().values, final(record.wb["train_loss"]), np.nan)


def _spread(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    if not values.size:
        return "–"
    middle, low, high = np.median(values), values.min(), values.max()
    return number(middle) if low == high else f"{number(middle)} ({number(low)} to {number(high)})"


def _when(steps: np.ndarray) -> str:
    hit = steps[np.isfinite(steps)]
    if not hit.size:
        return f"none of {len(steps)}"
    low, high = number(hit.min()), number(hit.max())
    return f"{hit.size} of {len(steps)}, step {low}" + (f" to {high}" if low != high else "")


def timeline(record: Any) -> list[list[str]]:
    """Changes made while training: run, step, knob, old and new value."""
    node = record["timeline"].dataset
    names = ("changed_run", "at_step", "knob", "old", "new")
    return [list(map(word, row)) for row in zip(*(node[name].values[:MOST] for name in names), strict=True)]


def provenance(record: Any) -> list[tuple[str, str]]:
    """Where the record comes from: names and values."""
    known = [(text, _value(record.attrs[name])) for name, text in PROVENANCE.items() if name in record.attrs]
    versions = _parsed(record.attrs.get("versions"), dict)
    design = [("runs", "; ".join(f"{name}: {', '.join(map(word, values))}" for name, values in grid.items())) for grid in grids(record)]
    return [*known, *design, ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))]


def _value(value: Any) -> str:
    return number(value) if isinstance(value, (int, float, np.number)) else str(value)


def _parsed(text: Any, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return kind()
    return value if isinstance(value, kind) else kind()


def grids(record: Any) -> list[dict[str, list[Any]]]:
    """The crossed axes that the record's runs come from; none if it does not say."""
    found = _parsed(record.attrs.get("design"), list)
    return [grid for grid in found if isinstance(grid, dict) and all(isinstance(v, list) and k.isidentifier() for k, v in grid.items())]


def reproduction(record: Any) -> str:
    """Python that makes the runs again, one call for each set of crossed axes; empty if the record does not say enough."""
    study, steps, found = str(record.attrs.get("study", "")), record.attrs.get("steps"), grids(record)
    if not (study and found and isinstance(steps, (int, np.integer))):
        return ""
    dtype = str(record.attrs.get("dtype", "float32"))
    fixed = {"steps": int(steps)} | ({} if dtype == "float32" else {"dtype": dtype})
    lines = ["import workbench as wb", ""]
    for i, grid in enumerate(found):
        given = {name: values[0] if len(values) == 1 else values for name, values in grid.items()} | fixed
        arguments = [repr(study), *(f"{name}={value!r}" for name, value in given.items())]
        lines += [f"record{f'_{i + 1}' if len(found) > 1 else ''} = wb.run(", *(f"    {argument}," for argument in arguments), ")"]
    return "\n".join(lines)
