"""Attention logits and output logits: how large they are."""

import torch

from ..models import log_z as log_denominator
from ..numerics import is_saturated
from ..probe import probe
from .layers import rms, tapped


@probe("layer", every=10)
def attention_logit_max(m):
    """Largest attention logit in size, of keys that are not masked"""
    return torch.stack([torch.where(m.taps["mask"], s_BHLL.abs(), 0.0).amax() for s_BHLL in tapped(m, "logits")])


@probe(units="nat", every=10)
def log_z(m):
    """log Z of the output softmax, mean over predictions"""
    return log_denominator(m.taps["readout"]).mean()


@probe(every=10)
def readout_logit_max(m):
    """Largest output logit in size"""
    return m.taps["readout"].abs().amax()


@probe(every=10)
def readout_rms(m):
    """Root mean square of the output logits"""
    return rms(m.taps["readout"])


@probe(every=10)
def saturated_share(m):
    """Share of softmax rows that are exactly saturated

    The sum of exp(logit - largest logit) is exactly 1 in the precision of the output softmax: all but one probability are lost.
    """
    return is_saturated(m.taps["readout"], m.knobs).float().mean()
