"""Packages of the `report` extra, imported on first use: a study that declares views runs without them."""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import InputError


def extra(name: str) -> ModuleType:
    """The package of this name; InputError with the remedy if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        remedy = "install it with: pip install 'stability-workbench[report]'"
        raise InputError(f"Charts and reports need the package {name!r}; {remedy}.") from error


@cache
def _altair() -> ModuleType:
    from .theme import enable

    altair = extra("altair")
    enable(altair)
    return altair


class _Altair:
    """Altair with the workbench's theme."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_altair(), name)


if TYPE_CHECKING:
    import altair as alt
else:
    alt = _Altair()

__all__ = ["alt", "extra"]
