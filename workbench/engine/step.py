"""The step of one run: the function that is mapped over lanes and traced, and what is around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import noise
from ..errors import InputError
from ..probe import Probe
from ..study import Now, phase_starts
from .cohorts import Cohort
from .lanes import cast, is_finite, lane


@dataclass(frozen=True)
class Setting:
    """What all chunks of a run of the engine have in common; `cores` is how many may be taken."""

    steps: int
    device: torch.device
    dtype: torch.dtype
    cores: int


def one_step(
    cohort: Cohort, probes: tuple[Probe, ...], phase: str, dtype: torch.dtype, step: Tensor, state: Any, batch: Any, lanes: Any, key: Tensor
) -> tuple[Any, tuple[dict[str, Tensor], Tensor]]:
    """Update `step` of one run: the new state, the values of `probes` at the moment before it, and whether all is finite."""
    knobs = cohort.knobs.filled(lanes)
    now = Now(step.to(dtype), noise.fold(key, step), phase)
    new, moment = cohort.study.learner.step(state, batch, knobs, cohort.shared, now)
    values = {p.name: torch.as_tensor(p(moment), device=key.device) for p in probes}
    finite = is_finite(state["params"] if isinstance(state, dict) and "params" in state else state)
    if "loss" in vars(moment):
        finite = finite & torch.isfinite(torch.as_tensor(moment.loss))
    return cast(new, dtype), (values, finite)


def of_state(cohort: Cohort, p: Probe, state: Any, lanes: Any, key: Tensor) -> Tensor:
    """The value of a state probe for one run."""
    return torch.as_tensor(p(state, cohort.knobs.filled(lanes), cohort.shared, key), device=key.device)


def initial_states(cohort: Cohort, positions: Sequence[int], setting: Setting) -> list[Any]:
    """The states of some runs before their first step."""
    mapped = getattr(cohort.study.learner, "lanes", True)
    keys = noise.fold(noise.key_of(torch.tensor([cohort.seeds[i] for i in positions]), device=setting.device), "init")
    values = {name: [each[i] for i in positions] for name, each in cohort.lanes.items()}
    one = partial(_initial, cohort, setting)
    with setting.device:
        if not mapped:
            return [one(key, {name: each[i] for name, each in values.items()}) for i, key in enumerate(keys)]
        lanes = {name: torch.tensor(each, dtype=setting.dtype) for name, each in values.items()}
        states = torch.vmap(one)(keys, lanes)
    return [lane(states, i) for i in range(len(positions))]


def _initial(cohort: Cohort, setting: Setting, key: Tensor, lanes: Any) -> Any:
    return cast(cohort.study.learner.init(key, cohort.knobs.filled(lanes), cohort.shared), setting.dtype)


def phase_at(cohort: Cohort, step: int, steps: int) -> str:
    """The phase in which update `step` falls; the last moment belongs to the last phase."""
    return [name for name, first in phase_starts(cohort.study.phases, steps) if first <= min(step, steps - 1)][-1]


def check_shape(p: Probe, shape: tuple[int, ...], labels: Any) -> None:
    """Raise if a probe returned another shape than its dimensions have."""
    declared = tuple(len(labels[dim]) for dim in p.dims)
    if shape != declared:
        sizes = ", ".join(f"{dim}={size}" for dim, size in zip(p.dims, declared, strict=True)) or "none, a single number"
        raise InputError(f"Probe {p.name!r} declares dimensions ({sizes}) but returned shape {shape}; return one value per label.")
