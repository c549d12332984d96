"""Which numbers of a step come near the ends of a number format's range, or lie outside it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from .. import models
from ..errors import InputError
from ..numerics import Bits, round_to
from ..numerics.places import ACTIVATIONS
from ..probe import probe
from ..taps import Site, last_word, recording

PLACES = ("weights", "activations", "gradients")


@probe()
def activation_max(m):
    """Largest activation in size, of those that can be rounded"""
    return torch.stack([m.taps[name].abs().amax() for name in _rounded_taps(m)]).amax()


@probe("place", every=100, cost="backward")
def underflow_share(m):
    """Share of numbers under the smallest normal one of the format 'bits', zeros apart

    Of weights, of activations and of the gradients of activations, all as a pass without any edits of the model has them; gradients are
    those of the scaled loss, without z-loss.
    """
    lowest = 2 - torch.exp2(torch.as_tensor(m.knobs.exponent_bits, device=m.loss.device) - 1).to(torch.int64)
    smallest = torch.ldexp(torch.ones_like(m.loss), lowest)
    return torch.stack([_share(x, lambda size: (size > 0) & (size < smallest)) for x in _unrounded(m)])


@probe("place", every=100, cost="backward")
def overflow_share(m):
    """Share of numbers above the largest one of the format 'bits'

    Of weights, of activations and of the gradients of activations, all as a pass without any edits of the model has them; gradients are
    those of the scaled loss, without z-loss.
    """
    largest = round_to(torch.full_like(m.loss, torch.inf), Bits(m.knobs.exponent_bits, m.knobs.mantissa_bits), saturate=True)
    return torch.stack([_share(x, lambda size: size > largest) for x in _unrounded(m)])


def _rounded_taps(m: Any) -> list[str]:
    names = [name for name in m.taps if last_word(name) in ACTIVATIONS]
    if not names:
        raise InputError("This model taps no activations that are rounded; leave out the probes of their range.")
    return names


def _unrounded(m: Any) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Weights, the activations that can be rounded, and the gradients in these of the loss, multiplied as loss scaling does."""
    names = _rounded_taps(m)

    def loss_and_activations(added: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        def add(x: Tensor, site: Site) -> Tensor:
            return x + added[site.name]

        with recording(dict.fromkeys(ACTIVATIONS, add), m.knobs, m.key) as frame:
            readout = models.apply(m.shared["model"], m.params, m.buffers, m.batch["x"], knobs=m.knobs)
        loss = m.shared["loss"](readout, m.batch, m.knobs)
        return loss if m.loss_scale is None else m.loss_scale * loss, {name: frame.seen[name] for name in names}

    gradients, activations = grad(loss_and_activations, has_aux=True)({name: torch.zeros_like(m.taps[name]) for name in names})
    return m.params, activations, gradients


def _share(tensors: Mapping[str, Tensor], where: Callable[[Tensor], Tensor]) -> Tensor:
    found = [where(x.abs()) for x in tensors.values()]
    return torch.stack([hits.sum() for hits in found]).sum() / sum(hits.numel() for hits in found)
