"""Supervised learning where each run has a training set of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..study import Moment, Now, Terms
from .supervised import Supervised


@dataclass(frozen=True)
class OwnSamples(Supervised):
    """`Supervised` with a training set in the state, drawn once by `training(knobs, key)`; an update sees `seen(samples, batch, knobs)`."""

    training: Callable[[Any, Tensor], Any] = field(kw_only=True)
    seen: Callable[[Any, Any, Any], Any] = field(kw_only=True)

    def init(self, key: Tensor, knobs: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
        """As of `Supervised`, and the training set, `samples`."""
        return {**super().init(key, knobs, shared), "samples": self.training(knobs, key)}

    def step(self, state: Mapping[str, Any], batch: Any, knobs: Any, shared: Mapping[str, Any], now: Now) -> tuple[dict[str, Any], Moment]:
        """One update; the moment's batch is what was seen."""
        new, moment = super().step(state, self.seen(state["samples"], batch, knobs), knobs, shared, now)
        return {**new, "samples": state["samples"]}, moment

    def adapt(self, state: Mapping[str, Any], key: Tensor, old: Terms, new: Terms) -> dict[str, Any]:
        """The state carried over to other static knobs; the training set stays."""
        return {**super().adapt(state, key, old, new), "samples": state["samples"]}
