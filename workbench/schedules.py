"""The learning rate over the steps of a run: a peak, a warmup that can be repeated, a decay."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from .knobs import Knobs, above, at_least, between, knob


class Schedule(Knobs):
    """The applied learning rate: `lr` x warmup x decay, see `rate`."""

    lr: float = knob(3e-3, 1e-5, 1.0, valid=above(0.0), log=True, group="optimizer", doc="learning rate (peak)")
    warmup: int = knob(
        0, 0, 1000, valid=at_least(0), acts="live", units="step", group="optimizer", begins="warmup_from", doc="steps of linear warmup"
    )
    warmup_from: int = knob(
        0, 0, 1000, valid=at_least(0), acts="live", units="step", group="optimizer", doc="step at which the warmup begins"
    )
    schedule: Literal["constant", "linear", "cosine", "rsqrt"] = knob(
        "constant", acts="switch", group="optimizer", doc="decay of the learning rate after the warmup"
    )
    final_fraction: float = knob(
        0.0, 0.0, 1.0, valid=between(0.0, 1.0), group="optimizer", doc="learning rate that the decay tends to, as a share of the peak"
    )
    horizon: int = knob(
        1000,
        1,
        10_000,
        valid=at_least(1),
        acts="live",
        units="step",
        group="optimizer",
        follows="steps",
        doc="step at which the decay ends",
    )


def rate(knobs: Any, step: Tensor) -> Tensor:
    """Learning rate applied at update number `step` (updates made so far, so the first is 0): lr x warm x (f + (1 - f) x decay).

    With w = warmup, f = final_fraction, and step, warmup_from, horizon T as they are:
    warm   = min((step + 1 - warmup_from) / w, 1) from step warmup_from on; 1 before it, and everywhere if w = 0.
    decay  = 1 (constant), 1 - u (linear), (1 + cos(pi u)) / 2 (cosine), with u = (step - w) / (T - w) held within [0, 1];
             sqrt(w / (step + 1)), at most 1, with w at least 1 (rsqrt, which knows no T).
    The decay counts from step w whatever warmup_from is: warming up again multiplies the rate and does not set the decay back.
    """
    step = torch.as_tensor(step)
    step = step if step.is_floating_point() else step.to(torch.get_default_dtype())
    lr, warmup, final, horizon = (_like(step, value) for value in (knobs.lr, knobs.warmup, knobs.final_fraction, knobs.horizon))
    decay = _DECAYS[knobs.schedule](step, warmup, horizon)
    return lr * _warm(step, warmup, _like(step, knobs.warmup_from)) * (final + (1 - final) * decay)


def _like(step: Tensor, value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=step.dtype, device=step.device)


def _warm(step: Tensor, warmup: Tensor, start: Tensor) -> Tensor:
    share = ((step + 1 - start) / warmup.clamp(min=1)).clamp(max=1)
    return torch.where((warmup > 0) & (step >= start), share, 1.0)


def _progress(step: Tensor, warmup: Tensor, horizon: Tensor) -> Tensor:
    return ((step - warmup) / (horizon - warmup).clamp(min=1)).clamp(0, 1)


def _constant(step: Tensor, warmup: Tensor, horizon: Tensor) -> Tensor:
    return torch.ones_like(step)


def _linear(step: Tensor, warmup: Tensor, horizon: Tensor) -> Tensor:
    return 1 - _progress(step, warmup, horizon)


def _cosine(step: Tensor, warmup: Tensor, horizon: Tensor) -> Tensor:
    return (1 + torch.cos(math.pi * _progress(step, warmup, horizon))) / 2


def _rsqrt(step: Tensor, warmup: Tensor, horizon: Tensor) -> Tensor:
    return torch.rsqrt(((step + 1) / warmup.clamp(min=1)).clamp(min=1))


_DECAYS = {"constant": _constant, "linear": _linear, "cosine": _cosine, "rsqrt": _rsqrt}
