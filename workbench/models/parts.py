"""Layers of the models: linear with optional sigmaReparam, norms and where they stand, attention, feed-forward, block, batch norm.

Tap words of block i, as `i.word`: attention_input, query, key, value, logits, attention, hidden, residual.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import noise, taps
from ..errors import InputError
from .initialize import Rule, constant, normal, truncated_normal

EPS = 1e-6

PLACES = {
    "none": (),
    "post": ("sum",),
    "pre": ("before", "final"),
    "peri": ("before", "after", "final", "embedding"),
    "reordered": ("after", "final"),
}


class Linear(nn.Module):
    """x W^T + b; the weight starts as a truncated normal of standard deviation `std`, by default 1/sqrt(fan_in).

    With sigmaReparam the matrix applied is W_hat = gamma / sigma(W) * W (arXiv 2303.06296). `sigma_init` "spectral" starts gamma
    at the spectral norm of W, so that W_hat = W (the authors' vision code); "one" starts it at 1 (their paper and speech code).
    A run that switches it on begins with W_hat = W either way.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        *,
        bias: bool = False,
        std: float | None = None,
        sigma_reparam: bool = False,
        sigma_init: str = "spectral",
    ) -> None:
        super().__init__()
        self.std, self.sigma_init = fan_in**-0.5 if std is None else std, sigma_init
        self.weight = nn.Parameter(torch.empty(fan_out, fan_in))
        self.register_parameter("bias", nn.Parameter(torch.empty(fan_out)) if bias else None)
        self.register_parameter("gamma", nn.Parameter(torch.empty(())) if sigma_reparam else None)
        self.register_buffer("u", torch.empty(fan_in) if sigma_reparam else None)

    def rules(self) -> dict[str, Rule]:
        """See `initialize`; gamma and u are derived from the weight."""
        one = constant("gain", 1.0).draw if self.sigma_init == "one" else None
        return {
            "weight": truncated_normal("matrix", self.std),
            "bias": constant("bias", 0.0),
            "gamma": Rule("gain", draw=one, derive=lambda own: _top_singular(own["weight"])[0]),
            "u": Rule(derive=lambda own: _top_singular(own["weight"])[1]),
        }

    def forward(self, x: Tensor) -> Tensor:
        if self.gamma is None:
            return F.linear(x, self.weight, self.bias)
        weight, u = sigma_reparametrized(self.weight, self.gamma, self.u)
        if self.training:
            _keep(self, "u", u)
        return F.linear(x, weight, self.bias)


def sigma_reparametrized(weight: Tensor, gamma: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(W_hat, next u) after one power iteration from the right singular vector u; the gradient of sigma flows through W only."""
    fixed = weight.detach()
    v = F.normalize(fixed @ u.detach(), dim=0)
    u = F.normalize(fixed.mT @ v, dim=0)
    return gamma / (v @ weight @ u) * weight, u


def effective_weights(module: nn.Module, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`params` with every sigma-reparametrized matrix replaced by the W_hat that a pass with these values applies."""
    found = dict(params)
    for path, part in module.named_modules():
        if isinstance(part, Linear) and part.gamma is not None:
            weight, gamma, u = (f"{path}.{leaf}".lstrip(".") for leaf in ("weight", "gamma", "u"))
            found[weight] = sigma_reparametrized(params[weight], params[gamma], buffers[u])[0]
    return found


class Embedding(nn.Module):
    """A table of `count` vectors, normal with standard deviation `std`."""

    def __init__(self, count: int, width: int, std: float) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(count, width))

    def rules(self) -> dict[str, Rule]:
        """See `initialize`."""
        return {"weight": normal("embedding", self.std)}

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)


class Norm(nn.Module):
    """LayerNorm (`kind` "layer") or RMSNorm ("rms", never a bias) over the last axis."""

    def __init__(self, width: int, kind: str, bias: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.empty(width))
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias and kind == "layer" else None)

    def rules(self) -> dict[str, Rule]:
        """See `initialize`."""
        return {"weight": constant("gain", 1.0), "bias": constant("bias", 0.0)}

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "rms":
            return F.rms_norm(x, self.weight.shape, self.weight, EPS)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, EPS)


def norm_at(place: str, knobs: Any) -> nn.Module:
    """The norm of the knobs' placement at `place` (before, after, sum, final, embedding), or the identity if it has none there."""
    return Norm(knobs.width, knobs.norm, knobs.bias) if place in PLACES[knobs.norm_placement] else nn.Identity()


def linear(knobs: Any, fan_in: int, fan_out: int, std: float | None = None) -> Linear:
    """A linear layer with the knobs' bias and reparametrization."""
    return Linear(fan_in, fan_out, bias=knobs.bias, std=std, sigma_reparam=knobs.sigma_reparam, sigma_init=knobs.sigma_init)


def head_width(knobs: Any) -> int:
    """Width of one attention head; InputError if the heads do not share the width evenly."""
    if knobs.heads < 1 or knobs.width % knobs.heads:
        raise InputError(f"Knob 'width' is {knobs.width}, which 'heads' = {knobs.heads} does not divide; make width a multiple of heads.")
    return knobs.width // knobs.heads


def logit_scale(knobs: Any) -> float:
    """Factor on q.k: 1/sqrt(d_head); with muParam sqrt(base d_head)/d_head, the same at the base width."""
    width = head_width(knobs)
    return math.sqrt(knobs.base_width / knobs.heads) / width if knobs.muparam else width**-0.5


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """Which key (column) each query (row) may see: itself and earlier ones; bool (L, L)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


class Attention(nn.Module):
    """Multi-head attention with an explicit softmax, (B, L, D) to (B, L, D).

    Logits are q.k * scale / temperature, then cap * tanh(logits / cap) if `softcap` is above 0. QK-norm is a LayerNorm per
    head whose gains all heads share (arXiv 2309.14322). The taps query, key (after QK-norm) and value are (B, H, L, d), logits
    (before the mask) and attention (exactly 0 where masked) are (B, H, L, L). Where an edit changes them, the softmax's
    denominators (B, H, L, 1) are tapped as sums.
    """

    def __init__(self, layer: int, knobs: Any) -> None:
        super().__init__()
        self.layer, self.heads, self.scale, self.softcap = layer, knobs.heads, logit_scale(knobs), knobs.softcap
        self.query, self.key, self.value, self.out = (linear(knobs, knobs.width, knobs.width) for _ in range(4))
        self.query_norm, self.key_norm = (
            Norm(head_width(knobs), "layer", knobs.bias) if knobs.qk_norm else nn.Identity() for _ in range(2)
        )

    def forward(self, x_BLD: Tensor, mask_LL: Tensor, temperature: float | Tensor) -> Tensor:
        x_BLD = self._tap("attention_input", x_BLD)
        q_BHLd = self._tap("query", self.query_norm(self._split(self.query(x_BLD))))
        k_BHLd = self._tap("key", self.key_norm(self._split(self.key(x_BLD))))
        v_BHLd = self._tap("value", self._split(self.value(x_BLD)))
        s_BHLL = self._tap("logits", self._capped(q_BHLd @ k_BHLd.mT * (self.scale / temperature)))
        p_BHLL = self._tap("attention", self._softmax(s_BHLL.masked_fill(~mask_LL, -math.inf)))
        return self.out((p_BHLL @ v_BHLd).transpose(1, 2).flatten(2))

    def _softmax(self, s_BHLL: Tensor) -> Tensor:
        if not taps.is_edited("sums"):
            return s_BHLL.softmax(-1)
        e_BHLL = torch.exp(s_BHLL - s_BHLL.detach().amax(-1, keepdim=True))
        return e_BHLL / self._tap("sums", e_BHLL.sum(-1, keepdim=True))

    def _tap(self, word: str, x: Tensor) -> Tensor:
        return taps.tap(f"{self.layer}.{word}", x)

    def _split(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _capped(self, s_BHLL: Tensor) -> Tensor:
        return self.softcap * torch.tanh(s_BHLL / self.softcap) if self.softcap else s_BHLL


class FeedForward(nn.Module):
    """Two linear layers with a GELU between, 4 times as wide inside; the tap hidden is (B, L, 4D), after the GELU."""

    def __init__(self, layer: int, knobs: Any) -> None:
        super().__init__()
        self.layer = layer
        self.inner, self.outer = linear(knobs, knobs.width, 4 * knobs.width), linear(knobs, 4 * knobs.width, knobs.width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.outer(taps.tap(f"{self.layer}.hidden", F.gelu(self.inner(x_BLD))))


class Block(nn.Module):
    """Attention, then feed-forward, each as sum(x + after(f(before(x)))): a placement decides which of the three norms stand.

    none: h = x + A(x). post: h = N(x + A(x)). pre: h = x + A(N(x)). peri: h = x + N'(A(N(x))). reordered: h = x + N(A(x)).
    The feed-forward is wired alike. pre, peri and reordered norm the last block's output too, peri also the embedding.
    """

    def __init__(self, layer: int, knobs: Any) -> None:
        super().__init__()
        self.layer = layer
        self.attention, self.mlp = Attention(layer, knobs), FeedForward(layer, knobs)
        places = ("before", "after", "sum")
        self.attention_norm, self.mlp_norm = (nn.ModuleDict({place: norm_at(place, knobs) for place in places}) for _ in range(2))

    def forward(self, x_BLD: Tensor, mask_LL: Tensor, temperature: float | Tensor) -> Tensor:
        norm = self.attention_norm
        x_BLD = norm["sum"](x_BLD + norm["after"](self.attention(norm["before"](x_BLD), mask_LL, temperature)))
        norm = self.mlp_norm
        x_BLD = norm["sum"](x_BLD + norm["after"](self.mlp(norm["before"](x_BLD))))
        return taps.tap(f"{self.layer}.residual", x_BLD)


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the channels (axis 1), equal to torch's; new running statistics go to `taps.keep`."""

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))

    def rules(self) -> dict[str, Rule]:
        """See `initialize`."""
        statistics = {"running_mean": constant("", 0.0), "running_var": constant("", 1.0)}
        return dict(weight=constant("gain", 1.0), bias=constant("bias", 0.0), **statistics)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self._batch_statistics(x) if self.training else (self.running_mean, self.running_var)
        channels = (-1, *(1 for _ in range(2, x.ndim)))
        gain = self.weight * torch.rsqrt(var + self.eps)
        return (x - mean.view(channels)) * gain.view(channels) + self.bias.view(channels)

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        if count < 2:
            raise InputError("BatchNorm got one value per channel, which has no variance; train it with a batch of at least 2.")
        var, mean = torch.var_mean(x, (0, *range(2, x.ndim)), correction=0)
        unbiased = var.detach() * (count / (count - 1))
        _keep(self, "running_mean", torch.lerp(self.running_mean, mean.detach(), self.momentum))
        _keep(self, "running_var", torch.lerp(self.running_var, unbiased, self.momentum))
        return mean, var


class Dropout(nn.Module):
    """Sets each number to 0 with probability `rate` and divides the others by 1 - rate; does nothing where no key is given to draw from."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        key = taps.key_of(self.path)
        if key is None:
            return x
        kept = noise.uniform(key, "dropout", x.shape) >= self.rate
        return torch.where(kept, x / (1 - self.rate), 0.0)


def log_z(readout: Tensor) -> Tensor:
    """log of the softmax's denominator over the last axis, which z-loss keeps near 0."""
    return torch.logsumexp(readout, -1)


def _top_singular(weight: Tensor) -> tuple[Tensor, Tensor]:
    # LAPACK refuses non-finite matrices, and one diverged lane must not stop the others.
    finite = torch.isfinite(weight).all()
    _, values, right = torch.linalg.svd(torch.where(finite, weight, 0.0), full_matrices=False)
    return torch.where(finite, values[0], math.nan), right[0]


def _keep(part: nn.Module, leaf: str, value: Tensor) -> None:
    taps.keep(f"{part.path}.{leaf}".lstrip("."), value)
