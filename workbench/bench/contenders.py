"""Who is compared: the plain loop, the engine, and JAX where it is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

NAMES = ("plain", "engine", "jax")
WITHOUT_JAX = "JAX is not installed, so its columns are empty; in a clone, .venv/bin/pip install -c constraints.txt -e '.[bench]' adds it."


class Contender(Protocol):
    """Some runs that can be trained."""

    runs: int

    def train(self, steps: int) -> float:
        """Make so many updates of every run; the seconds they took."""


def installed() -> tuple[str, ...]:
    """Those that can be had here."""
    return NAMES if find_spec("jax") else NAMES[:2]


def kind(name: str) -> Callable[..., Any]:
    """What makes a contender of this name from a case."""
    if name == "plain":
        from .plain import Plain

        return Plain
    if name == "engine":
        from .ours import Engine

        return Engine
    from .jax_loop import Jax

    return Jax
