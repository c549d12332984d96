"""Shells: modules without values, on torch's meta device. The values live in the state of a run."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def build(make: Callable[[Any], nn.Module], knobs: Any) -> nn.Module:
    """The shell of `make(knobs)`, in training mode; each part knows its qualified name as `part.path`.

    For evaluation use `copy.deepcopy(shell).eval()`.
    """
    with torch.device("meta"):
        module = make(knobs)
    for path, part in module.named_modules():
        part.path = path
    module.takes_knobs = "knobs" in inspect.signature(module.forward).parameters
    return module


def apply(shell: nn.Module, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *inputs: Tensor, knobs: Any = None) -> Tensor:
    """The shell's output for these values; a model whose `forward` takes `knobs` reads its live knobs there.

    Raises RuntimeError where a value is missing or belongs to no leaf.
    """
    live = {"knobs": knobs} if shell.takes_knobs else {}
    return functional_call(shell, (dict(params), dict(buffers)), inputs, live, strict=True)
