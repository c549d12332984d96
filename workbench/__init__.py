"""A workbench for training stability: small trainers and probes that log everything into labelled xarray records."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "run": "engine",
    "fork": "engine",
    "open": "opening",
    "studies": "catalogue",
    "find": "catalogue",
    "grid": "design",
    "save": "record",
    "report": "report",
    "check": "testing",
}
_NAMES = {"open": "open_record", "studies": "table"}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), _NAMES.get(name, name))


def __dir__() -> list[str]:
    return sorted(__all__)
