"""Adversarial learning: a generator and a critic, each with an optimizer and a rate of its own.

Parameters are one tree, named `generator.` and `critic.`; either player reads its knobs by its prefix.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad

from .. import models, noise, optimizers, schedules
from ..errors import InputError
from ..knobs import Knobs, at_least, between, knob
from ..optimizers import Optimizer
from ..study import Moment, Now, Terms
from .supervised import traits_of

PLAYERS = ("generator", "critic")
TINY = 1e-24  # under a root, whose slope at 0 is infinite

Values = Mapping[str, Tensor]


class Game(Knobs):
    """What the players play for, and what steadies them."""

    adversarial_loss: Literal["non_saturating", "minimax", "least_squares", "wasserstein", "hinge"] = knob(
        "non_saturating", acts="switch", group="game", doc="what the players minimize"
    )
    updates: Literal["alternating", "simultaneous"] = knob(
        "alternating", acts="switch", group="game", doc="whether the generator meets the critic after its update or before"
    )
    critic_steps: int = knob(1, 1, 5, valid=at_least(1), group="game", doc="updates of the critic for each of the generator")
    penalty: Literal["none", "r1", "gradient"] = knob(
        "none", acts="switch", group="game", doc="penalty on the critic's slope: R1 at real samples, or WGAN-GP's at points between"
    )
    penalty_weight: float = knob(1.0, 1e-2, 100.0, log=True, valid=at_least(0.0), group="game", doc="weight of the penalty")
    instance_noise: float = knob(0.0, 0.0, 2.0, group="game", doc="standard deviation of noise on all samples that the critic sees")
    generator_average: float = knob(
        0.0, 0.0, 0.999, valid=between(0.0, 1.0), group="game", doc="decay of the running average of the generator's weights; 0: none"
    )


class Scores(NamedTuple):
    """What a loss makes of scores, elementwise: of real and of generated samples for the critic, of the latter for the generator."""

    real: Callable[[Tensor], Tensor]
    generated: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LOSSES = {
    "non_saturating": Scores(lambda s: F.softplus(-s), F.softplus, lambda s: F.softplus(-s)),
    "minimax": Scores(lambda s: F.softplus(-s), F.softplus, lambda s: -F.softplus(s)),
    "least_squares": Scores(lambda s: (s - 1).square() / 2, lambda s: s.square() / 2, lambda s: (s - 1).square() / 2),
    "wasserstein": Scores(torch.neg, lambda s: s, torch.neg),
    "hinge": Scores(lambda s: F.relu(1 - s), lambda s: F.relu(1 + s), torch.neg),
}


class Drawn(NamedTuple):
    """What one update of a player sees: real samples, latents of as many generated ones, and the key of its noise."""

    real: Tensor
    latent: Tensor
    key: Tensor


@dataclass(frozen=True)
class Adversarial:
    """Trains `generator(knobs)` and `critic(knobs)` against each other; both get the knobs as their player sees them.

    The generator takes what `latent(key, knobs, count)` draws, (count, ...); the critic gives each sample a score, (count, 1). A batch is a
    mapping with real samples "x": `critic_steps` times as many as an update of a player sees. Models without buffers.
    """

    generator: Callable[[Any], nn.Module]
    critic: Callable[[Any], nn.Module]
    latent: Callable[[Tensor, Any, int], Tensor]

    def prepare(self, knobs: Any, key: Tensor) -> dict[str, Any]:
        """Both players' structures, and traits of their parameters."""
        for player in PLAYERS:
            if not _has_rate(knobs, player):
                raise InputError(f"The knobs have no learning rate of the {player}; mix in prefixed({player!r}, Schedule).")
        shells = {player: models.build(getattr(self, player), knobs.view(player)) for player in PLAYERS}
        traits = {player: traits_of(shell, knobs.view(player)) for player, shell in shells.items()}
        return dict(shells=shells, traits=traits, latent=self.latent)

    def coords(self, knobs: Any, shared: Mapping[str, Any]) -> dict[str, list[str]]:
        """Labels of the dimensions `player`, and `tensor` (all parameters, the generator's first)."""
        names = [f"{player}.{name}" for player, shell in shared["shells"].items() for name, _ in shell.named_parameters()]
        return dict(player=list(PLAYERS), tensor=names)

    def init(self, key: Tensor, knobs: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of both players, the running average of the generator's, and both optimizers."""
        params = {player: _begun(player, key, knobs, shared) for player in PLAYERS}
        optimizer = {player: _chosen(player, knobs, shared).init(values) for player, values in params.items()}
        return dict(params=_joined(params), average=params["generator"], optimizer=optimizer)

    def step(self, state: Mapping[str, Any], batch: Any, knobs: Any, shared: Mapping[str, Any], now: Now) -> tuple[dict[str, Any], Moment]:
        """One update of the generator and `critic_steps` of the critic.

        The moment holds losses and rates (player,), grads, updates and params of both players, scores of real and of generated samples as
        the critic saw them last, the samples that the generator was judged by, and `field(params)`, minus both gradients on this batch.
        """
        draws, before = _draws(self.latent, batch, knobs, now), of_players(state["params"])
        rates = {player: schedules.rate(knobs.view(player), now.step) for player in PLAYERS}
        params, optimizer = dict(before), dict(state["optimizer"])

        def update(player: str, grads: Values) -> None:
            rule, own = _chosen(player, knobs, shared), knobs.view(player)
            updates, optimizer[player] = rule.update(grads, optimizer[player], params[player], own, now.key, rates[player])
            params[player] = {name: p + updates[name] for name, p in params[player].items()}

        for drawn in draws:
            critic_grads, (critic_loss, scores) = _critic_slope(params["critic"], before["generator"], drawn, knobs, shared)
            update("critic", critic_grads)
        judge = params["critic"] if knobs.updates == "alternating" else before["critic"]
        generator_grads, (generator_loss, samples) = _generator_slope(before["generator"], judge, draws[-1], knobs, shared)
        update("generator", generator_grads)
        decay, new = knobs.generator_average, _joined(params)
        average = {name: decay * state["average"][name] + (1 - decay) * p for name, p in params["generator"].items()}
        moment = Moment(
            loss=critic_loss,
            losses=torch.stack([generator_loss, critic_loss]),
            rates=torch.stack([rates[player] for player in PLAYERS]),
            grads=_joined(dict(generator=generator_grads, critic=critic_grads)),
            updates={name: p - state["params"][name] for name, p in new.items()},
            params=state["params"],
            scores=scores,
            samples=samples,
            real=draws[-1].real,
            field=lambda at: field(at, draws[-1], knobs, shared),
            knobs=knobs,
            shared=shared,
            key=now.key,
        )
        return dict(params=new, average=average, optimizer=optimizer), moment

    def adapt(self, state: Mapping[str, Any], key: Tensor, old: Terms, new: Terms) -> dict[str, Any]:
        """The state carried over to other static knobs: an optimizer of another kind begins anew; the models must be the same."""
        knobs, shared = new
        params, optimizer = of_players(state["params"]), {}
        for player in PLAYERS:
            params[player] = _begun(player, key, knobs, shared, params[player])
            optimizer[player] = optimizers.carried(_chosen(player, knobs, shared).init(params[player]), state["optimizer"][player])
        return dict(params=_joined(params), average=dict(state["average"]), optimizer=optimizer)


def of_players(params: Values) -> dict[str, dict[str, Tensor]]:
    """The parameters of each player, by their names in its model."""
    own = {player: f"{player}." for player in PLAYERS}
    return {player: {name.removeprefix(dot): p for name, p in params.items() if name.startswith(dot)} for player, dot in own.items()}


def generate(params: Values, latent: Tensor, knobs: Any, shared: Mapping[str, Any]) -> Tensor:
    """What a generator with these parameters makes of latents: (count, ...)."""
    return models.apply(shared["shells"]["generator"], params, {}, latent, knobs=knobs.view("generator"))


def score(params: Values, x: Tensor, knobs: Any, shared: Mapping[str, Any]) -> Tensor:
    """What a critic with these parameters says of samples: (count,)."""
    return models.apply(shared["shells"]["critic"], params, {}, x, knobs=knobs.view("critic")).squeeze(-1)


def field(params: Values, drawn: Drawn, knobs: Any, shared: Mapping[str, Any]) -> dict[str, Tensor]:
    """Minus the gradient of each player's loss with respect to its own parameters, the other's held fixed; a tree as `params`."""
    own = of_players(params)
    critic = _critic_slope(own["critic"], own["generator"], drawn, knobs, shared)[0]
    generator = _generator_slope(own["generator"], own["critic"], drawn, knobs, shared)[0]
    return {name: -g for name, g in _joined(dict(generator=generator, critic=critic)).items()}


def _has_rate(knobs: Any, player: str) -> bool:
    try:
        return hasattr(knobs, f"{player}_lr")
    except InputError:  # it is there, and live, so that it may not be read here
        return True


def _begun(player: str, key: Tensor, knobs: Any, shared: Mapping[str, Any], given: Values | None = None) -> dict[str, Tensor]:
    return models.initialize(shared["shells"][player], noise.fold(key, player), knobs.view(player), given=given)[0]


def _draws(latent: Callable[[Tensor, Any, int], Tensor], batch: Any, knobs: Any, now: Now) -> list[Drawn]:
    count = len(batch["x"])
    if count % knobs.critic_steps:
        raise InputError(f"A batch has {count} samples, which {knobs.critic_steps} updates of the critic cannot share; draw a multiple.")
    parts = batch["x"].unflatten(0, (knobs.critic_steps, -1))
    keys = [noise.fold(now.key, f"critic update {i}") for i in range(knobs.critic_steps)]
    return [Drawn(part, latent(key, knobs, part.shape[0]).to(part.dtype), key) for part, key in zip(parts, keys, strict=True)]


def _critic_slope(critic: Values, generator: Values, drawn: Drawn, knobs: Any, shared: Mapping[str, Any]) -> Any:
    """Gradients of the critic's loss with its penalty; the loss without it, and the scores."""
    made = generate(generator, drawn.latent, knobs, shared)

    def objective(at: Values) -> tuple[Tensor, Any]:
        real, generated = (_noisy(x, name, drawn, knobs) for name, x in (("real", drawn.real), ("generated", made)))
        scores = dict(real=score(at, real, knobs, shared), generated=score(at, generated, knobs, shared))
        kind = LOSSES[knobs.adversarial_loss]
        loss = (kind.real(scores["real"]) + kind.generated(scores["generated"])).mean()
        return loss + _penalty(at, real, generated, drawn.key, knobs, shared), (loss, scores)

    return grad(objective, has_aux=True)(critic)


def _generator_slope(generator: Values, critic: Values, drawn: Drawn, knobs: Any, shared: Mapping[str, Any]) -> Any:
    """Gradients of the generator's loss; the loss, and the samples."""

    def objective(at: Values) -> tuple[Tensor, Any]:
        made = generate(at, drawn.latent, knobs, shared)
        scores = score(critic, _noisy(made, "generated", drawn, knobs), knobs, shared)
        loss = LOSSES[knobs.adversarial_loss].generator(scores).mean()
        return loss, (loss, made)

    return grad(objective, has_aux=True)(generator)


def _penalty(critic: Values, real: Tensor, generated: Tensor, key: Tensor, knobs: Any, shared: Mapping[str, Any]) -> Tensor | float:
    """R1: weight / 2 times the mean squared slope at real samples. Gradient: weight times the mean of (slope - 1)^2 at points between."""
    if knobs.penalty == "none":
        return 0.0
    slopes = grad(lambda x: score(critic, x, knobs, shared).sum())
    if knobs.penalty == "r1":
        return knobs.penalty_weight / 2 * slopes(real).square().flatten(1).sum(1).mean()
    share = noise.uniform(key, "between", (len(real),)).view(-1, *[1] * (real.ndim - 1))
    length = slopes(share * real + (1 - share) * generated).square().flatten(1).sum(1).clamp(min=TINY).sqrt()
    return knobs.penalty_weight * (length - 1).square().mean()


def _noisy(x: Tensor, name: str, drawn: Drawn, knobs: Any) -> Tensor:
    return x + knobs.instance_noise * noise.normal(drawn.key, f"instance noise, {name}", tuple(x.shape), x.dtype)


def _chosen(player: str, knobs: Any, shared: Mapping[str, Any]) -> Optimizer:
    return optimizers.chosen(knobs.view(player), shared["traits"][player])


def _joined(values: Mapping[str, Values]) -> dict[str, Tensor]:
    return {f"{player}.{name}": x for player, own in values.items() for name, x in own.items()}
