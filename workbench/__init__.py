"""A workbench for training stability: small trainers and probes that log everything into labelled xarray records."""

import sys
from importlib import import_module
from types import ModuleType
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
    "explore": "panel",
}
_NAMES = {"open": "open_record", "studies": "table"}

__all__ = [*_PUBLIC, "__version__", "views"]


def __getattr__(name: str) -> Any:
    if name == "views":
        return import_module(".views", __name__)
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), _NAMES.get(name, name))


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Importing the subpackages `studies` and `report` leaves the public functions of these names in place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _PUBLIC or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
