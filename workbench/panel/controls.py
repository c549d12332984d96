"""Controls: what a front needs to know of each knob, and knobs as a short text."""

import shlex
from collections.abc import Mapping
from typing import Any

from ..design import Seed
from ..errors import InputError, unknown
from ..knobs import Spec, specs
from ..study import Study

SEEDS = (1, 4, 16)
OTHER = "other"
FIRST = ("lr", "warmup", "qk_norm", "sigma_reparam")  # what most people reach for


def control(spec: Spec, switches: bool) -> dict[str, Any]:
    """One knob as plain values: which control it wants, over which span, and how a change takes part."""
    kind = "choice" if spec.choices else {bool: "switch", str: "text"}.get(spec.type, "number")
    return {
        "name": spec.name,
        "label": spec.name.replace("_", " "),
        "kind": kind,
        "whole": spec.type is int,
        "log": spec.log,
        "low": spec.low,
        "high": spec.high,
        "choices": list(spec.choices),
        "units": "" if spec.units == "1" else spec.units,
        "doc": spec.hint,
        "default": spec.default,
        "restarts": spec.acts in ("start", "shape") or (spec.acts == "switch" and not switches),
    }


def groups(study: Study) -> list[dict[str, Any]]:
    """The controls of a study by group: first those that act while a run trains, groups that only begin new runs last."""
    switches = hasattr(study.learner, "adapt")
    found: dict[str, list[dict[str, Any]]] = {}
    for spec in specs(study.knobs).values():
        found.setdefault(spec.group or OTHER, []).append(control(spec, switches))
    for controls in found.values():
        controls.sort(key=lambda each: (each["restarts"], FIRST.index(each["name"]) if each["name"] in FIRST else len(FIRST)))
    order = sorted(found, key=lambda name: all(each["restarts"] for each in found[name]))
    return [{"name": name, "controls": found[name]} for name in order]


def seeds_of(value: Any) -> int:
    """How many seeds, checked."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= max(SEEDS):
        raise InputError(f"seeds is {value!r}; it must be a whole number from 1 to {max(SEEDS)}.")
    return value


def shared(study: Study, row: Mapping[str, Any], seeds: int) -> str:
    """Knobs as a short text: the study, and what differs from its defaults."""
    known = specs(study.knobs)
    parts = [f"{name}={_written(row[name])}" for name, spec in known.items() if row[name] != spec.default]
    return shlex.join([study.name, *parts, f"seeds={seeds}"])


def read_shared(study: Study, text: str) -> tuple[dict[str, Any], int]:
    """The row of knobs and the number of seeds that such a text describes; InputError for one of another study or with a wrong value."""
    try:
        name, *parts = shlex.split(str(text))
    except ValueError as error:
        raise InputError(f"The text {text!r} does not describe knobs; write one like '{study.name} lr=0.1 seeds=4'.") from error
    if name != study.name:
        raise InputError(f"The text is for study {name!r} and this panel has {study.name!r}; open wb.explore({name!r}) for it.")
    known: dict[str, Spec] = {**specs(study.knobs), "seeds": specs(Seed)["seed"]}
    row = {name: spec.default for name, spec in specs(study.knobs).items()}
    seeds = 1
    for part in parts:
        knob, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"{part!r} sets nothing; write knob=value, as in lr=0.1.")
        if knob not in known:
            raise unknown("knob", knob, known)
        if knob == "seeds":
            seeds = known["seeds"].parse(value)
        else:
            row[knob] = known[knob].parse(value)
    return row, seeds_of(seeds)


def _written(value: Any) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float) and float(f"{value:g}") == value
        else str(value)
    )
