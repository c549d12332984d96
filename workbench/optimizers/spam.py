"""SPAM: Adam with momentum reset and clipping of spikes (arXiv 2501.06842)."""

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from .. import noise
from ..errors import InputError
from ..knobs import above, at_least, knob
from .adam import Adam, adam, correction, denominator
from .decay import decayed_gradient, decayed_update
from .protocol import Optimizer, Params, State, Traits, numbers
from .resets import is_due, updates_since


class Spam(Adam, defaults={"epsilon": 1e-6}):
    """Settings of `spam`, by default those published."""

    spam_threshold: float = knob(
        5000.0, 0.0, 10_000.0, valid=at_least(0.0), group="optimizer", doc="squared gradient over its mean that SPAM lets through; 0: any"
    )
    spam_interval: int = knob(
        500, 0, 2000, valid=at_least(0), acts="live", units="step", group="optimizer", doc="steps between SPAM's resets; 0: none"
    )
    spam_warmup: int = knob(
        150, 0, 1000, valid=at_least(0), acts="live", units="step", group="optimizer", doc="steps of warmup after a reset of SPAM"
    )
    spam_patience: int = knob(
        20, 2, 200, valid=at_least(2), acts="live", units="step", group="optimizer", doc="steps after a reset before SPAM clips"
    )
    spam_density: float = knob(
        1.0, 0.05, 1.0, valid=above(0.0, 1.0), acts="switch", group="optimizer", doc="share of each matrix that SPAM moves between resets"
    )
    spam_bias_correction: Literal["running", "restarted"] = knob(
        "running", acts="switch", group="optimizer", doc="whether SPAM's bias correction begins again with a reset"
    )
    spam_released: bool = knob(
        False, acts="switch", group="optimizer", doc="SPAM as released: epsilon before the bias correction, decay after the step"
    )


def spam(traits: Traits | None = None) -> Optimizer:
    """Adam whose moments begin anew, and whose spiked gradients are clipped entry by entry (arXiv 2501.06842).

    In update t, the first being 1, with the knobs' names without `spam_`:
    t a multiple of `interval`: m = v = 0, then the step is multiplied by 1 - .99 (1 + cos(pi k / (warmup + 1))) / 2 for k = 0 to
    warmup - 1, the updates since. There is no such warmup at the start.
    `patience` updates after the start or a reset: g <- sign(g) sqrt(threshold v) wherever g^2 > threshold v, v of the update before and not
    bias-corrected. So an entry whose gradients have all been 0 until then does not move before the next reset.
    `density` below 1: of each of `traits.matrices` a random subset is drawn at the start and at each reset, each entry with this
    probability; only it has moments, moves and decays. The draw needs a key.
    The bias correction counts from the start ("running", as in the released code) or from the reset ("restarted"). Running, it is next
    to 1 after a reset, where |m| / sqrt(v) of a constant gradient begins at (1 - beta1) / sqrt(1 - beta2), 3.2, and ends at 1.
    `released`: the step is m_hat sqrt(1 - beta2^t) / (sqrt(v) + epsilon), and the weights decay after they have moved.
    State: that of `adam`, `reset`, the number of the update that reset last (0: none), and `draw`, the key of the subset.
    """
    traits = traits or Traits()
    return Optimizer(partial(_init, traits), partial(_update, traits))


def spam_scale(count: Tensor, reset: Tensor, warmup: Tensor) -> Tensor:
    """What the step is multiplied by at update number `count` when the last reset was at number `reset` (0: none); 0-dim."""
    since = count - reset
    scale = 1 - 0.99 * (1 + torch.cos(math.pi * since / (warmup + 1))) / 2
    return torch.where((reset > 0) & (since < warmup), scale, 1.0)


def effective_step(state: State, knobs: Any, rate: float | Tensor, traits: Traits) -> dict[str, Tensor]:
    """The step per unit of m_hat: geometric mean over those elements of each parameter that move; 0-dim each."""
    count, reset = state["count"].clamp(min=1), state["reset"]
    beta2, epsilon, warmup = numbers(count, knobs.beta2, knobs.epsilon, knobs.spam_warmup)
    second = correction(beta2, _corrected(count, reset, knobs))
    pace = rate * spam_scale(count, reset, warmup)
    steps = {}
    for name, v in state["v"].items():
        subset = _subset(name, v, state["draw"], knobs, traits)
        logs = _kept(subset, torch.log(_divisor(v, second, epsilon, knobs)))
        steps[name] = pace * traits.scale(name) * torch.exp(-logs.mean() if subset is None else -logs.sum() / subset.sum())
    return steps


def _init(traits: Traits, params: Params) -> State:
    state = adam(traits).init(params)
    return {**state, "reset": torch.zeros_like(state["count"]), "draw": state["count"].new_zeros(2, dtype=torch.int64)}


def _update(
    traits: Traits, grads: Params, state: State, params: Params, knobs: Any, key: Tensor | None, rate: float | Tensor
) -> tuple[Params, State]:
    count = state["count"] + 1
    beta1, beta2, epsilon, threshold = numbers(count, knobs.beta1, knobs.beta2, knobs.epsilon, knobs.spam_threshold)
    interval, warmup, patience = numbers(count, knobs.spam_interval, knobs.spam_warmup, knobs.spam_patience)
    anew = is_due(count, interval)
    reset = torch.where(anew, count, state["reset"])
    draw = _draw(anew, state["draw"], key) if knobs.spam_density < 1 else state["draw"]
    clips = (count - reset >= patience) & (threshold > 0)
    corrected = _corrected(count, reset, knobs)
    first, second = correction(beta1, corrected), correction(beta2, corrected)
    scale = spam_scale(count, reset, warmup)
    updates, m, v = {}, {}, {}
    for name, p in params.items():
        keeps = partial(_kept, _subset(name, p, draw, knobs, traits))
        old_m, old_v = (keeps(torch.where(anew, 0.0, state[moment][name])) for moment in "mv")
        g = keeps(decayed_gradient(name, grads[name], p, knobs, traits))
        most = threshold * old_v
        g = torch.where(clips & (g * g > most), torch.sign(g) * torch.sqrt(most), g)
        m[name] = beta1 * old_m + (1 - beta1) * g
        v[name] = beta2 * old_v + (1 - beta2) * g * g
        direction = scale * m[name] / first / _divisor(v[name], second, epsilon, knobs)
        decaying = p - rate * traits.scale(name) * direction if knobs.spam_released else p
        updates[name] = keeps(decayed_update(name, direction, decaying, knobs, traits, rate))
    return updates, {"count": count, "m": m, "v": v, "reset": reset, "draw": draw}


def _corrected(count: Tensor, reset: Tensor, knobs: Any) -> Tensor:
    """Updates that the bias correction counts."""
    return updates_since(count, reset) if knobs.spam_bias_correction == "restarted" else count


def _divisor(v: Tensor, second: Tensor, epsilon: Tensor, knobs: Any) -> Tensor:
    """What m_hat is divided by."""
    return (torch.sqrt(v) + epsilon) / torch.sqrt(second) if knobs.spam_released else denominator(v, second, epsilon)


def _draw(anew: Tensor, draw: Tensor, key: Tensor | None) -> Tensor:
    if key is None:
        raise InputError("SPAM with a density below 1 draws which weights move, and has no key here; give one, as now.key in a step.")
    # All zeros: nothing has been drawn yet, at the start or because this optimizer has only now been chosen.
    return torch.where(anew | (draw == 0).all(), key, draw)


def _subset(name: str, param: Tensor, draw: Tensor, knobs: Any, traits: Traits) -> Tensor | None:
    """Which entries move, bool; None for all."""
    if knobs.spam_density == 1 or name not in traits.matrices:
        return None
    return noise.uniform(draw, f"spam:{name}", tuple(param.shape)) < knobs.spam_density


def _kept(subset: Tensor | None, x: Tensor) -> Tensor:
    return x if subset is None else torch.where(subset, x, 0.0)
