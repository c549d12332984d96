"""The output softmax: in which precision it is computed, and StableMax in its place (arXiv 2501.04697)."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function

from ..knobs import Knobs, knob
from .formats import format_of
from .rounding import round_to, straight_through

Precision = Literal["fp16", "fp32", "fp64"]
_DTYPES = {"fp16": torch.float32, "fp32": torch.float32, "fp64": torch.float64}


class OutputSoftmax(Knobs):
    """What makes probabilities of the output logits."""

    output_softmax: Literal["softmax", "stablemax"] = knob(
        "softmax", acts="switch", group="precision", doc="softmax, or StableMax, which does not saturate (always in float64)"
    )
    softmax_precision: Precision = knob(
        "fp32",
        acts="switch",
        group="precision",
        simulated=False,
        doc="dtype that the output logits are converted to before softmax and loss",
    )


def log_probabilities(logits: Tensor, knobs: Any) -> Tensor:
    """log of softmax or StableMax of (..., classes) in the precision that the knobs say; float32 for fp16, with its values."""
    if knobs.output_softmax == "stablemax":
        return torch.log_softmax(stretched(logits.to(torch.float64)), -1)
    converted = logits.to(_DTYPES[knobs.softmax_precision])
    return _HalfLogSoftmax.apply(converted) if knobs.softmax_precision == "fp16" else torch.log_softmax(converted, -1)


def stretched(logits: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), whose softmax is StableMax: s(x) / sum of s with s(x) = 1 + x from 0 on and 1 / (1 - x) below."""
    return torch.log1p(logits.clamp(min=0.0)) - torch.log1p(torch.relu(-logits))  # at 0 the slope of clamp is 1, that of relu 0


def is_saturated(logits: Tensor, knobs: Any) -> Tensor:
    """Of each row (..., classes), whether the sum of exp(logit - largest logit) is exactly 1 in the precision of the knobs; bool (...)."""
    if knobs.output_softmax == "stablemax":
        return _denominator(stretched(logits.to(torch.float64))) == 1
    converted = logits.to(_DTYPES[knobs.softmax_precision])
    return (_half(_denominator(_half(converted))) if knobs.softmax_precision == "fp16" else _denominator(converted)) == 1


def _denominator(logits: Tensor) -> Tensor:
    return torch.exp(logits - logits.amax(-1, keepdim=True)).sum(-1)


def _half(x: Tensor) -> Tensor:
    return straight_through(x, round_to(x, format_of("fp16")))


class _HalfLogSoftmax(Function):
    """log_softmax of float16, bit for bit as torch's CPU kernel has it: in float32, with logits, denominator, its log and result rounded.

    Rounded by arithmetic, since Inductor drops a conversion to float16 that is followed by one back.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor) -> Tensor:
        logits = _half(logits)
        log_denominator = _half(torch.log(_half(_denominator(logits))))
        return _half(logits - logits.amax(-1, keepdim=True) - log_denominator.unsqueeze(-1))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (log_p,) = ctx.saved_tensors
        gradient = _half(gradient)
        return _half(gradient - torch.exp(log_p) * gradient.sum(-1, keepdim=True))
