"""The package's models in plain JAX, with parameters by the names that they have in torch.

Each is `(knobs, params, buffers, x) -> (logits, buffers)` of one run, in training mode.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .. import models
from ..models.parts import EPS

Params = Mapping[str, Array]
Output = tuple[Array, dict[str, Array]]

MOMENTUM, BATCH_EPS = 0.1, 1e-5


def decoder(knobs: Any, p: Params, buffers: Params, x_BL: Array) -> Output:
    """Tokens (B, L) to logits (B, L, vocabulary)."""
    length = x_BL.shape[1]
    mask_LL = jnp.tril(jnp.ones((length, length), bool))
    x_BLD = _through_blocks(knobs, p, p["embedding.weight"][x_BL], mask_LL)
    return _linear(p, "readout", x_BLD), {}


def vision_transformer(knobs: Any, p: Params, buffers: Params, x_BYX: Array) -> Output:
    """Pictures (B, side, side) to logits (B, classes)."""
    count, side = x_BYX.shape[0], x_BYX.shape[1] // knobs.patch
    patches = x_BYX.reshape(count, side, knobs.patch, side, knobs.patch).swapaxes(2, 3).reshape(count, side**2, -1)
    mask_LL = jnp.ones((side**2, side**2), bool)
    x_BLD = _through_blocks(knobs, p, _linear(p, "embedding", patches), mask_LL)
    return _linear(p, "readout", x_BLD.mean(1)), {}


def mlp(knobs: Any, p: Params, buffers: Params, x: Array) -> Output:
    """Rows (B, inputs) to logits (B, outputs), by ReLU."""
    for i in range(knobs.depth):
        x = jax.nn.relu(_linear(p, f"layers.{i}", x))
    return _linear(p, "readout", x), {}


def convnet(knobs: Any, p: Params, buffers: Params, x_BYX: Array) -> Output:
    """Pictures (B, y, x), sides divisible by 2 to the depth, to logits (B, classes)."""
    x, kept = x_BYX[:, None], {}
    for i in range(knobs.depth):
        x = lax.conv_general_dilated(x, p[f"layers.{i}.weight"], (1, 1), "SAME")
        x, new = _batch_norm(p, buffers, f"norms.{i}", x)
        kept |= new
        count, channels, rows, columns = x.shape
        x = jax.nn.relu(x).reshape(count, channels, rows // 2, 2, columns // 2, 2).mean((3, 5))
    return _linear(p, "readout", x.mean((2, 3))), kept


FORWARD: dict[type, Callable[..., Output]] = {
    models.Decoder: decoder,
    models.VisionTransformer: vision_transformer,
    models.MLP: mlp,
    models.Convnet: convnet,
}


def cross_entropy(logits: Array, y: Array) -> Array:
    """Mean over all predictions, in nats."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1)
    return -chosen.mean()


def _through_blocks(knobs: Any, p: Params, x_BLD: Array, mask_LL: Array) -> Array:
    x_BLD = x_BLD + p["positions.weight"][: x_BLD.shape[1]]
    for i in range(knobs.depth):
        block = f"blocks.{i}"
        x_BLD = x_BLD + _attention(knobs, p, f"{block}.attention", _norm(p, f"{block}.attention_norm.before", x_BLD), mask_LL)
        inner = _linear(p, f"{block}.mlp.inner", _norm(p, f"{block}.mlp_norm.before", x_BLD))
        x_BLD = x_BLD + _linear(p, f"{block}.mlp.outer", jax.nn.gelu(inner, approximate=False))
    return _norm(p, "final_norm", x_BLD)


def _attention(knobs: Any, p: Params, name: str, x_BLD: Array, mask_LL: Array) -> Array:
    shape = (*x_BLD.shape[:2], knobs.heads, -1)
    q, k, v = (_linear(p, f"{name}.{part}", x_BLD).reshape(shape).swapaxes(1, 2) for part in ("query", "key", "value"))
    s_BHLL = q @ k.mT / math.sqrt(q.shape[-1])
    p_BHLL = jax.nn.softmax(jnp.where(mask_LL, s_BHLL, -jnp.inf))
    return _linear(p, f"{name}.out", (p_BHLL @ v).swapaxes(1, 2).reshape(x_BLD.shape))


def _linear(p: Params, name: str, x: Array) -> Array:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def _norm(p: Params, name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPS) * p[f"{name}.weight"]


def _batch_norm(p: Params, buffers: Params, name: str, x: Array) -> Output:
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    count = x.size // x.shape[1]
    seen = {"running_mean": mean, "running_var": var * (count / (count - 1))}
    kept = {f"{name}.{leaf}": (1 - MOMENTUM) * buffers[f"{name}.{leaf}"] + MOMENTUM * lax.stop_gradient(x) for leaf, x in seen.items()}
    gain = p[f"{name}.weight"] * lax.rsqrt(var + BATCH_EPS)
    return (x - mean[:, None, None]) * gain[:, None, None] + p[f"{name}.bias"][:, None, None], kept
