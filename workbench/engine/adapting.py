"""Switching static knobs of a run: what may change while it trains, and its state carried across."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from .. import noise
from ..errors import InputError
from ..knobs import Spec, specs
from ..study import Study, Terms
from .cohorts import prepared
from .lanes import cast

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Carried:
    """The tensors of a state, by name, that a switch kept, changed, began anew and left behind."""

    kept: tuple[str, ...]
    changed: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]


def switched(study: Study, before: Row, after: Row) -> list[str]:
    """The static knobs that change; InputError for one that may not."""
    known = specs(study.knobs)
    static = [name for name, spec in known.items() if not spec.is_lane and before[name] != after[name]]
    for name in static:
        if not may_switch(study, known[name]):
            why = "is fixed for a run" if known[name].acts == "shape" else "cannot change while this learner trains"
            raise InputError(
                f"Knob {name!r} {why} (here {before[name]!r}); begin a new run with {name}={after[name]!r} instead of forking."
            )
    return static


def may_switch(study: Study, spec: Spec) -> bool:
    """Whether a run can go on with another value of this static knob."""
    return spec.acts == "switch" and hasattr(study.learner, "adapt")


def adapted(study: Study, state: Any, before: Row, after: Row, device: torch.device, dtype: torch.dtype) -> Any:
    """The state carried from one row of knobs to another; InputError with the reason where it cannot be."""
    if not switched(study, before, after):
        return state
    key = noise.fold(noise.key_of(before["seed"], device=device), "init")
    old, new = (_terms(study, row, device, dtype) for row in (before, after))
    with torch.no_grad():
        return cast(study.learner.adapt(state, key, old, new), dtype)


def carried(before: Any, after: Any) -> Carried:
    """What became of the tensors of a state, by comparing it with what it was."""
    old, new = ({keystr(path): leaf for path, leaf in tree_flatten_with_path(state)[0]} for state in (before, after))
    both = [name for name in new if name in old]
    kept = [name for name in both if _is_same(old[name], new[name])]
    return Carried(
        kept=tuple(kept),
        changed=tuple(name for name in both if name not in kept),
        new=tuple(name for name in new if name not in old),
        gone=tuple(name for name in old if name not in new),
    )


def _is_same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)


def _terms(study: Study, row: Row, device: torch.device, dtype: torch.dtype) -> Terms:
    knobs = study.knobs(**{name: row[name] for name in specs(study.knobs)})
    return Terms(knobs, prepared(study, knobs, device, dtype))
