"""Supervised learning of one model on one loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from .. import models, numerics, optimizers, schedules
from ..numerics import loss_scaling
from ..optimizers import Traits, of_role
from ..study import Moment, Now, Terms
from ..taps import Edit, recording
from .losses import cross_entropy, z_penalty


def _as_they_are(grads: Any, knobs: Any, now: Now) -> Any:
    return grads


@dataclass(frozen=True)
class Supervised:
    """Trains `model(knobs)` on `loss(readout, batch, knobs)` with optimizer, schedule, rounding and loss scaling as the knobs say.

    `evaluation(knobs, device)` is a held-out batch that all runs share; `edits(knobs)` changes the model at its taps. A batch is a
    mapping with the model's input "x". `disturbed(grads, knobs, now)` changes the gradients that the optimizer gets.
    """

    model: Callable[[Any], nn.Module]
    loss: Callable[[Tensor, Any, Any], Tensor] = cross_entropy
    evaluation: Callable[..., Any] | None = None
    edits: Callable[[Any], Mapping[str, Edit]] = numerics.edits
    disturbed: Callable[[Any, Any, Now], Any] = _as_they_are

    def prepare(self, knobs: Any, key: Tensor) -> dict[str, Any]:
        """The model's structure (`model`, and `evaluator` in evaluation mode), traits of its parameters, held-out data, loss, edits."""
        shell = models.build(self.model, knobs)
        return dict(
            model=shell,
            evaluator=models.build(self.model, knobs).eval(),
            roles=models.roles(shell),
            traits=traits_of(shell, knobs),
            evaluation=self.evaluation(knobs, key.device) if self.evaluation else None,
            loss=self.loss,
            edits=self.edits,
        )

    def coords(self, knobs: Any, shared: Mapping[str, Any]) -> dict[str, list[str]]:
        """Labels of the dimensions `tensor` (all parameters) and `matrix` (those of two axes inside the network)."""
        tensors = [name for name, _ in shared["model"].named_parameters()]
        return dict(tensor=tensors, matrix=_matrices(shared["model"], shared["roles"]))

    def init(self, key: Tensor, knobs: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters, buffers, optimizer state and dynamic loss scale before the first update."""
        params, buffers = models.initialize(shared["model"], key, knobs)
        optimizer = optimizers.chosen(knobs, shared["traits"]).init(params)
        return dict(params=params, buffers=buffers, optimizer=optimizer, **loss_scaling.begin(knobs, key.device))

    def step(self, state: Mapping[str, Any], batch: Any, knobs: Any, shared: Mapping[str, Any], now: Now) -> tuple[dict[str, Any], Moment]:
        """One update; the moment holds loss, objective, grads, updates, params, buffers, optimizer, taps, rate, loss_at, key.

        `grads` are as the optimizer gets them; `loss_at(params)` is the objective without rounding of gradients and without loss scale.
        Of loss scaling the moment holds loss_scale (None without) and skipped, whether the update was left out.
        """
        params, buffers = state["params"], state["buffers"]
        scale = loss_scaling.scale_of(knobs, state)
        scaled_grads, total, loss, frame = self._backward(state, batch, knobs, shared["model"], now.key, scale)
        grads = self.disturbed(loss_scaling.unscaled(scaled_grads, scale), knobs, now)
        rate = schedules.rate(knobs, now.step)
        updates, optimizer = optimizers.chosen(knobs, shared["traits"]).update(grads, state["optimizer"], params, knobs, now.key, rate)
        new = dict(optimizer=numerics.round_tree(optimizer, knobs, "optimizer_state", now.key))
        skipped: Tensor | bool = False
        if loss_scaling.is_dynamic(knobs):
            skipped = loss_scaling.overflow(scaled_grads)
            updates = loss_scaling.unless(skipped, updates, {name: torch.zeros_like(p) for name, p in params.items()})
            new["optimizer"] = loss_scaling.unless(skipped, new["optimizer"], state["optimizer"])
            new["loss_scale"] = loss_scaling.updated(state["loss_scale"], skipped, knobs.loss_scale_interval)
        exact = knobs.filled({"round_gradients": "no"})
        moment = Moment(
            loss=loss,
            objective=total,
            grads=grads,
            updates=updates,
            params=params,
            buffers=buffers,
            optimizer=new["optimizer"],
            taps=frame["seen"],
            rate=rate,
            loss_at=lambda at: self._objective(at, buffers, batch, exact, shared["model"], now.key)[0],
            loss_scale=scale,
            skipped=skipped,
            batch=batch,
            knobs=knobs,
            shared=shared,
            key=now.key,
        )
        moved = {name: p + updates[name] for name, p in params.items()}
        return dict(params=moved, buffers={**buffers, **frame["kept"]}, **new), moment

    def adapt(self, state: Mapping[str, Any], key: Tensor, old: Terms, new: Terms) -> dict[str, Any]:
        """The state carried over to other static knobs: leaves of the same name and shape are kept, new ones begin neutral.

        Where sigmaReparam goes, the weights become those that were applied. Raises InputError naming the leaf whose shape does
        not fit. Moments of an optimizer of another kind start at zero, a dynamic loss scale where its knob says.
        """
        knobs, shared = new
        params, buffers = state["params"], state["buffers"]
        if not getattr(knobs, "sigma_reparam", False):
            params = models.effective_weights(old.shared["model"], params, buffers)
        params, buffers = models.initialize(shared["model"], key, knobs, given={**params, **buffers})
        optimizer = optimizers.carried(optimizers.chosen(knobs, shared["traits"]).init(params), state["optimizer"])
        begun = loss_scaling.begin(knobs, key.device)
        return dict(params=params, buffers=buffers, optimizer=optimizer, **{name: state.get(name, leaf) for name, leaf in begun.items()})

    def _backward(
        self, state: Mapping[str, Any], batch: Any, knobs: Any, shell: nn.Module, key: Tensor, scale: float | Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Any]:
        """Gradients of the scaled objective, rounded; and the objective, the loss and what the pass left behind."""

        def scaled(at: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
            total, aside = self._objective(at, state["buffers"], batch, knobs, shell, key)
            return total if scale is None else scale * total, (total, *aside)

        grads, (_, (total, loss, frame)) = grad_and_value(scaled, has_aux=True)(state["params"])
        return numerics.round_tree(grads, knobs, "gradients", key), total, loss, frame

    def _objective(self, params: Any, buffers: Any, batch: Any, knobs: Any, shell: nn.Module, key: Tensor) -> tuple[Tensor, Any]:
        with recording(self.edits(knobs), knobs, key) as frame:
            rounded = numerics.round_tree(params, knobs, "weights", key)
            readout = models.apply(shell, rounded, buffers, batch["x"], knobs=knobs)
        loss = self.loss(readout, batch, knobs)
        total = loss + z_penalty(readout, knobs) if hasattr(knobs, "z_loss") else loss
        return total, (loss, dict(seen=frame.seen, kept=frame.kept))


def traits_of(shell: nn.Module, knobs: Any) -> Traits:
    """What an optimizer may need to know of a model's parameters: rate multipliers, which decay, which are matrices inside the network."""
    roles = models.roles(shell)
    scales = {name: scale for name, scale in models.rate_scales(shell, knobs).items() if scale != 1}
    return Traits(scales, of_role(roles, "matrix", "embedding", "readout"), frozenset(_matrices(shell, roles)))


def _matrices(shell: nn.Module, roles: Mapping[str, str]) -> list[str]:
    return [name for name, p in shell.named_parameters() if p.ndim == 2 and roles[name] == "matrix"]
