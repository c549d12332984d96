"""Initial values: every leaf of a model is a pure function of (key, its own name), so runs that share a leaf share its value.

A module says how its leaves begin with a method `rules() -> {leaf: Rule}`; plain torch layers follow torch's own defaults.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import noise
from ..errors import InputError
from ..knobs import Knobs, knob

SCALED = ("matrix", "readout")


class Initialization(Knobs):
    """How large the first weights are."""

    init_scale: float = knob(
        1.0, 0.1, 10.0, log=True, acts="start", group="model", doc="factor on the initial standard deviation of matrices"
    )


@dataclass(frozen=True)
class Rule:
    """How one leaf begins: `draw(key, name, shape, dtype)`, or `derive(leaves)` from the other leaves of its module.

    A rule with both draws in a new run and derives in a run that adapts.
    `role` is one of matrix, embedding, readout, gain, bias, and empty for buffers. A matrix of a module that is called `readout`
    or `embedding` takes that role.
    """

    role: str = ""
    draw: Callable[[Tensor, str, torch.Size, torch.dtype], Tensor] | None = None
    derive: Callable[[Mapping[str, Tensor]], Tensor] | None = None


def constant(role: str, value: float) -> Rule:
    """Every entry is `value`."""
    return Rule(role, lambda key, name, shape, dtype: torch.full(shape, value, dtype=dtype, device=key.device))


def normal(role: str, std: float) -> Rule:
    """Normal with mean 0."""
    return Rule(role, lambda key, name, shape, dtype: std * noise.normal(key, name, shape, dtype))


def truncated_normal(role: str, std: float) -> Rule:
    """Normal cut at two of its standard deviations and widened so that what remains has standard deviation `std`."""
    std_left = 0.8796256610342398
    return Rule(role, lambda key, name, shape, dtype: std / std_left * noise.truncated_normal(key, name, shape, dtype=dtype))


def uniform(role: str, bound: float) -> Rule:
    """Uniform on [-bound, bound)."""
    return Rule(role, lambda key, name, shape, dtype: bound * (2 * noise.uniform(key, name, shape, dtype) - 1))


def initialize(
    module: nn.Module, key: Tensor, knobs: Any, given: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, buffers) of one run by name, on the key's device; may be vmapped over `key`, the lanes of `knobs` and `given`.

    Leaves in `given` (parameters and buffers together) are kept and only the rest is made, derived ones from what was given:
    this is how a run adapts to another model. Names the model lacks are dropped. Raises InputError for a leaf without a rule
    and for a given one of another shape.
    """
    leaves, later = {}, []
    for leaf in _leaves(module):
        if given is not None and leaf.name in given:
            leaves[leaf.name] = _fitting(given[leaf.name], leaf)
        elif leaf.rule.derive is not None and (leaf.rule.draw is None or given is not None):
            later.append(leaf)
        else:
            leaves[leaf.name] = _drawn(leaf, key, getattr(knobs, "init_scale", 1.0))
    made = dict(leaves)
    for leaf in later:
        prefix = leaf.name.removesuffix(leaf.local)
        own = {name.removeprefix(prefix): x for name, x in leaves.items() if name.startswith(prefix)}
        made[leaf.name] = leaf.rule.derive(own)
    buffers = {name: made[name] for name, _ in module.named_buffers()}
    return {name: made[name] for name, _ in module.named_parameters()}, buffers


def roles(module: nn.Module) -> dict[str, str]:
    """Parameter name to its role: matrix, embedding, readout, gain or bias."""
    found = {leaf.name: leaf.rule.role for leaf in _leaves(module)}
    return {name: found[name] for name, _ in module.named_parameters()}


class _Leaf(NamedTuple):
    name: str
    local: str
    like: Tensor
    rule: Rule


def _leaves(module: nn.Module) -> Iterator[_Leaf]:
    wanted = dict(module.named_parameters()) | dict(module.named_buffers())
    for path, part in module.named_modules():
        rules = _rules(part)
        own = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
        for local, like in own.items():
            name = f"{path}.{local}".lstrip(".")
            if name not in wanted:
                continue  # tied to a leaf met earlier
            if local not in rules:
                kind = "Parameter" if isinstance(like, nn.Parameter) else "Buffer"
                raise InputError(
                    f"{kind} {name!r} has no initialization rule; give {type(part).__name__} a method rules() that returns one."
                )
            yield _Leaf(name, local, like, _named(rules[local], path))


def _named(rule: Rule, path: str) -> Rule:
    last = path.rsplit(".", 1)[-1]
    return Rule(last, rule.draw, rule.derive) if rule.role == "matrix" and last in ("readout", "embedding") else rule


def _drawn(leaf: _Leaf, key: Tensor, scale: float | Tensor) -> Tensor:
    dtype = torch.promote_types(leaf.like.dtype, torch.float32) if leaf.like.is_floating_point() else leaf.like.dtype
    value = leaf.rule.draw(key, leaf.name, leaf.like.shape, dtype)
    return (value * scale if leaf.rule.role in SCALED else value).to(leaf.like.dtype)


def _fitting(value: Tensor, leaf: _Leaf) -> Tensor:
    if value.shape != leaf.like.shape:
        raise InputError(f"{leaf.name!r} has shape {tuple(value.shape)} but the model needs {tuple(leaf.like.shape)}; begin a new run.")
    return value


def _rules(part: nn.Module) -> Mapping[str, Rule]:
    if hasattr(part, "rules"):
        return part.rules()
    return next((rules(part) for kinds, rules in _PLAIN.items() if isinstance(part, kinds)), {})


def by_fan_in(part: nn.Module) -> dict[str, Rule]:
    """How torch begins linear and convolutional layers: uniform within 1 / sqrt(fan_in)."""
    bound = part.weight[0].numel() ** -0.5
    return {"weight": uniform("matrix", bound), "bias": uniform("bias", bound)}


def _normalization(part: nn.Module) -> dict[str, Rule]:
    statistics = {"running_mean": constant("", 0.0), "running_var": constant("", 1.0), "num_batches_tracked": constant("", 0)}
    return dict(weight=constant("gain", 1.0), bias=constant("bias", 0.0), **statistics)


_PLAIN = {
    (nn.Linear, nn.Conv1d, nn.Conv2d): by_fan_in,
    (nn.Embedding,): lambda part: {"weight": normal("embedding", 1.0)},
    (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d): _normalization,
}
