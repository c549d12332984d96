"""Many runs at once: one function of one run, mapped over lanes by vmap or by a loop."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten


def stack(trees: Sequence[Any]) -> Any:
    """One tree whose leaves have a leading lane axis."""
    return tree_map(lambda *leaves: torch.stack(leaves), *trees)


def lane(tree: Any, index: int) -> Any:
    """The tree of one lane."""
    return tree_map(lambda leaf: leaf[index], tree)


def cast(tree: Any, dtype: torch.dtype) -> Any:
    """The tree with its floating-point tensors in `dtype`; all other leaves as they are."""
    return tree_map(lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, tree)


def size_in_bytes(tree: Any) -> int:
    """Bytes of all tensors of a tree."""
    return sum(x.numel() * x.element_size() for x in tree_leaves(tree) if isinstance(x, Tensor))


def is_finite(tree: Any) -> Tensor:
    """Whether all floating-point leaves of one run are finite; 0-dim bool."""
    sums = [x.sum(dtype=torch.float64) for x in tree_leaves(tree) if isinstance(x, Tensor) and x.is_floating_point()]
    return torch.isfinite(torch.stack(sums)).all() if sums else torch.tensor(True)


class Vectorised:
    """Lanes as one stacked tree under torch.vmap."""

    name = "lanes"

    @staticmethod
    def pack(states: Sequence[Any]) -> Any:
        return stack(states)

    @staticmethod
    def unpack(states: Any, index: int) -> Any:
        return lane(states, index)

    @staticmethod
    def map(fn: Callable[..., Any], states: Any, batch: Any, shared_batch: bool, *per_lane: Any) -> tuple[Any, Any]:
        dims = (0, None if shared_batch else 0, *(0 for _ in per_lane))
        return torch.vmap(fn, in_dims=dims)(states, batch, *per_lane)


class Looped:
    """Lanes as a list of trees, one after another."""

    name = "loop"

    @staticmethod
    def pack(states: Sequence[Any]) -> Any:
        return list(states)

    @staticmethod
    def unpack(states: Any, index: int) -> Any:
        return states[index]

    @staticmethod
    def map(fn: Callable[..., Any], states: Any, batch: Any, shared_batch: bool, *per_lane: Any) -> tuple[Any, Any]:
        pick = (lambda i: batch) if shared_batch else (lambda i: _at(batch, i))
        pairs = [fn(state, pick(i), *(_at(x, i) for x in per_lane)) for i, state in enumerate(states)]
        return [new for new, _ in pairs], _stack_values([values for _, values in pairs])


Layout = type[Vectorised] | type[Looped]
LAYOUTS: dict[str, Layout] = {"lanes": Vectorised, "loop": Looped}


def _at(tree: Any, index: int) -> Any:
    leaves, spec = tree_flatten(tree, is_leaf=lambda x: isinstance(x, list))
    return tree_unflatten([leaf[index] for leaf in leaves], spec)


def _stack_values(values: Sequence[Any]) -> Any:
    return tree_map(lambda *leaves: torch.stack([torch.as_tensor(x) for x in leaves]), *values)
