"""Supervised learning of one model on one loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import grad_and_value

from .. import models, numerics, optimizers, schedules
from ..optimizers import Traits, of_role
from ..study import Moment, Now, Terms
from ..taps import Edit, recording
from .losses import cross_entropy, z_penalty


def _as_they_are(grads: Any, knobs: Any, now: Now) -> Any:
    return grads


@dataclass(frozen=True)
class Supervised:
    """Trains `model(knobs)` on `loss(readout, batch, knobs)` with the optimizer, schedule and rounding that the knobs describe.

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
        roles = models.roles(shell)
        scales = {name: scale for name, scale in models.rate_scales(shell, knobs).items() if scale != 1}
        return dict(
            model=shell,
            evaluator=models.build(self.model, knobs).eval(),
            roles=roles,
            traits=Traits(scales, of_role(roles, "matrix", "embedding", "readout")),
            evaluation=self.evaluation(knobs, key.device) if self.evaluation else None,
            loss=self.loss,
            edits=self.edits,
        )

    def coords(self, knobs: Any, shared: Mapping[str, Any]) -> dict[str, list[str]]:
        """Labels of the dimensions `tensor` (all parameters) and `matrix` (those of two axes inside the network)."""
        shapes = {name: p.ndim for name, p in shared["model"].named_parameters()}
        return dict(tensor=list(shapes), matrix=[n for n, ndim in shapes.items() if ndim == 2 and shared["roles"][n] == "matrix"])

    def init(self, key: Tensor, knobs: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters, buffers and optimizer state before the first update."""
        params, buffers = models.initialize(shared["model"], key, knobs)
        return dict(params=params, buffers=buffers, optimizer=optimizers.chosen(knobs, shared["traits"]).init(params))

    def step(self, state: Mapping[str, Any], batch: Any, knobs: Any, shared: Mapping[str, Any], now: Now) -> tuple[dict[str, Any], Moment]:
        """One update; the moment holds loss, objective, grads, updates, params, buffers, optimizer, taps, readout, rate, loss_at."""
        params, buffers = state["params"], state["buffers"]

        def objective(at: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
            return self._objective(at, buffers, batch, knobs, shared["model"], now.key)

        grads, (total, (loss, frame)) = grad_and_value(objective, has_aux=True)(params)
        grads = self.disturbed(numerics.round_tree(grads, knobs, "gradients"), knobs, now)
        rate = schedules.rate(knobs, now.step)
        updates, optimizer = optimizers.chosen(knobs, shared["traits"]).update(grads, state["optimizer"], params, knobs, now.key, rate)
        optimizer = numerics.round_tree(optimizer, knobs, "optimizer_state")
        moment = Moment(
            loss=loss,
            objective=total,
            grads=grads,
            updates=updates,
            params=params,
            buffers=buffers,
            optimizer=optimizer,
            taps=frame["seen"],
            rate=rate,
            loss_at=lambda at: objective(at)[0],
            batch=batch,
            knobs=knobs,
            shared=shared,
        )
        moved = {name: p + updates[name] for name, p in params.items()}
        return dict(params=moved, buffers={**buffers, **frame["kept"]}, optimizer=optimizer), moment

    def adapt(self, state: Mapping[str, Any], key: Tensor, old: Terms, new: Terms) -> dict[str, Any]:
        """The state carried over to other static knobs: leaves of the same name and shape are kept, new ones begin neutral.

        Where sigmaReparam goes, the weights become those that were applied. Raises InputError naming the leaf whose shape does
        not fit. Moments of an optimizer of another kind start at zero.
        """
        knobs, shared = new
        params, buffers = state["params"], state["buffers"]
        if not getattr(knobs, "sigma_reparam", False):
            params = models.effective_weights(old.shared["model"], params, buffers)
        params, buffers = models.initialize(shared["model"], key, knobs, given={**params, **buffers})
        fresh = optimizers.chosen(knobs, shared["traits"]).init(params)
        same_kind = fresh.keys() == state["optimizer"].keys()
        return dict(params=params, buffers=buffers, optimizer=_carried(fresh, state["optimizer"]) if same_kind else fresh)

    def _objective(self, params: Any, buffers: Any, batch: Any, knobs: Any, shell: nn.Module, key: Tensor) -> tuple[Tensor, Any]:
        with recording(self.edits(knobs), knobs, key) as frame:
            rounded = numerics.round_tree(params, knobs, "weights")
            readout = models.apply(shell, rounded, buffers, batch["x"], knobs=knobs)
        loss = self.loss(readout, batch, knobs)
        total = loss + z_penalty(readout, knobs) if hasattr(knobs, "z_loss") else loss
        return total, (loss, dict(seen=frame.seen, kept=frame.kept))


def _carried(fresh: Any, old: Any) -> Any:
    if isinstance(fresh, dict):
        return {name: _carried(leaf, old[name]) if name in old else leaf for name, leaf in fresh.items()}
    return old
