"""Counter-based random draws: every number is a function of (seed, step, name, position).

A key is an int64 tensor of two 32-bit words. Draws are plain integer tensor operations, so they work under vmap, compile, and
on any device, and do not depend on who else is in the batch. The 32-bit finalizer is the two-round multiply-xorshift with the
constants 0x21f0aaad and 0x735a2d97 found by search for low bias (github.com/skeeto/hash-prospector, issue 19); both are below
2^31, so no product of theirs with a 32-bit word overflows int64.
"""

import hashlib
import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def key_of(seed: int | Tensor, device: torch.device | str | None = None) -> Tensor:
    """The key of a seed: int64, shape (*seed.shape, 2)."""
    seed = torch.as_tensor(seed, dtype=torch.int64, device=device)
    zero = torch.zeros((*seed.shape, 2), dtype=torch.int64, device=seed.device)
    return fold(zero, seed)


def fold(key: Tensor, data: int | str | Tensor) -> Tensor:
    """A new key from `key` and a number (up to 64 bits) or a name; shape (..., 2)."""
    if isinstance(data, str):
        low, high = _words(data)
    else:
        low, high = data & _MASK, (data >> 32) & _MASK
    first = _mix(_mix((key[..., 0] + low) & _MASK) ^ high)
    second = _mix((_mix(key[..., 1] ^ low ^ 0x9E3779B9) + high) & _MASK)
    return torch.stack([first, second], -1)


def bits(key: Tensor, name: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform 32-bit integers as int64, of the given shape."""
    low, high = fold(key, name).unbind(-1)
    counter = torch.arange(math.prod(shape), dtype=torch.int64, device=key.device).reshape(shape)
    return _mix(_mix((counter + low) & _MASK) ^ high)


def uniform(key: Tensor, name: str, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform on [0, 1), on a grid of 2^-24."""
    return (bits(key, name, shape) >> 8).to(dtype) * 2.0**-24


def normal(key: Tensor, name: str, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal by Box and Muller's method; no draw exceeds 5.8 in size."""
    radius = ((bits(key, f"{name}:radius", shape) >> 8) + 1).to(dtype) * 2.0**-24
    return torch.sqrt(-2 * torch.log(radius)) * torch.cos(2 * math.pi * uniform(key, f"{name}:angle", shape, dtype))


def truncated_normal(key: Tensor, name: str, shape: tuple[int, ...] = (), bound: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal conditioned on lying within +-`bound`, by inversion."""
    edge = math.erf(bound / math.sqrt(2))
    return math.sqrt(2) * torch.erfinv(edge * (2 * uniform(key, name, shape, dtype) - 1))


def randint(key: Tensor, name: str, high: int | Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Integers from 0 to high - 1 (high below 2^31), biased by less than high / 2^32."""
    return (bits(key, name, shape) * high) >> 32


def permutation(key: Tensor, name: str, n: int) -> Tensor:
    """The integers 0 to n - 1 in random order."""
    return torch.argsort(bits(key, name, (n,)), dim=-1, stable=True)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ (x >> 16)) * 0x21F0AAAD & _MASK
    x = (x ^ (x >> 15)) * 0x735A2D97 & _MASK
    return x ^ (x >> 15)


@torch.compiler.assume_constant_result
def _words(name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
