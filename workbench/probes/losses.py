"""Losses and accuracies, on the batch and held out."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import models, numerics
from ..errors import InputError
from ..probe import probe
from ..taps import recording

BATCHES_AT_ONCE = 4  # without a backward pass these need less memory than one batch in training


@probe(units="nat")
def train_loss(m):
    """Training loss"""
    return m.loss


@probe(every=10)
def train_accuracy(m):
    """Share of the batch predicted right"""
    return _accuracy(m.taps["readout"], m.batch)


@probe(units="nat", every=1000, on="state", cost="forward", vectorised=True)
def validation_loss(state, knobs, shared, key):
    """Validation loss"""
    return _held_out(shared["loss"], state, knobs, shared)


@probe(every=1000, on="state", cost="forward", vectorised=True)
def validation_accuracy(state, knobs, shared, key):
    """Validation accuracy, the share of held-out predictions that are right"""
    return _held_out(_accuracy, state, knobs, shared)


def _held_out(measure: Callable[[Tensor, Any, Any], Tensor], state: Mapping[str, Any], knobs: Any, shared: Mapping[str, Any]) -> Tensor:
    """Mean of `measure` over shared["evaluation"], as the model in evaluation mode computes with the rounding of training."""
    if shared["evaluation"] is None:
        raise InputError("There is no held-out data to measure; give the learner an evaluation set or leave out the validation probes.")
    params = numerics.round_tree(state["params"], knobs, "weights")
    edits = shared["edits"](knobs)
    sums, weights = [], []
    for part in _slices(shared["evaluation"], BATCHES_AT_ONCE * getattr(knobs, "batch", 16)):
        with recording(edits, knobs):
            readout = models.apply(shared["evaluator"], params, state["buffers"], part["x"], knobs=knobs)
        weights.append(part["weight"].sum() if "weight" in part else readout.new_tensor(len(part["x"])))
        sums.append(measure(readout, part, knobs) * weights[-1])
    return torch.stack(sums).sum() / torch.stack(weights).sum()


def _slices(batch: Mapping[str, Tensor], rows: int) -> list[dict[str, Tensor]]:
    return [{name: x[start : start + rows] for name, x in batch.items()} for start in range(0, len(batch["x"]), rows)]


def _accuracy(readout: Tensor, batch: Any, knobs: Any = None) -> Tensor:
    right = (readout.argmax(-1) == batch["y"]).to(readout.dtype)
    if "weight" not in batch:
        return right.mean()
    return (right * batch["weight"]).sum() / batch["weight"].sum()
