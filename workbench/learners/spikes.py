"""Spikes as a disturbance: at some steps the gradients of some parameter tensors are multiplied by a number."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import noise
from ..knobs import Knobs, at_least, between, knob
from ..study import Moment, Now
from .supervised import Supervised


class Spikes(Knobs):
    """Which spikes are injected into the gradients: how large, how often, where and when."""

    spike_size: float = knob(1000.0, 1.0, 10_000.0, log=True, group="spikes", doc="what a spike multiplies a gradient by")
    spike_rate: float = knob(0.05, 0.0, 0.5, valid=between(0.0, 1.0), group="spikes", doc="share of steps with a spike; 0: none")
    spike_tensors: float = knob(
        0.1, 0.0, 1.0, valid=between(0.0, 1.0), group="spikes", doc="share of the parameter tensors that a spike hits, drawn anew at each"
    )
    spike_from: int = knob(0, 0, 1000, valid=at_least(0), acts="live", units="step", group="spikes", doc="step from which spikes come")
    spike_until: int = knob(
        1000, 0, 1000, valid=at_least(0), acts="live", units="step", group="spikes", doc="step from which none come any more"
    )


def hit(names: Iterable[str], knobs: Any, now: Now) -> dict[str, Tensor]:
    """Which of these parameter tensors a spike hits in this step: 0-dim bool each, drawn from the step's key."""
    there = (noise.uniform(now.key, "spike") < knobs.spike_rate) & (now.step >= knobs.spike_from) & (now.step < knobs.spike_until)
    return {name: there & (noise.uniform(now.key, f"spike:{name}") < knobs.spike_tensors) for name in names}


def spiked(grads: Mapping[str, Tensor], knobs: Any, now: Now) -> dict[str, Tensor]:
    """The gradients, those that are hit multiplied by `spike_size`."""
    found = hit(grads, knobs, now)
    return {name: torch.where(found[name], knobs.spike_size * g, g) for name, g in grads.items()}


@dataclass(frozen=True)
class Spiked(Supervised):
    """Supervised learning under injected spikes, whose moment also holds what is needed to see them."""

    disturbed: Callable[[Any, Any, Now], Any] = spiked

    def step(self, state: Mapping[str, Any], batch: Any, knobs: Any, shared: Mapping[str, Any], now: Now) -> tuple[dict[str, Any], Moment]:
        """One update; the moment gets `hit`, the tensors a spike hit, and `before`, the optimizer's state before the update."""
        new, moment = super().step(state, batch, knobs, shared, now)
        return new, Moment(**vars(moment), hit=hit(state["params"], knobs, now), before=state["optimizer"])
