"""Attention entropy, and two lower bounds of it that are proved (Zhai et al. 2023, arXiv 2303.06296, theorem 3.1)."""

from typing import Any

import torch
from torch import Tensor

from .. import numerics
from ..models import logit_scale
from ..probe import probe
from .layers import tapped
from .weights import applied_weights, top_singular_value

# exp(-x) is 0 from x = 746 on even in float64; beyond this the bound is 0, and stays so without infinity times 0.
LARGEST_NORM = 1e4

# Each breaks logits = scale x W_Q W_K^T x^T, or attention = softmax(logits).
VOID = ("qk_norm", "bias", "softcap")
VOID_ROUNDED: tuple[numerics.Place, ...] = ("activations", "logits", "softmax", "sums")


@probe("layer", "head", units="nat", every=10)
def attention_entropy(m):
    """Attention entropy, mean over queries"""
    return torch.stack([torch.special.entr(p_BHLL).sum(-1).mean((0, 2)) for p_BHLL in tapped(m, "attention")])


@probe("layer", "head", units="nat", every=10)
def attention_entropy_bound(m):
    """Least attention entropy that logits of such deviation allow

    `entropy_bound` of every row, its norm that of the logits minus their mean over the keys the row sees; then the mean over
    rows as in `attention_entropy`. Holds for the softmax of the tapped logits: rounded probabilities may fall below it.
    """
    return torch.stack([_row_bounds(s_BHLL, m.taps["mask"]).mean((0, 2)) for s_BHLL in tapped(m, "logits")])


@probe("layer", "head", units="nat", every=100)
def spectral_entropy_bound(m):
    """Least attention entropy that the spectral norms of weights and inputs allow

    Row i of a sequence X has logits scale / temperature * X W_K W_Q^T x_i, whose norm is at most
    |scale / temperature| ||W_K W_Q^T|| ||X X^T||, spectral norms. `entropy_bound` at that norm and at the number of keys the
    row sees, per sequence and row, then the mean as in `attention_entropy`, which it therefore bounds from below.
    The weights are those applied (sigmaReparam, rounding). NaN where a knob of VOID is on or a place of VOID_ROUNDED rounded, for
    which the product is not the norm.
    """
    inputs = tapped(m, "attention_input")
    if any(getattr(m.knobs, name, False) for name in VOID) or any(numerics.is_on(m.knobs, place) for place in VOID_ROUNDED):
        return inputs[0].new_full((len(inputs), m.knobs.heads), torch.nan)
    weights, factor = applied_weights(m), logit_scale(m.knobs) / m.knobs.temperature
    return torch.stack([_spectral_bounds(weights, f"blocks.{i}.attention", x, factor, m) for i, x in enumerate(inputs)])


@probe("layer", "head", "y", "x", dtype="uint8", every=10)
def attention_map(m):
    """Attention of the batch's first sequence in 255ths, a row a query

    A picture of each head, a column a key. Probabilities that are not finite count as 0.
    """
    p_NHLL = torch.stack([p_BHLL[0] for p_BHLL in tapped(m, "attention")])
    return (255 * p_NHLL.nan_to_num()).round().clamp(0, 255).to(torch.uint8)


def entropy_bound(norm: Tensor, keys: Tensor | int) -> Tensor:
    """Least entropy (nat) of the softmax of `keys` = T logits whose deviation from their mean has L2 norm at most `norm` = s.

    log(1 + (T - 1) b) + s sqrt(T (T - 1)) b / (1 + (T - 1) b) with b = exp(-s sqrt(T / (T - 1))), reached by one logit above
    T - 1 equal ones. 0 for T = 1; 0 and not NaN for s so large that b underflows.
    """
    keys = torch.as_tensor(keys, dtype=norm.dtype, device=norm.device)
    norm, others = norm.clamp(max=LARGEST_NORM), keys - 1
    b = torch.exp(-norm * torch.sqrt(keys / others.clamp(min=1)))
    return torch.log1p(others * b) + norm * torch.sqrt(keys * others) * b / (1 + others * b)


def _row_bounds(s_BHLL: Tensor, mask_LL: Tensor) -> Tensor:
    keys_L = mask_LL.sum(-1).to(s_BHLL.dtype)
    mean_BHL = torch.where(mask_LL, s_BHLL, 0.0).sum(-1) / keys_L
    deviation_BHLL = torch.where(mask_LL, s_BHLL - mean_BHL.unsqueeze(-1), 0.0)
    return entropy_bound(torch.linalg.vector_norm(deviation_BHLL, dim=-1), keys_L)


def _spectral_bounds(weights: dict[str, Tensor], path: str, x_BLD: Tensor, factor: float | Tensor, m: Any) -> Tensor:
    query_HdD, key_HdD = (weights[f"{path}.{word}.weight"].unflatten(0, (m.knobs.heads, -1)) for word in ("query", "key"))
    of_weights_H = top_singular_value(query_HdD.mT @ key_HdD)
    gram = x_BLD.mT @ x_BLD if x_BLD.shape[-1] < x_BLD.shape[-2] else x_BLD @ x_BLD.mT
    norm_BH = abs(factor) * top_singular_value(gram).unsqueeze(-1) * of_weights_H
    keys_L = m.taps["mask"].sum(-1)
    return entropy_bound(norm_BH.unsqueeze(-1), keys_L).mean((0, 2))
