"""Which optimizer, by its knob."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ..errors import InputError, unknown
from ..knobs import knob
from .adabelief import AdaBelief, adabelief
from .adabelief import effective_step as step_of_adabelief
from .adam import Adam, adam
from .adam import effective_step as step_of_adam
from .clipping import Clipping, clip_global_norm
from .lion import lion
from .muon import Muon, muon
from .perp_grad import PerpGrad, perp_grad
from .protocol import Optimizer, State, Traits
from .sgd import Momentum, sgd
from .spam import Spam, spam
from .spam import effective_step as step_of_spam
from .stable_spam import StableSpam, stable_spam
from .stable_spam import effective_step as step_of_stable_spam


class Optimizers(Adam, Momentum, Clipping, defaults={"weight_decay_kind": "coupled"}):
    """What AdamW and SGD read, and which of the two it is. The learning rate is in `schedules.Schedule`."""

    optimizer: Literal["adamw", "sgd"] = knob("adamw", acts="switch", group="optimizer", doc="optimizer")


class EveryOptimizer(Optimizers, AdaBelief, Muon, Spam, StableSpam, PerpGrad):
    """What any optimizer of this package reads, and which one it is.

    beta1, beta2, epsilon and weight decay have one value, whichever optimizer reads them, by default Adam's. What else is published:
    epsilon 1e-6 for SPAM and 1e-16 for AdaBelief, beta2 .99 for Lion, and for Muon a rate of .02, beta2 .95 and epsilon 1e-10.
    """

    optimizer: Literal["adamw", "sgd", "adabelief", "lion", "muon", "spam", "stable_spam"] = knob(
        "adamw", acts="switch", group="optimizer", doc="optimizer"
    )


class _Known(NamedTuple):
    """An optimizer; a knob of its group alone, which tells what is meant where no knob says; its effective step, if it has one."""

    make: Callable[[Traits], Optimizer]
    mark: str | None
    effective_step: Callable[[State, Any, float | Tensor, Traits], dict[str, Tensor]] | None = None


# In this order are marks looked for: Adam's knobs are in most groups.
_KNOWN = {
    "spam": _Known(spam, "spam_interval", step_of_spam),
    "stable_spam": _Known(stable_spam, "stable_spam_interval", step_of_stable_spam),
    "adabelief": _Known(adabelief, "adabelief_rectify", step_of_adabelief),
    "muon": _Known(muon, "muon_momentum"),
    "adamw": _Known(adam, "beta1", step_of_adam),
    "sgd": _Known(sgd, "momentum"),
    "lion": _Known(lion, None),
}


def chosen(knobs: Any, traits: Traits | None = None) -> Optimizer:
    """The optimizer these knobs describe, with perpGrad if it is on, clipped if they can clip.

    Without a knob `optimizer` the group mixed in decides.
    """
    optimizer = _known(knobs).make(traits or Traits())
    optimizer = perp_grad(optimizer) if getattr(knobs, "perp_grad", False) else optimizer
    return clip_global_norm(optimizer) if hasattr(knobs, "clip") else optimizer


def effective_step(state: State, knobs: Any, rate: float | Tensor, traits: Traits | None = None) -> dict[str, Tensor] | None:
    """Step per unit of the bias-corrected mean gradient m_hat: geometric mean over the elements of each parameter; 0-dim each.

    For Adam c rate / (sqrt(v_hat) + epsilon), with c the parameter's multiplier. None for an optimizer without mean squares: SGD, Lion,
    Muon.
    """
    known = _known(knobs)
    return known.effective_step(state, knobs, rate, traits or Traits()) if known.effective_step else None


def _known(knobs: Any) -> _Known:
    name = getattr(knobs, "optimizer", None)
    if name is None:
        name = next((name for name, known in _KNOWN.items() if known.mark and hasattr(knobs, known.mark)), None)
    if name is None:
        raise InputError(f"The knobs {type(knobs).__name__} describe no optimizer; mix in Adam, Momentum or Optimizers.")
    if name not in _KNOWN:
        raise unknown("optimizer", name, _KNOWN)
    return _KNOWN[name]
