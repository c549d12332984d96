"""Optimizers as pure functions of one run; `chosen` picks one by its knob."""

from .adabelief import AdaBelief, adabelief
from .adam import Adam, adam
from .choice import EveryOptimizer, Optimizers, chosen, effective_step
from .clipping import Clipping, clip_global_norm, global_norm
from .decay import Decay
from .lion import lion
from .muon import Muon, muon, orthogonalized
from .perp_grad import PerpGrad, perp_grad
from .protocol import ROLES, Optimizer, Traits, carried, of_role, same_kind
from .sgd import Momentum, sgd
from .spam import Spam, spam, spam_scale
from .stable_spam import StableSpam, stable_spam

__all__ = [
    "ROLES",
    "AdaBelief",
    "Adam",
    "Clipping",
    "Decay",
    "EveryOptimizer",
    "Momentum",
    "Muon",
    "Optimizer",
    "Optimizers",
    "PerpGrad",
    "Spam",
    "StableSpam",
    "Traits",
    "adabelief",
    "adam",
    "carried",
    "chosen",
    "clip_global_norm",
    "effective_step",
    "global_norm",
    "lion",
    "muon",
    "of_role",
    "orthogonalized",
    "perp_grad",
    "same_kind",
    "sgd",
    "spam",
    "spam_scale",
    "stable_spam",
]
