"""Comparing trees of tensors and other values."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path


def difference(a: Any, b: Any, tolerance: float = 0.0) -> str:
    """Where two trees differ first, and by how much; empty if they agree to `tolerance` of each leaf's largest value.

    All but floating-point numbers must be equal. NaN equals NaN.
    """
    (ours, shape), (theirs, other) = tree_flatten_with_path(a), tree_flatten_with_path(b)
    if shape != other:
        return "other leaves"
    for (path, x), (_, y) in zip(ours, theirs, strict=True):
        if not _agree(x, y, tolerance):
            return f"{keystr(path) or 'its value'} {_by(x, y)}".strip()
    return ""


def _agree(x: Any, y: Any, tolerance: float) -> bool:
    if isinstance(x, (Tensor, np.ndarray, float)) and isinstance(y, (Tensor, np.ndarray, float)):
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        if x.shape != y.shape or x.dtype != y.dtype:
            return False
        if not x.is_floating_point():
            return torch.equal(x, y)
        return torch.allclose(x, y, rtol=tolerance, atol=tolerance * _largest(x), equal_nan=True)
    return type(x) is type(y) and bool(x == y)


def _largest(x: Tensor) -> float:
    finite = x[x.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


def _by(x: Any, y: Any) -> str:
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and x.is_floating_point() and x.numel():
        return f"by {float((x - y).abs().nan_to_num(torch.inf).max()):.2g}"
    return ""
