"""Losses and accuracies, on the batch and held out."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import models, noise, numerics
from ..errors import InputError
from ..learners import softmax_losses
from ..probe import probe
from ..taps import Edit, recording

BATCHES_AT_ONCE = 4  # without a backward pass these need less memory than one batch in training


@probe(units="nat")
def train_loss(m):
    """Training loss"""
    return m.loss


@probe(every=10)
def train_accuracy(m):
    """Share of the batch predicted right"""
    return _accuracy(m.taps["readout"], m.batch)


@probe(every=10)
def zero_loss_share(m):
    """Share of the batch whose loss is exactly 0 in the softmax's precision"""
    return (softmax_losses(m.taps["readout"], m.batch["y"], m.knobs) == 0).float().mean()


@probe(units="nat", every=1000, on="state", cost="forward", vectorised=True)
def validation_loss(state, knobs, shared, key):
    """Validation loss"""
    return _held_out(shared["loss"], state, knobs, shared, key)


@probe(every=1000, on="state", cost="forward", vectorised=True)
def validation_accuracy(state, knobs, shared, key):
    """Validation accuracy, the share of held-out predictions that are right"""
    return _held_out(_accuracy, state, knobs, shared, key)


@probe()
def applied_loss_scale(m):
    """Factor on the loss in the backward pass, 1 without loss scaling"""
    return torch.ones_like(m.loss) if m.loss_scale is None else torch.as_tensor(m.loss_scale)


@probe()
def update_skipped(m):
    """1 where gradients overflowed and loss scaling left the update out, else 0"""
    return torch.as_tensor(m.skipped, dtype=torch.float32)


def _held_out(
    measure: Callable[[Tensor, Any, Any], Tensor], state: Mapping[str, Any], knobs: Any, shared: Mapping[str, Any], key: Tensor
) -> Tensor:
    """Mean of `measure` over shared["evaluation"], as the model in evaluation mode computes with the rounding of training.

    Edits draw from `key`, the model itself draws nothing (dropout).
    """
    if shared["evaluation"] is None:
        raise InputError("There is no held-out data to measure; give the learner an evaluation set or leave out the validation probes.")
    params = numerics.round_tree(state["params"], knobs, "weights", key)
    edits = {word: _drawing(edit, key) for word, edit in shared["edits"](knobs).items()}
    sums, weights = [], []
    rows = BATCHES_AT_ONCE * knobs.batch if hasattr(knobs, "batch") else len(shared["evaluation"]["x"])  # else trained in one batch too
    for part in _slices(shared["evaluation"], rows):
        with recording(edits, knobs):
            readout = models.apply(shared["evaluator"], params, state["buffers"], part["x"], knobs=knobs)
        weights.append(part["weight"].sum() if "weight" in part else readout.new_tensor(len(part["x"])))
        sums.append(measure(readout, part, knobs) * weights[-1])
    return torch.stack(sums).sum() / torch.stack(weights).sum()


def _drawing(edit: Edit, key: Tensor) -> Edit:
    return lambda x, site: edit(x, site._replace(key=noise.fold(key, site.name)))


def _slices(batch: Mapping[str, Tensor], rows: int) -> list[dict[str, Tensor]]:
    return [{name: x[start : start + rows] for name, x in batch.items()} for start in range(0, len(batch["x"]), rows)]


def _accuracy(readout: Tensor, batch: Any, knobs: Any = None) -> Tensor:
    right = (readout.argmax(-1) == batch["y"]).to(readout.dtype)
    if "weight" not in batch:
        return right.mean()
    return (right * batch["weight"]).sum() / batch["weight"].sum()
